//! The second phase of a load test: nobody is asked (contract B10).

use std::sync::Arc;

use control::identity::Principal;
use http::HeaderMap;

use super::admit::Admitted;
use super::attempt::Answered;
use super::settle::Tab;
use super::{Facts, Failure};
use crate::upstream::LoadTest;

/// The header that makes one bearer many developers, by a number of up to seven digits.
const USER: &str = "x-load-test-user";

/// Whose request it counts as.
pub(super) fn person(facts: Facts, headers: &HeaderMap) -> Facts {
    let is_number = |text: &&str| (1..=7).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = headers.get(USER).and_then(|value| value.to_str().ok()).filter(is_number) else { return facts };
    let person = Principal { sub: format!("load-test-{number}"), email: None, ..(*facts.principal).clone() };
    Facts { principal: Arc::new(person), ..facts }
}

/// The canned answer, in the name of the upstream that would have been asked first.
pub(super) fn answer(tab: &mut Tab, load_test: &LoadTest, admitted: &Admitted) -> Result<Answered, Failure> {
    let first = admitted.candidates().first();
    let candidate = first.ok_or(Failure::Exhausted { configured: tab.inference().upstreams.count() })?;
    let answer = load_test.answer(tab.endpoint(), admitted.is_stream());
    let _ = tab.try_upstream(candidate);
    tab.tried("served", Some(answer.status().as_u16()));
    Ok(Answered { upstream: Arc::clone(&candidate.upstream), answer })
}
