//! A client of the gateway, as the outside has them: the operator's curl, a developer's terminal, a person's browser.
//!
//! Goes over HTTP like everybody else; knows no room.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use control::connect::{Config, Egress, ResponseBody, UpstreamClient};
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Full};

use serde_json::Value;
use url::{Url, form_urlencoded};

/// Longer than any answer of the demo takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends requests to loopback; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    client: UpstreamClient<Full<Bytes>>,
    origin: String,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A browser: a visitor with cookies, who follows redirects and fills in forms.
#[derive(Debug)]
pub(super) struct Browser {
    visitor: Visitor,
    cookies: BTreeMap<String, String>,
}

/// The page on which a browser ended up.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) url: Url,
    pub(super) status: StatusCode,
    pub(super) html: String,
    /// Every request on the way: method, path and status.
    pub(super) way: Vec<(String, u16)>,
}

impl Visitor {
    /// A visitor of the gateway at `origin`.
    pub(super) fn new(origin: &str) -> anyhow::Result<Self> {
        let config = Config { allow_loopback: true, proxy: None };
        let egress = Egress::new(&config).map_err(|reason| anyhow!(reason))?;
        Ok(Self { client: egress.client(), origin: origin.to_owned() })
    }

    pub(super) fn get(&self, path: &str) -> request::Builder {
        Request::get(format!("{}{path}", self.origin))
    }

    pub(super) fn post(&self, path: &str) -> request::Builder {
        Request::post(format!("{}{path}", self.origin))
    }

    /// Sends and waits for the whole answer.
    pub(super) async fn send(&self, request: request::Builder, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        let exchange = async {
            let (parts, body) = self.open(request, body).await?.into_parts();
            let body = body.collect().await.context("the answer broke off")?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.context("no answer in two minutes")?
    }

    /// Sends and gives the answer as soon as its head is there.
    pub(super) async fn open(
        &self,
        request: request::Builder,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Response<ResponseBody>> {
        Ok(self.client.request(request.body(Full::new(body.into()))?).await?)
    }
}

impl Answer {
    /// The body as JSON.
    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Browser {
    pub(super) fn new(visitor: &Visitor) -> Self {
        Self { visitor: visitor.clone(), cookies: BTreeMap::new() }
    }

    /// Types an address.
    pub(super) async fn open(&mut self, url: &str) -> anyhow::Result<Page> {
        self.travel(Method::GET, Url::parse(url)?, Bytes::new(), None).await
    }

    /// Submits the page's form, with `picked` as the button that was pressed.
    pub(super) async fn submit(&mut self, page: &Page, picked: Option<(&str, &str)>) -> anyhow::Result<Page> {
        let form = Form::of(page)?;
        let fields = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(picked);
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.travel(Method::POST, form.action, body.into(), Some(page.url.origin().ascii_serialization())).await
    }

    async fn travel(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut body: Bytes,
        from: Option<String>,
    ) -> anyhow::Result<Page> {
        let mut way = Vec::new();
        for _ in 0..10 {
            let mut request = Request::builder().method(&method).uri(url.as_str());
            if method == Method::POST {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                request = from.iter().fold(request, |request, origin| request.header(ORIGIN, origin));
            }
            if !self.cookies.is_empty() {
                let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
                request = request.header(COOKIE, pairs.join("; "));
            }
            let answer = self.visitor.send(request, body).await?;
            way.push((format!("{method} {}", url.path()), answer.status.as_u16()));
            self.keep_cookies(&answer.headers);
            if !answer.status.is_redirection() {
                return Ok(Page { url, status: answer.status, html: answer.text(), way });
            }
            let location = answer.headers.get(LOCATION).context("a redirect to nowhere")?.to_str()?;
            url = url.join(location)?;
            (method, body) = (Method::GET, Bytes::new());
        }
        bail!("redirected in a circle at {}", url.path())
    }

    /// One jar for all ports, as in real browsers (RFC 6265, section 8.5).
    fn keep_cookies(&mut self, headers: &HeaderMap) {
        for set in headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let (pair, attributes) = set.split_once(';').unwrap_or((set, ""));
            let Some((name, value)) = pair.split_once('=') else { continue };
            if attributes.to_ascii_lowercase().contains("max-age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// What would be sent if the page's first form were submitted.
#[derive(Debug)]
struct Form {
    action: Url,
    fields: Vec<(String, String)>,
}

impl Form {
    /// Reads the pages of the demo and of the gateway, whose attributes stand in double quotes.
    fn of(page: &Page) -> anyhow::Result<Self> {
        let (_, form) = page.html.split_once("<form").with_context(|| format!("no form on {}", page.url.path()))?;
        let (form, _) = form.split_once("</form>").context("a form without an end")?;
        let (head, inside) = form.split_once('>').context("a form without a start")?;
        let action = page.url.join(&attribute(head, "action").unwrap_or_default())?;
        let inputs = inside.split("<input").skip(1).filter_map(|rest| rest.split('>').next());
        let fields = inputs
            .filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default())))
            .collect();
        Ok(Self { action, fields })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(unescaped(rest.split('"').next()?))
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let (entity, tail) = after.split_once(';').unwrap_or(("amp", after));
        let code = entity.strip_prefix('#').and_then(|number| match number.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        });
        plain.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            _ => code.and_then(char::from_u32).unwrap_or('&'),
        });
        rest = tail;
    }
    plain + rest
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_with_its_fields_and_their_escapes() {
        let html = r#"<input name="outside"><form method="post" action="/go?a=1&amp;b=2">
            <input type="hidden" name="code" value="A&#34;&#x42;&lt;"><input name="empty" required>
            <button name="login" value="ada">Ada</button></form><input name="after">"#;
        let url = Url::parse("http://127.0.0.1:1/device").unwrap();
        let page = Page { url, status: StatusCode::OK, html: html.to_owned(), way: Vec::new() };
        let form = Form::of(&page).unwrap();
        assert_eq!(form.action.as_str(), "http://127.0.0.1:1/go?a=1&b=2");
        let fields: Vec<_> = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, [("code", "A\"B<"), ("empty", "")]);
    }
}
