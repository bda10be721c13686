//! A person with a browser, as far as servers can tell: cookies, redirects, forms and the fetch-metadata headers.
//! No scripts and no rendering; `support/browser.rs` drives a real one.

use super::{Http, Page, Reply};
use bytes::Bytes;
use hyper::{Method, Request, header};
use std::collections::BTreeMap;
use url::{Url, form_urlencoded};

/// A browser profile: whoever holds it keeps its cookies.
pub(crate) struct Visitor {
    http: Http,
    /// By host, path and name. Ports do not separate cookies, in browsers neither.
    cookies: BTreeMap<(String, String, String), String>,
}

impl Visitor {
    pub(crate) fn new() -> Self {
        Self { http: Http::new(), cookies: BTreeMap::new() }
    }

    /// Types an address; ends where the redirects end.
    pub(crate) async fn open(&mut self, url: &str) -> Page {
        self.travel(Method::GET, Url::parse(url).unwrap(), Bytes::new(), None).await
    }

    /// Submits a form of the page in front of the visitor; ends where the redirects end.
    pub(crate) async fn submit(&mut self, page: &Page, form: super::Form) -> Page {
        let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form.fields).finish();
        if form.method == "get" {
            let mut url = form.action;
            url.set_query(Some(&encoded));
            return self.travel(Method::GET, url, Bytes::new(), Some(&page.url)).await;
        }
        self.travel(Method::POST, form.action, encoded.into(), Some(&page.url)).await
    }

    /// Walks the device sign-in: confirms the code at the gateway, signs in as `account` at the provider
    /// and returns the page on which it ends.
    pub(crate) async fn sign_in(&mut self, verification_uri_complete: &str, account: &str) -> Page {
        let approval = self.open(verification_uri_complete).await;
        let login = self.submit(&approval, approval.form()).await;
        assert_ne!(login.url.origin(), approval.url.origin(), "no redirect to the provider:\n{}", login.reply.text());
        self.submit(&login, login.form().fill("login", account)).await
    }

    async fn travel(&mut self, mut method: Method, mut url: Url, mut body: Bytes, from: Option<&Url>) -> Page {
        let mut site = from.map_or("none", |from| relation(from, &url));
        for _ in 0..20 {
            let reply = self.fetch(&method, &url, body.clone(), site, from).await;
            self.keep_cookies(&url, &reply);
            if !reply.status.is_redirection() {
                return Page { url, reply };
            }
            let next = url.join(reply.header("location").unwrap()).unwrap();
            // Once a redirect left the origin, later hops stay foreign, as in browsers.
            if from.is_some() && site == "same-origin" {
                site = relation(&url, &next);
            }
            if !matches!(reply.status.as_u16(), 307 | 308) {
                (method, body) = (Method::GET, Bytes::new());
            }
            url = next;
        }
        panic!("redirected in a circle at {url}");
    }

    async fn fetch(&self, method: &Method, url: &Url, body: Bytes, site: &str, from: Option<&Url>) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::ACCEPT, "text/html")
            .header("sec-fetch-site", site)
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document");
        if method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            if let Some(from) = from {
                request = request.header(header::ORIGIN, from.origin().ascii_serialization());
            }
        }
        let cookies: Vec<_> = self.sent_to(url).map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        self.http.send(request.body(body).unwrap()).await
    }

    fn keep_cookies(&mut self, url: &Url, reply: &Reply) {
        for set in reply.headers.get_all(header::SET_COOKIE) {
            let mut parts = set.to_str().unwrap().split("; ");
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let (mut path, mut gone) = ("/", value.is_empty());
            for attribute in parts {
                match attribute.split_once('=').unwrap_or((attribute, "")) {
                    (key, at) if key.eq_ignore_ascii_case("path") => path = at,
                    (key, "0") if key.eq_ignore_ascii_case("max-age") => gone = true,
                    _ => {}
                }
            }
            let key = (url.host_str().unwrap().to_owned(), path.to_owned(), name.to_owned());
            if gone {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
    }

    fn sent_to(&self, url: &Url) -> impl Iterator<Item = (&str, &str)> {
        let (host, at) = (url.host_str().unwrap().to_owned(), url.path().to_owned());
        self.cookies
            .iter()
            .filter(move |((known, path, _), _)| {
                let below = at.strip_prefix(path.as_str());
                *known == host
                    && below.is_some_and(|rest| rest.is_empty() || path.ends_with('/') || rest.starts_with('/'))
            })
            .map(|((_, _, name), value)| (name.as_str(), value.as_str()))
    }
}

/// What `Sec-Fetch-Site` says of a navigation between two loopback addresses (W3C Fetch Metadata, section 2.3).
fn relation(from: &Url, to: &Url) -> &'static str {
    if from.origin() == to.origin() {
        "same-origin"
    } else if from.scheme() == to.scheme() && from.host_str() == to.host_str() {
        "same-site"
    } else {
        "cross-site"
    }
}
