//! What the person in front of the browser meets, and what other sites cannot make a browser do.

use serde_json::json;

use super::{error, people};
use crate::support::gateway::{Device, TestGateway};
use crate::support::http::Visitor;

#[tokio::test]
async fn a_denied_device_hears_of_it_once_and_the_code_is_dead() {
    let gateway = people().start().await;
    let device = Device::begin(&gateway).await;
    let mut browser = Visitor::new();
    let approval = browser.open(device.link()).await;
    let denied = browser.submit(&approval, approval.form().press("Deny")).await;
    assert_eq!(denied.reply.status, 200);
    assert_eq!(device.poll().await, (400, error("access_denied")));
    assert_eq!(device.poll().await, (400, error("expired_token")));
    assert_eq!(browser.open(device.link()).await.reply.status, 404);
    let event = gateway.audit().next("device.deny").await;
    assert_eq!((&event["result"], &event["requested_from"]), (&json!("denied"), &json!("127.0.0.1")));
    assert_eq!(event["flow"], gateway.audit().next("device.authorize").await["flow"]);
}

#[tokio::test]
async fn a_person_who_turns_back_at_the_provider_denies_the_device() {
    let gateway = people().start().await;
    let device = Device::begin(&gateway).await;
    let mut browser = Visitor::new();
    let approval = browser.open(device.link()).await;
    let login = browser.submit(&approval, approval.form()).await;
    let back = browser.submit(&login, login.form().press("Cancel")).await;
    assert_eq!(back.reply.status, 403);
    assert!(back.reply.text().contains("access_denied: The person said no"), "{}", back.reply.text());
    assert_eq!(device.poll().await, (400, error("access_denied")));
    let event = gateway.audit().next("sign_in.failed").await;
    assert_eq!((&event["reason"], &event["err"]), (&json!("idp_error"), &json!("access_denied")));
    assert_eq!(event["flow"], gateway.audit().next("device.authorize").await["flow"]);
}

#[tokio::test]
async fn another_browser_cannot_finish_and_does_not_spoil_it() {
    let gateway = people().start().await;
    let device = Device::begin(&gateway).await;
    let (mut right, mut wrong) = (Visitor::new(), Visitor::new());
    let approval = right.open(device.link()).await;
    let login = right.submit(&approval, approval.form()).await;
    let stolen = wrong.open(&format!("{}/oauth/callback?code=c&state=junk", gateway.url())).await;
    assert_eq!(stolen.reply.status, 400);
    let event = gateway.audit().next("sign_in.failed").await;
    assert_eq!(event["reason"], "state_invalid");

    let done = right.submit(&login, login.form().fill("login", "alice")).await;
    assert_eq!(done.reply.status, 200, "{}", done.reply.text());
    // The same answer again, now in the other browser.
    let replayed = wrong.open(done.url.as_str()).await;
    assert_eq!(replayed.reply.status, 403);
    assert!(replayed.reply.text().contains("different browser"));
    let event = gateway.audit().next("device.callback").await;
    assert_eq!(event["result"], "browser_mismatch");
    assert_eq!(device.poll().await.0, 200);
}

#[tokio::test]
async fn only_our_own_page_can_approve_or_deny() {
    let gateway = people().start().await;
    let device = Device::begin(&gateway).await;
    let own = gateway.url().to_owned();
    let posts: [(&[(&str, &str)], bool); 8] = [
        (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("sec-fetch-site", "same-site"), ("origin", &own)], false),
        (&[("sec-fetch-site", "cross-site"), ("origin", &own)], false),
        (&[("origin", &own)], true),
        (&[("origin", "https://evil.example")], false),
        (&[("origin", "null")], false),
        (&[("referer", &own)], false),
    ];
    for (headers, passes) in posts {
        let caller = headers.iter().fold(gateway.anyone(), |caller, (name, value)| caller.header(name, value));
        let reply = caller.form("/device", &[("user_code", device.user_code())]).await;
        assert_eq!(reply.status, if passes { 302 } else { 403 }, "{headers:?}");
        let event = gateway.audit().next("device.verify").await;
        assert_eq!(event["result"], if passes { "redirect" } else { "csrf_rejected" }, "{headers:?}");
        if !passes {
            assert_eq!(caller.form("/device/deny", &[("user_code", device.user_code())]).await.status, 403);
            gateway.audit().next("device.verify").await;
        }
    }
    assert_eq!(device.poll().await, (400, error("authorization_pending")));
}

