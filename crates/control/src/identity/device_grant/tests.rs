#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use secrecy::ExposeSecret;

use super::*;
use crate::store::Config;

const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

async fn grants() -> (tempfile::TempDir, DeviceGrants) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&Config::Sqlite { path: directory.path().join("grants.db") }).await.unwrap();
    (directory, DeviceGrants::new(store, seals("a-secret-0123456789abcdefghijklmnop")))
}

fn seals(secret: &str) -> Arc<Seals> {
    Arc::new(Seals::new(&[SecretString::from(secret)]).unwrap())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

async fn begun(grants: &DeviceGrants) -> (String, Pending) {
    let begun = grants.begin(Some("cli"), IP, at(0)).await.unwrap();
    let pending = grants.find_by_user_code(&begun.user_code, at(0)).await.unwrap().unwrap();
    (begun.device_code.expose_secret().to_owned(), pending)
}

/// What a device gets that polls and collects.
async fn poll(grants: &DeviceGrants, device_code: &str, now: Timestamp) -> &'static str {
    match grants.poll(device_code, now).await.unwrap() {
        Poll::Pending => "pending",
        Poll::SlowDown => "slow_down",
        Poll::Gone => "gone",
        Poll::Decided => match collect(grants, device_code, now).await.unwrap() {
            Collected::Approved(content) if content == "content" => "approved",
            Collected::Approved(_) => "approved with something else",
            Collected::Denied => "denied",
            Collected::Gone => "gone",
        },
    }
}

async fn collect(grants: &DeviceGrants, device_code: &str, now: Timestamp) -> Result<Collected<String>, GrantError> {
    let mut tx = grants.store.begin().await.unwrap();
    let collected = grants.collect(&mut tx, device_code, now).await;
    tx.commit().await.unwrap();
    collected
}

#[tokio::test]
async fn a_grant_remembers_who_asked_and_when() {
    let (_directory, grants) = grants().await;
    let (_, pending) = begun(&grants).await;
    assert_eq!((pending.surface.as_deref(), pending.client_ip.as_str()), (Some("cli"), "203.0.113.7"));
    assert_eq!(pending.created_at, at(0));
    assert_eq!(grants.find(pending.id(), at(1)).await.unwrap(), Some(pending));
}

#[tokio::test]
async fn a_pending_grant_polled_within_five_seconds_is_told_to_slow_down_and_waits_no_longer_for_it() {
    let (_directory, grants) = grants().await;
    let (code, _) = begun(&grants).await;
    assert_eq!(poll(&grants, &code, at(0)).await, "pending");
    assert_eq!(poll(&grants, &code, at(4)).await, "slow_down");
    assert_eq!(poll(&grants, &code, at(5)).await, "pending");
}

#[tokio::test]
async fn an_approved_grant_is_collected_once_even_by_racing_polls() {
    let (_directory, grants) = grants().await;
    let (code, pending) = begun(&grants).await;
    assert_eq!(poll(&grants, &code, at(0)).await, "pending");
    assert_eq!(grants.approve(pending, &"content", at(1)).await.unwrap(), Ok(()));
    let polls = futures_util::future::join_all((0..10).map(|_| poll(&grants, &code, at(1)))).await;
    assert_eq!(polls.iter().filter(|poll| **poll == "approved").count(), 1, "{polls:?}");
    assert_eq!(polls.iter().filter(|poll| **poll == "gone").count(), 9, "{polls:?}");
}

#[tokio::test]
async fn a_denied_grant_is_told_once_and_its_user_code_stops_working() {
    let (_directory, grants) = grants().await;
    let begun = grants.begin(None, IP, at(0)).await.unwrap();
    let pending = grants.find_by_user_code(&begun.user_code, at(0)).await.unwrap().unwrap();
    assert_eq!(grants.deny(pending, at(0)).await.unwrap(), Ok(()));
    assert_eq!(grants.find_by_user_code(&begun.user_code, at(0)).await.unwrap(), None);
    let code = begun.device_code.expose_secret();
    assert_eq!(poll(&grants, code, at(0)).await, "denied");
    assert_eq!(poll(&grants, code, at(0)).await, "gone");
}

