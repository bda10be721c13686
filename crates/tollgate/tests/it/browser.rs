//! The sign-in in a real browser, with the keyboard alone: with and without scripts, light and dark.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::browser::{self, Walk};
use crate::support::gateway::{Device, Setup, TestGateway};
use crate::support::idp::{Account, RefreshTokens};

fn people() -> Setup {
    let alice = Account::new("alice").email("alice@example.com");
    TestGateway::setup().people(RefreshTokens::Rotated, &[alice])
}

/// Where somebody can look at the pages afterwards.
fn screenshots(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../screenshots").join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Sign-in page, provider's page, last page - and nothing that a browser or a reader would complain about.
fn went_well(walk: &Walk) {
    assert!(walk.complaints.is_empty(), "{:#?}", walk.complaints);
    let [approval, _, done] = walk.pages.as_slice() else { panic!("{walk:#?}") };
    assert_eq!(approval.heading, "Is this your device?");
    assert_eq!(done.heading, "You are signed in");
    for page in [approval, done] {
        assert_eq!((page.status, page.lang.as_deref()), (Some(200), Some("en")), "{page:#?}");
        assert!(page.title.ends_with("· Tollgate"), "{}", page.title);
    }
}

#[tokio::test]
async fn a_keyboard_is_enough_to_sign_in_and_scripts_are_not_needed() {
    let gateway = people().start().await;
    for scripts in [false, true] {
        let device = Device::begin(&gateway).await;
        let shots = screenshots("sign-in");
        let walk = browser::sign_in(device.link(), "alice", scripts, (!scripts).then_some(shots.as_path())).await;
        went_well(&walk);
        assert!(walk.pages[0].text.contains(device.user_code()), "{}", walk.pages[0].text);
        assert!(walk.pages[2].text.contains("alice@example.com"), "{}", walk.pages[2].text);
        assert_eq!(device.poll().await.0, 200);
    }
}

#[tokio::test]
async fn a_request_from_somewhere_else_is_shown_with_a_warning() {
    let config = json!({ "listen": { "trusted_proxies": ["127.0.0.1"] }, "login_notice": "Company laptops only. Ask #help-ai." });
    let gateway = people().config(config).start().await;
    let far = gateway.anyone().header("x-forwarded-for", "203.0.113.9");
    let device = Device::begin_as(far, &[("surface", "claude_code")]).await;
    let shots = screenshots("foreign-address");
    let walk = browser::sign_in(device.link(), "alice", false, Some(&shots)).await;
    went_well(&walk);
    let text = &walk.pages[0].text;
    for part in ["another address than yours", "203.0.113.9", "127.0.0.1", "Company laptops only.", "claude_code"] {
        assert!(text.contains(part), "{part} is not shown: {text}");
    }
}

#[tokio::test]
async fn the_landing_page_needs_nothing_from_anywhere_and_its_links_lead_somewhere() {
    let gateway = TestGateway::start().await;
    let walk = browser::look_around(gateway.url(), &screenshots("landing")).await;
    assert!(walk.complaints.is_empty(), "{:#?}", walk.complaints);
    let [landing, device, protocol] = walk.pages.as_slice() else { panic!("{walk:#?}") };
    assert_eq!((landing.status, landing.lang.as_deref()), (Some(200), Some("en")));
    assert_eq!(landing.heading, "This is a gateway for Claude Code");
    for part in [gateway.url(), "127.0.0.1", env!("CARGO_PKG_VERSION")] {
        assert!(landing.text.contains(part), "{part} is not shown: {}", landing.text);
    }
    assert_eq!((device.status, device.url.as_str()), (Some(200), &*format!("{}/device", gateway.url())));
    assert_eq!((protocol.status, protocol.url.as_str()), (Some(200), &*format!("{}/protocol", gateway.url())));
}
