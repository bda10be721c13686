//! Seats: how many requests are served at once, in all and for one person (contract R35).
//!
//! Knows numbers; who finds no seat is told at once and never waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `limits.max_concurrent_requests`, when it is left out.
pub const MOST: usize = 4096;

/// How many there are, and who sits.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    most_each: Option<usize>,
    taken: AtomicUsize,
    /// By subject; empty while nobody is counted by person.
    each: Mutex<HashMap<String, usize>>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `limits.max_concurrent_requests`.
    #[error("the gateway is serving as many requests as it may; try again shortly")]
    Gateway,
    /// `limits.max_concurrent_per_user`.
    #[error("you have as many requests open as one person may; try again when one of them has ended")]
    Person,
}

/// Taken for as long as it lives.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    /// Whose it is, where people are counted.
    sub: Option<String>,
}

impl Seats {
    /// So many in all, and so many for one person; `None`: as many as there are.
    #[must_use]
    pub fn new(most: usize, most_each: Option<usize>) -> Self {
        Self { most, most_each, taken: AtomicUsize::new(0), each: Mutex::default() }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A seat for a request of `sub`.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn take(self: &Arc<Self>, sub: &str) -> Result<Seat, Full> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Full::Gateway)?;
        // From here on, its end gives back what it has taken.
        let mut seat = Seat { seats: Arc::clone(self), sub: None };
        if let Some(most) = self.most_each {
            let mut each = self.each();
            let taken = each.entry(sub.to_owned()).or_default();
            if *taken >= most {
                drop(each);
                return Err(Full::Person);
            }
            *taken += 1;
            seat.sub = Some(sub.to_owned());
        }
        Ok(seat)
    }

    fn each(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(sub) = self.sub.take() else { return };
        let mut each = self.seats.each();
        if let Some(taken) = each.get_mut(&sub) {
            *taken -= 1;
            if *taken == 0 {
                each.remove(&sub);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let seats = Arc::new(Seats::new(2, None));
        let first = seats.take("alice").unwrap();
        let _second = seats.take("alice").unwrap();
        assert_eq!(seats.take("bob").unwrap_err(), Full::Gateway);
        drop(first);
        assert!(seats.take("bob").is_ok());
        assert_eq!(seats.taken(), 1);
    }

    #[test]
    fn one_person_takes_no_more_than_its_own() {
        let seats = Arc::new(Seats::new(3, Some(1)));
        let alices = seats.take("alice").unwrap();
        assert_eq!(seats.take("alice").unwrap_err(), Full::Person);
        let bobs = seats.take("bob").unwrap();
        assert_eq!(seats.taken(), 2, "a refused request keeps no seat");
        drop(alices);
        drop(seats.take("alice").unwrap());
        drop(bobs);
        assert!(seats.each().is_empty(), "nobody is remembered who has left");
    }
}
