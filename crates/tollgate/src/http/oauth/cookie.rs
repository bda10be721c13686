//! The cookie that binds a sign-in to the browser that confirmed its code: one per attempt, so that two sign-ins in one
//! browser both finish.

use control::identity::GRANT_LIFE;
use http::{HeaderMap, HeaderValue, header};

/// With TLS the name's prefix makes browsers insist on `Secure`, `Path=/` and no `Domain` (RFC 6265bis, section 4.1.3).
fn name(attempt: &str, https: bool) -> String {
    let prefix = if https { "__Host-" } else { "" };
    format!("{prefix}gw_dev_{attempt}")
}

/// `Set-Cookie` of a departure.
pub(super) fn set(attempt: &str, binding: &str, https: bool) -> Option<HeaderValue> {
    write(attempt, binding, GRANT_LIFE.as_secs(), https)
}

/// `Set-Cookie` that takes it away.
pub(super) fn clear(attempt: &str, https: bool) -> Option<HeaderValue> {
    write(attempt, "", 0, https)
}

fn write(attempt: &str, value: &str, max_age: u64, https: bool) -> Option<HeaderValue> {
    let name = name(attempt, https);
    let secure = if https { "; Secure" } else { "" };
    // Lax, because the provider sends the browser back by a cross-site navigation.
    let text = format!("{name}={value}; Max-Age={max_age}; HttpOnly; SameSite=Lax; Path=/{secure}");
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// What the browser presents for an attempt.
pub(super) fn find<'a>(headers: &'a HeaderMap, attempt: &str, https: bool) -> Option<&'a str> {
    let wanted = name(attempt, https);
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_written_as_the_contract_says_and_found_again() {
        assert_eq!(set("ab", "v", false).unwrap(), "gw_dev_ab=v; Max-Age=600; HttpOnly; SameSite=Lax; Path=/");
        assert_eq!(
            set("ab", "v", true).unwrap(),
            "__Host-gw_dev_ab=v; Max-Age=600; HttpOnly; SameSite=Lax; Path=/; Secure"
        );
        assert_eq!(clear("ab", false).unwrap(), "gw_dev_ab=; Max-Age=0; HttpOnly; SameSite=Lax; Path=/");
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "x=1; gw_dev_ab=one; gw_dev_cd=two".parse().unwrap());
        headers.append(header::COOKIE, "__Host-gw_dev_ef=three".parse().unwrap());
        assert_eq!(find(&headers, "cd", false), Some("two"));
        assert_eq!(find(&headers, "ef", true), Some("three"));
        assert_eq!(find(&headers, "ef", false), None);
        assert_eq!(find(&headers, "zz", false), None);
    }
}