#[tokio::test]
async fn the_first_decision_stands() {
    let (_directory, grants) = grants().await;
    let (code, pending) = begun(&grants).await;
    assert_eq!(grants.approve(pending.clone(), &"content", at(1)).await.unwrap(), Ok(()));
    assert_eq!(grants.approve(pending.clone(), &"another", at(1)).await.unwrap(), Err(NotPending));
    assert_eq!(grants.deny(pending.clone(), at(1)).await.unwrap(), Err(NotPending));
    assert_eq!(grants.find(pending.id(), at(1)).await.unwrap(), None);
    assert_eq!(poll(&grants, &code, at(1)).await, "approved");
}

#[tokio::test]
async fn an_expired_grant_can_be_neither_found_decided_nor_collected_and_is_swept() {
    let (_directory, grants) = grants().await;
    let (code, pending) = begun(&grants).await;
    let (approved_code, approved) = begun(&grants).await;
    assert_eq!(grants.approve(approved, &"content", at(599)).await.unwrap(), Ok(()));
    assert_eq!(grants.sweep(at(599)).await.unwrap(), 0);
    assert_eq!(grants.find(pending.id(), at(600)).await.unwrap(), None);
    assert_eq!(grants.approve(pending.clone(), &"content", at(600)).await.unwrap(), Err(NotPending));
    assert_eq!(grants.deny(pending, at(600)).await.unwrap(), Err(NotPending));
    assert_eq!(poll(&grants, &code, at(600)).await, "gone");
    assert_eq!(poll(&grants, &approved_code, at(600)).await, "gone");
    assert_eq!(grants.sweep(at(600)).await.unwrap(), 2);
}

#[tokio::test]
async fn an_unknown_device_code_is_gone() {
    let (_directory, grants) = grants().await;
    for code in ["", "x", "' OR 1=1 --"] {
        assert_eq!(poll(&grants, code, at(0)).await, "gone", "{code}");
    }
}

#[tokio::test]
async fn neither_the_device_code_nor_the_content_stands_in_the_table() {
    let (directory, grants) = grants().await;
    let (code, pending) = begun(&grants).await;
    assert_eq!(grants.approve(pending, &"an IdP refresh token", at(1)).await.unwrap(), Ok(()));
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("203.0.113.7"), "the table was read");
    assert!(!text.contains(&code) && !text.contains("an IdP refresh token"));
}

#[tokio::test]
async fn a_grant_is_collected_only_if_the_transaction_stands() {
    let (_directory, grants) = grants().await;
    let (code, pending) = begun(&grants).await;
    assert_eq!(grants.approve(pending, &"content", at(1)).await.unwrap(), Ok(()));
    let mut tx = grants.store.begin().await.unwrap();
    let collected = grants.collect::<String>(&mut tx, &code, at(1)).await.unwrap();
    assert!(matches!(collected, Collected::Approved(_)));
    drop(tx);
    assert_eq!(poll(&grants, &code, at(1)).await, "approved");
}

#[tokio::test]
async fn a_grant_under_a_dropped_secret_is_an_error_and_not_an_approval() {
    let (_directory, grants) = grants().await;
    let (code, pending) = begun(&grants).await;
    assert_eq!(grants.approve(pending, &"content", at(1)).await.unwrap(), Ok(()));
    let rotated = DeviceGrants { seals: seals("b-secret-0123456789abcdefghijklmnop"), ..grants };
    assert!(matches!(collect(&rotated, &code, at(1)).await, Err(GrantError::Unreadable(_))));
}

#[test]
fn a_user_code_is_read_however_it_is_typed() {
    let code = UserCode::read("FTQR-JGFV").unwrap();
    assert_eq!(code.to_string(), "FTQR-JGFV");
    for text in ["ftqrjgfv", " FTQR JGFV ", "f-t-q-r-j-g-f-v"] {
        assert_eq!(UserCode::read(text), Some(code.clone()), "{text}");
    }
    for text in ["", "FTQR-JGF", "FTQR-JGFVV", "FTQR-JGFA", "FTQR-JGF1", "FTQR_JGFV", "\u{ff26}TQR-JGFV"] {
        assert_eq!(UserCode::read(text), None, "{text}");
    }
}
