//! Forms as browsers and OAuth clients post them, and whether one came from our own page.

use axum::body::{Body, to_bytes};
use http::{HeaderMap, header};
use url::form_urlencoded;

/// Longer bodies are read to their end and ignored, so that the client is there to hear the answer.
const LONGEST_FORM: usize = 64 * 1024;

/// The fields of a posted form, in order.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// `None` when the body is no form, or an absurdly long one.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Option<Self> {
        // The outermost layer has bounded the body.
        let body = to_bytes(body, usize::MAX).await.ok()?;
        let is_form =
            media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        if !is_form || body.len() > LONGEST_FORM {
            return None;
        }
        Some(Self(form_urlencoded::parse(&body).into_owned().collect()))
    }

    /// The first field of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All fields.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(str::trim)
}

/// Whether a browser posted from our own page. `Sec-Fetch-Site`, which no page can forge, decides when it is there;
/// `Origin` else; neither is a no.
pub(super) fn is_same_origin(headers: &HeaderMap, ours: Option<&str>) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin" || site == "none",
        None => match (headers.get(header::ORIGIN), ours) {
            (Some(origin), Some(ours)) => origin == ours,
            _ => false,
        },
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_page_may_post() {
        let ours = Some("https://gw.example");
        for (site, origin, expected) in [
            (Some("same-origin"), Some("https://evil.example"), true),
            (Some("none"), None, true),
            (Some("same-site"), Some("https://gw.example"), false),
            (Some("cross-site"), Some("https://gw.example"), false),
            (Some("junk"), Some("https://gw.example"), false),
            (None, Some("https://gw.example"), true),
            (None, Some("http://gw.example"), false),
            (None, Some("https://gw.example:8443"), false),
            (None, Some("null"), false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_same_origin(&headers, ours), expected, "{site:?} {origin:?}");
        }
    }

    #[tokio::test]
    async fn only_a_form_is_read() {
        let read = async |kind: Option<&str>, body: &'static str| {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            Form::read(&headers, Body::from(body)).await.and_then(|form| form.get("user_code").map(str::to_owned))
        };
        let form = Some("application/x-www-form-urlencoded; charset=UTF-8");
        assert_eq!(read(form, "x=1&user_code=A+B%2D&user_code=C").await.as_deref(), Some("A B-"));
        assert_eq!(read(form, "").await, None);
        assert_eq!(read(None, "user_code=A").await, None);
        assert_eq!(read(Some("application/json"), r#"{"user_code":"A"}"#).await, None);
    }
}
