//! Query strings of lists: repeated keys with `[]`, whole numbers in a range, either cursor.

use control::spend::cap;
use jiff::Timestamp;

use super::Error;

/// A list's query, unknown parameters left aside.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        Self(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `name[]=a&name[]=b`.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key.strip_suffix("[]") == Some(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The same, and `name=a` for those who forget the brackets: to leave that aside would answer another question.
    pub(super) fn all_even_bare(&self, name: &str) -> Vec<&str> {
        let is_named = |key: &str| key.strip_suffix("[]").unwrap_or(key) == name;
        self.0.iter().filter(|(key, _)| is_named(key)).map(|(_, value)| value.as_str()).collect()
    }

    /// 1 to 1000, 20 when not given.
    pub(super) fn limit(&self) -> Result<usize, Error> {
        self.limit_or(20)
    }

    /// 1 to 1000, or `usual`.
    pub(super) fn limit_or(&self, usual: usize) -> Result<usize, Error> {
        self.limit_within(usual, 1000)
    }

    /// A time in RFC 3339.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let at: Option<Timestamp> = text.parse().ok();
        // Sums of milliseconds are reckoned from 1970.
        let at = at.filter(|at| *at >= Timestamp::UNIX_EPOCH);
        at.map(Some).ok_or_else(|| Error::Invalid(format!("{name}: must be a time such as 2026-11-22T00:00:00Z")))
    }

    /// 1 to `most`, or `usual`.
    pub(super) fn limit_within(&self, usual: usize, most: usize) -> Result<usize, Error> {
        let Some(text) = self.get("limit") else { return Ok(usual) };
        text.parse()
            .ok()
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| Error::Invalid(format!("limit: must be a whole number from 1 to {most}")))
    }

    /// `after_id` or `before_id`, not both.
    pub(super) fn from(&self) -> Result<cap::From, Error> {
        match (self.get("after_id"), self.get("before_id")) {
            (Some(_), Some(_)) => Err(Error::Invalid("after_id and before_id cannot both be given".to_owned())),
            (Some(id), None) => Ok(cap::From::After(id.to_owned())),
            (None, Some(id)) => Ok(cap::From::Before(id.to_owned())),
            (None, None) => Ok(cap::From::Start),
        }
    }
}
