//! Forms as browsers and OAuth clients post them, and whether one came from our own page.

use std::convert::Infallible;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use url::form_urlencoded;

/// Longer forms are none.
const LONGEST_FORM: usize = 64 * 1024;

/// The fields of a posted form, in order; none when the body is no form, or an absurdly long one.
pub(super) struct Form(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Infallible;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Infallible> {
        let (head, body) = request.into_parts();
        let body = short(body).await.filter(|_| is_form(&head.headers)).unwrap_or_default();
        Ok(Self(form_urlencoded::parse(&body).into_owned().collect()))
    }
}

impl Form {
    /// The first field of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All fields.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A body of at most [`LONGEST_FORM`]. Anyone may post here, so of a longer one nothing is kept. It is read to its end all the
/// same, so that the client is there to hear the answer, unless it need not have one: the outermost layer has judged only a
/// length that was declared.
async fn short(mut body: Body) -> Option<Vec<u8>> {
    let ends = body.size_hint().upper().is_some();
    let mut kept = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.ok()?.into_data() else { continue };
        kept = kept.filter(|kept| kept.len() + part.len() <= LONGEST_FORM);
        match &mut kept {
            Some(kept) => kept.extend_from_slice(&part),
            None if ends => {}
            None => return None,
        }
    }
    kept
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
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
            let form = posted(kind, Body::from(body)).await;
            form.get("user_code").map(str::to_owned)
        };
        let form = Some("application/x-www-form-urlencoded; charset=UTF-8");
        assert_eq!(read(form, "x=1&user_code=A+B%2D&user_code=C").await.as_deref(), Some("A B-"));
        assert_eq!(read(form, "").await, None);
        assert_eq!(read(None, "user_code=A").await, None);
        assert_eq!(read(Some("application/json"), r#"{"user_code":"A"}"#).await, None);
    }

    async fn posted(kind: Option<&str>, body: Body) -> Form {
        let mut request = Request::new(body);
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        Form::from_request(request, &()).await.unwrap()
    }

    #[tokio::test]
    async fn a_body_longer_than_any_form_is_none_and_one_without_an_end_is_not_waited_for() {
        let kind = Some("application/x-www-form-urlencoded");
        let form = |length| format!("a={}", "x".repeat(length - 2));
        assert!(posted(kind, Body::from(form(LONGEST_FORM))).await.get("a").is_some());
        assert!(posted(kind, Body::from(form(LONGEST_FORM + 1))).await.get("a").is_none());
        let endless = futures_util::stream::repeat_with(|| Ok::<_, Infallible>("a=b&"));
        assert!(posted(kind, Body::from_stream(endless)).await.get("a").is_none());
    }
}