#[tokio::test]
async fn too_many_attempts_from_one_address_are_stopped_and_others_are_not() {
    let limits = json!({
        "rate_limits": {
            "device_authorization": { "max": 3, "window_seconds": 600 },
            "device_verify": { "max": 2, "window_seconds": 600 },
        },
        "listen": { "trusted_proxies": ["127.0.0.1"] },
    });
    let gateway = people().config(limits).start().await;
    let at =
        |address: &str| gateway.anyone().header("x-forwarded-for", address).header("sec-fetch-site", "same-origin");
    for _ in 0..3 {
        Device::begin_as(at("203.0.113.1"), &[]).await;
    }
    let refused = at("203.0.113.1").form("/oauth/device_authorization", &[]).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (429, &json!("slow_down")));
    let event = gateway.audit().take("device.authorize", 4).await.remove(3);
    assert_eq!((&event["result"], &event["client_ip"]), (&json!("rate_limited"), &json!("203.0.113.1")));
    let device = Device::begin_as(at("203.0.113.2"), &[]).await;

    let guess = async |address: &str, path: &str| at(address).form(path, &[("user_code", "BBBB-BBBB")]).await;
    assert_eq!(guess("203.0.113.3", "/device").await.status, 404);
    assert_eq!(guess("203.0.113.3", "/device/deny").await.status, 404);
    let refused = guess("203.0.113.3", "/device").await;
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(refused.status == 429 && (590..=600).contains(&seconds), "{seconds}");
    assert_eq!(at("203.0.113.3").form("/device", &[("user_code", device.user_code())]).await.status, 429);
    assert_eq!(at("203.0.113.4").form("/device", &[("user_code", device.user_code())]).await.status, 302);
}

#[tokio::test]
async fn the_page_shows_who_asked_from_where_and_warns_when_that_is_somewhere_else() {
    let config = json!({ "listen": { "trusted_proxies": ["127.0.0.1"] }, "login_notice": "Company laptops only." });
    let gateway = people().config(config).start().await;
    let far = gateway.anyone().header("x-forwarded-for", "203.0.113.9");
    let device = Device::begin_as(far.clone(), &[("surface", "<b>claude</b>")]).await;
    assert_eq!(device.begun["login_notice"], "Company laptops only.");
    let path = format!("/device?user_code={}", device.user_code());
    let page = far.get(&path).await;
    let text = page.text();
    assert!(
        text.contains(device.user_code()) && text.contains("203.0.113.9") && text.contains("Company laptops only.")
    );
    assert!(!text.contains("<b>claude") && text.contains("claude"), "{text}");
    assert!(!text.contains("another address"), "{text}");
    let near = gateway.anyone().get(&path).await;
    assert!(near.text().contains("another address") && near.text().contains("127.0.0.1"), "{}", near.text());
    let policy = near.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains(gateway.idp().issuer()), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script-src"), "{policy}");
    assert_eq!(near.header("set-cookie"), None, "looking leaves nothing behind");
}

#[tokio::test]
async fn a_typed_code_may_be_typed_as_people_type() {
    let gateway = people().start().await;
    let device = Device::begin(&gateway).await;
    let typed = device.user_code().to_lowercase().replace('-', " ");
    let mut browser = Visitor::new();
    let enter = browser.open(&format!("{}/device", gateway.url())).await;
    let approval = browser.submit(&enter, enter.form().fill("user_code", &typed)).await;
    assert_eq!(approval.reply.status, 200, "{}", approval.reply.text());
    let login = browser.submit(&approval, approval.form()).await;
    let done = browser.submit(&login, login.form().fill("login", "alice")).await;
    assert_eq!(done.reply.status, 200);
    assert_eq!(device.poll().await.0, 200);
    let unknown = browser.submit(&enter, enter.form().fill("user_code", "BBBBBBBB")).await;
    assert_eq!(unknown.reply.status, 404);
}

#[tokio::test]
async fn a_request_for_tokens_that_is_none_is_told_so() {
    let gateway = TestGateway::start().await;
    let told = async |fields: &[(&str, &str)]| {
        let reply = gateway.anyone().form("/oauth/token", fields).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        (reply.status.as_u16(), reply.json())
    };
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    assert_eq!(told(&[]).await, (400, error("invalid_request")));
    assert_eq!(told(&[("grant_type", device)]).await, (400, error("invalid_request")));
    assert_eq!(told(&[("grant_type", "refresh_token")]).await, (400, error("invalid_request")));
    assert_eq!(told(&[("grant_type", "password"), ("password", "p")]).await, (400, error("unsupported_grant_type")));
    assert_eq!(told(&[("grant_type", device), ("device_code", "unknown")]).await, (400, error("expired_token")));
    let json = gateway.anyone().header("content-type", "application/json");
    assert_eq!(json.post("/oauth/token", r#"{"grant_type":"refresh_token"}"#).await.json(), error("invalid_request"));
}
