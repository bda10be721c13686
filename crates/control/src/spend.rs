//! Spend: whether a principal can afford a request, and what it cost.
//!
//! Knows prices, caps and the ledger; knows nothing of HTTP or of which upstream answers.

mod bound;
pub mod cap;
mod estimate;
pub mod ledger;
pub mod money;
pub mod period;
pub mod pool;
pub mod price;
pub mod report;
pub mod split;
mod table;
pub mod upkeep;

use std::time::Duration;

pub use bound::Size;
pub use cap::{Cap, Caps, Scope, Setting};
pub use ledger::{Admission, Figures, Ledger, Origin, Refusal, Reservation, Settlement, Standing};
pub use money::Money;
pub use period::Period;
pub use pool::PoolInForce;
pub use price::{Prices, Pricing, Quote};
pub use report::Report;
pub use split::{Part, Split};
pub use upkeep::{Retention, Upkeep};

use crate::store::{Store, StoreError};

/// Whether anything in this database has ever cost anything.
///
/// # Errors
/// When the database cannot be asked.
pub async fn has_spend(store: &Store) -> Result<bool, StoreError> {
    table::has_spend(store).await
}

/// `admin:` and `enforcement:` as far as they concern money.
#[derive(Debug, Clone)]
pub struct Config {
    /// `admin.group_limit_mode`.
    pub group_mode: GroupMode,
    /// `admin.blocked_message`.
    pub blocked_message: Option<String>,
    /// `enforcement.overshoot`.
    pub overshoot: Overshoot,
    /// `enforcement.fail_closed_on_error`; [`Overshoot::None`] implies it.
    pub fail_closed: bool,
    /// How long a request that only fits after others have settled may wait for them (R17a).
    pub wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            group_mode: GroupMode::default(),
            blocked_message: None,
            overshoot: Overshoot::default(),
            fail_closed: false,
            wait: Duration::from_secs(5),
        }
    }
}

/// By how much a cap may be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overshoot {
    /// By one request's cost, and by what its cost was underestimated.
    #[default]
    Bounded,
    /// Not at all: what is set aside is the most that a request can cost.
    None,
}

/// Which cap counts when several groups of a person have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupMode {
    /// The smallest.
    #[default]
    Min,
    /// The largest; an unlimited one wins.
    Max,
}
