//! The pages of the sign-in: complete without script, in one answer, for keyboards, readers and either colour scheme.

use std::net::IpAddr;
use std::time::Duration;

use askama::Template;
use axum::response::{IntoResponse, Response};
use control::identity::{Pending, UserCode};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;

use super::NO_STORE;

/// Writes pages.
#[derive(Clone)]
pub(super) struct Pages {
    policy: HeaderValue,
    notice: Option<String>,
}

/// Where a code is typed.
#[derive(Template)]
#[template(path = "enter.html")]
struct Enter<'a> {
    problem: Option<&'a str>,
    typed: &'a str,
    notice: Option<&'a str>,
}

/// Where a person sees who asked, and decides.
#[derive(Template)]
#[template(path = "approve.html")]
struct Approve<'a> {
    code: String,
    surface: Option<&'a str>,
    asked_from: &'a str,
    asked_at: String,
    asked_ago: String,
    foreign_to: Option<String>,
    notice: Option<&'a str>,
}

/// How it ended.
#[derive(Template)]
#[template(path = "message.html")]
struct Ending<'a> {
    title: &'a str,
    text: &'a str,
    detail: Option<&'a str>,
    request_id: &'a str,
    good: bool,
}

/// The words of an ending.
pub(super) struct Words<'a> {
    pub(super) title: &'a str,
    pub(super) text: &'a str,
    pub(super) detail: Option<&'a str>,
}

impl Pages {
    /// Pages whose forms may lead to us and, by redirect, to these origins.
    pub(super) fn new(origins: &[String], notice: Option<String>) -> Self {
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; font-src data:; frame-ancestors 'none'; \
             form-action 'self' {}; base-uri 'none'",
            origins.join(" ")
        );
        // An origin's ASCII serialisation always fits into a header.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { policy, notice }
    }

    pub(super) fn enter(&self, status: StatusCode, problem: Option<&str>, typed: &str) -> Response {
        self.show(status, &Enter { problem, typed, notice: self.notice.as_deref() })
    }

    pub(super) fn approve(&self, code: &UserCode, grant: &Pending, browser: IpAddr, now: Timestamp) -> Response {
        let browser = browser.to_string();
        let page = Approve {
            code: code.to_string(),
            surface: grant.surface.as_deref(),
            asked_from: &grant.client_ip,
            asked_at: grant.created_at.to_string(),
            asked_ago: ago(grant.created_at, now),
            foreign_to: (grant.client_ip != browser).then_some(browser),
            notice: self.notice.as_deref(),
        };
        self.show(StatusCode::OK, &page)
    }

    pub(super) fn good_end(&self, words: &Words<'_>) -> Response {
        self.end(StatusCode::OK, words, "", true)
    }

    pub(super) fn bad_end(&self, status: StatusCode, words: &Words<'_>, request_id: &str) -> Response {
        self.end(status, words, request_id, false)
    }

    fn end(&self, status: StatusCode, words: &Words<'_>, request_id: &str, good: bool) -> Response {
        let Words { title, text, detail } = *words;
        self.show(status, &Ending { title, text, detail, request_id, good })
    }

    fn show(&self, status: StatusCode, page: &impl Template) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, self.policy.clone()),
        ];
        match page.render() {
            Ok(html) => (status, headers, NO_STORE, html).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, NO_STORE).into_response(),
        }
    }
}

/// In words that need no time zone: the server knows none of the person's.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let passed = Duration::try_from(now.duration_since(then)).unwrap_or_default().as_secs();
    match passed {
        0..=59 => "less than a minute ago".to_owned(),
        60..=119 => "a minute ago".to_owned(),
        _ => format!("{} minutes ago", passed / 60),
    }
}
