//! What becomes of a session after its sign-in.

use super::*;
use crate::identity::BearerError;
use crate::identity::admin_key::{Admin, WriteAccess};
use crate::identity::session::ending::By;
use crate::identity::session::list::{Filter, From};

const SECOND: Duration = Duration::from_secs(1);

fn admin() -> WriteAccess {
    let boss = Principal {
        sub: "boss".to_owned(),
        email: None,
        name: None,
        groups: vec!["admins".to_owned()],
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    };
    Admin::person(&boss, &["admins".to_owned()]).unwrap().write_access().unwrap()
}

fn sealed(tokens: &Tokens) -> &str {
    tokens.refresh_token.as_ref().unwrap().expose_secret()
}

impl House {
    /// Signed in, with a provider that is asked to refresh from now on.
    async fn refreshing() -> (Self, Tokens) {
        let house = Self::open(|_| {}).await;
        let tokens = house.signed_in().await;
        house.provider.claim(json!({"nonce": null}));
        house.provider.script.lock().unwrap().answer = json!({"refresh_token": "idp-refresh-2"});
        (house, tokens)
    }

    fn verified(&self, tokens: &Tokens) -> Result<Principal, BearerError> {
        self.verified_at(&self.sign_in, tokens)
    }

    fn verified_at(&self, sign_in: &SignIn, tokens: &Tokens) -> Result<Principal, BearerError> {
        sign_in.bearers().verify(tokens.bearer.token.expose_secret(), self.clock.now())
    }

    async fn audit_lines(&self, name: &str) -> usize {
        self.sign_in.audit.flush().await;
        let lines = String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap();
        lines.lines().filter(|line| line.contains(&format!("\"evt\":\"{name}\""))).count()
    }

    async fn listed(&self) -> Vec<Value> {
        let page = self.sign_in.sessions().page(&From::Start, &Filter::default(), 100).await.unwrap().unwrap();
        page.sessions.iter().map(|session| session.to_json().clone()).collect()
    }

    async fn rows(&self) -> i64 {
        let mut rows = 0;
        for table in ["device_grants", "session", "session_successor", "not_before", "logout_token"] {
            let count = self.store.fetch_optional(&format!("SELECT COUNT(*) FROM {table}"), &[]).await.unwrap();
            rows += count.unwrap().int(0).unwrap();
        }
        rows
    }
}

#[tokio::test]
async fn terminals_that_refresh_at_once_get_one_successor_and_the_provider_is_asked_once() {
    let (house, first) = House::refreshing().await;
    let asked = house.provider.asked_for("/token");
    let other = house.beside().await;
    let here = futures_util::future::join_all((0..3).map(|_| house.refresh(&first)));
    let there = futures_util::future::join_all((0..3).map(|_| refresh_at(&other, &first)));
    let (here, there) = tokio::join!(here, there);
    let all: Vec<Tokens> = here.into_iter().chain(there).map(Result::unwrap).collect();
    assert!(all.iter().all(|tokens| sealed(tokens) == sealed(&all[0])));
    assert_eq!(house.provider.asked_for("/token"), asked + 1);
    house.clock.advance(59 * SECOND);
    assert_eq!(sealed(&house.refresh(&first).await.unwrap()), sealed(&all[0]), "59 s later");
    assert_eq!(sealed(&refresh_at(&house.beside().await, &first).await.unwrap()), sealed(&all[0]), "by its row");
    assert_eq!(house.provider.asked_for("/token"), asked + 1);
    assert_eq!(house.audit_lines("session.refresh").await, 8);
}

#[tokio::test]
async fn a_generation_used_again_after_a_minute_ends_the_session() {
    let (house, first) = House::refreshing().await;
    let second = house.refresh(&first).await.unwrap();
    house.clock.advance(60 * SECOND);
    assert_eq!(house.refresh(&first).await.err(), Some(RefreshError::Ended));
    let reuse = house.audited("session.reuse").await;
    assert_eq!((&reuse["sub"], &reuse["generation"]), (&json!("u-1"), &json!(0)));
    assert_eq!(house.audited("session.end").await["reason"], "reuse");
    assert_eq!(house.refresh(&second).await.err(), Some(RefreshError::Ended), "the thief's and the victim's alike");
    assert_eq!(house.verified(&second), Err(BearerError::Revoked));
    assert_eq!(house.audit_lines("session.end").await, 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cost_the_providers_next_token() {
    let (house, first) = House::refreshing().await;
    let presented = house.sign_in.present(sealed(&first), ASKER).unwrap();
    {
        let mut refresh = Box::pin(house.sign_in.refresh(presented, ASKER));
        assert!(futures_util::poll!(&mut refresh).is_pending());
    }
    house.sign_in.tasks.close();
    house.sign_in.tasks.wait().await;
    assert_eq!(house.audited("session.refresh").await["result"], "success");
    let asked = house.provider.asked_for("/token");
    let second = house.refresh(&first).await.unwrap();
    assert_eq!(house.provider.asked_for("/token"), asked, "the client that comes back gets what came of it");
    house.refresh(&second).await.unwrap();
    let sent =
        house.provider.heard.lock().unwrap().iter().rev().find_map(|(_, form)| form.get("refresh_token").cloned());
    assert_eq!(sent.as_deref(), Some("idp-refresh-2"));
}

#[tokio::test]
async fn without_its_database_a_refresh_works_from_what_is_sealed() {
    let (house, first) = House::refreshing().await;
    house.store.execute("ALTER TABLE session RENAME TO gone", &[]).await.unwrap();
    let second = house.refresh(&first).await.unwrap();
    assert_eq!(sealed(&house.refresh(&first).await.unwrap()), sealed(&second));
    house.store.execute("ALTER TABLE gone RENAME TO session", &[]).await.unwrap();
    house.sign_in.sessions().catch_up().await.unwrap();
    house.clock.advance(60 * SECOND);
    assert_eq!(house.refresh(&first).await.err(), Some(RefreshError::Ended), "what the database missed is caught up");
    assert_eq!(house.audit_lines("session.reuse").await, 1);
}

#[tokio::test]
async fn a_refresh_that_finds_another_person_ends_the_session() {
    let (house, first) = House::refreshing().await;
    house.provider.claim(json!({"sub": "u-2"}));
    assert_eq!(house.refresh(&first).await.err(), Some(RefreshError::Ended));
    assert_eq!(house.verified(&first), Err(BearerError::Revoked));
    let event = house.audited("session.end").await;
    assert_eq!((&event["sub"], &event["reason"]), (&json!("u-1"), &json!("other_person")));
}

#[tokio::test]
async fn a_provider_in_trouble_leaves_the_turn_to_the_next_attempt() {
    let (house, first) = House::refreshing().await;
    house.provider.script.lock().unwrap().refusal = Some((503, json!({})));
    assert_eq!(house.refresh(&first).await.err(), Some(RefreshError::Unavailable));
    house.provider.script.lock().unwrap().refusal = None;
    assert!(refresh_at(&house.beside().await, &first).await.is_ok());
}

#[tokio::test]
async fn what_one_replica_ends_the_others_refuse_once_they_have_read_it() {
    let (house, tokens) = House::refreshing().await;
    let other = house.beside().await;
    let id = house.principal(&tokens).session.unwrap();
    let by = By { request_id: Some("r-9"), client_ip: None, actor: Some("oidc:boss") };
    assert!(house.sign_in.sessions().end_one(&admin(), &id, by).await.unwrap());
    assert_eq!(house.verified(&tokens), Err(BearerError::Revoked), "at once where it was ended");
    assert!(house.verified_at(&other, &tokens).is_ok());
    other.sessions().catch_up().await.unwrap();
    assert_eq!(house.verified_at(&other, &tokens), Err(BearerError::Revoked));
    assert_eq!(refresh_at(&other, &tokens).await.err(), Some(RefreshError::Ended));
    assert_eq!(house.verified_at(&*house.beside().await, &tokens), Err(BearerError::Revoked), "and after a start");
    let event = house.audited("session.end").await;
    assert_eq!((&event["reason"], &event["actor"]), (&json!("admin"), &json!("oidc:boss")));
    assert_eq!(event["request_id"], "r-9");
    assert!(house.sign_in.sessions().end_one(&admin(), &id, by).await.unwrap(), "ended is what was asked for");
    assert!(!house.sign_in.sessions().end_one(&admin(), "unknown", by).await.unwrap());
    assert_eq!(house.audit_lines("session.end").await, 1);
}

#[tokio::test]
async fn revoking_a_person_or_everyone_covers_bearers_without_a_session_too() {
    let (house, ann) = House::refreshing().await;
    let bearers = Arc::clone(house.sign_in.bearers());
    let old = |sub: &str| {
        let principal = Principal { sub: sub.to_owned(), session: None, ..house.principal(&ann) };
        bearers.issue(&principal, house.clock.now()).token
    };
    let (old_ann, old_bob) = (old("u-1"), old("bob"));
    let verify = |token: &SecretString| bearers.verify(token.expose_secret(), house.clock.now());
    house.clock.advance(SECOND);
    assert_eq!(house.sign_in.sessions().revoke(&admin(), Some("u-1"), By::default()).await.unwrap(), 1);
    assert_eq!(verify(&old_ann), Err(BearerError::Revoked));
    assert!(verify(&old_bob).is_ok());
    assert_eq!(house.refresh(&ann).await.err(), Some(RefreshError::Ended));
    house.clock.advance(SECOND);
    let again = house.signed_in().await;
    assert!(house.verified(&again).is_ok(), "a new sign-in is no old one");
    house.clock.advance(SECOND);
    assert_eq!(house.sign_in.sessions().revoke(&admin(), None, By::default()).await.unwrap(), 1);
    assert_eq!(verify(&old_bob), Err(BearerError::Revoked));
    assert_eq!(house.verified(&again), Err(BearerError::Revoked));
    let changes = house.store.fetch("SELECT action, target FROM admin_audit ORDER BY id", &[]).await.unwrap();
    let changes: Vec<_> = changes.iter().map(|row| (row.text(0).unwrap(), row.text(1).unwrap())).collect();
    assert_eq!(changes, [("session.revoke", "u-1"), ("session.revoke", "*")]);
}

#[tokio::test]
async fn who_was_revoked_after_the_approval_collects_nothing() {
    let house = House::open(|_| {}).await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    house.complete(&departure, code()).await;
    house.sign_in.sessions().revoke(&admin(), Some("u-1"), By::default()).await.unwrap();
    assert!(refused(&house.redeem(&begun).await));
    assert!(house.listed().await.is_empty());
}

#[tokio::test]
async fn a_client_signs_out_with_either_of_its_tokens_and_foreign_ones_end_nothing() {
    let house = House::open(|_| {}).await;
    let (one, other) = (house.signed_in().await, house.signed_in().await);
    for token in ["", "junk", "idp-refresh-1"] {
        house.sign_in.revoke(token, ASKER).await.unwrap();
    }
    assert_eq!(house.audit_lines("session.end").await, 0);
    house.sign_in.revoke(sealed(&one), ASKER).await.unwrap();
    assert_eq!(house.verified(&one), Err(BearerError::Revoked));
    assert!(house.verified(&other).is_ok());
    house.sign_in.revoke(other.bearer.token.expose_secret(), ASKER).await.unwrap();
    assert_eq!(house.verified(&other), Err(BearerError::Revoked));
    let event = house.audited("session.end").await;
    assert_eq!((&event["reason"], &event["client_ip"]), (&json!("signed_out"), &json!("203.0.113.7")));
}

#[tokio::test]
async fn the_provider_signs_out_one_of_its_sessions_or_a_person_once_per_token() {
    let house = House::open(|_| {}).await;
    let mut sessions = Vec::new();
    for sid in ["s-1", "s-2", "s-3"] {
        house.provider.claim(json!({"sid": sid}));
        sessions.push(house.signed_in().await);
    }
    let logout = |changes: Value| {
        let events = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
        let mut claims = json!({"iss": house.provider.url, "aud": "gateway", "iat": NOW, "events": events});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        house.provider.script.lock().unwrap().sign(&claims)
    };
    let ended = || sessions.iter().map(|tokens| house.verified(tokens).is_err()).collect::<Vec<_>>();
    let one = logout(json!({"jti": "1", "sid": "s-2"}));
    assert_eq!(house.sign_in.backchannel_logout(&one, ASKER).await.unwrap(), Logout::Done);
    assert_eq!(ended(), [false, true, false]);
    let replayed = house.sign_in.backchannel_logout(&one, ASKER).await.unwrap();
    assert_eq!(replayed, Logout::Refused("logout_token was sent before".to_owned()));
    let foreign = logout(json!({"jti": "2", "sid": "s-1", "sub": "u-2"}));
    assert_eq!(house.sign_in.backchannel_logout(&foreign, ASKER).await.unwrap(), Logout::Done);
    assert_eq!(ended(), [false, true, false], "the session of another person");
    let bearers = house.sign_in.bearers();
    let without_session = Principal { session: None, ..house.principal(&sessions[0]) };
    let without_session = bearers.issue(&without_session, house.clock.now()).token;
    let is_good = || bearers.verify(without_session.expose_secret(), house.clock.now()).is_ok();
    assert!(is_good());
    let all = logout(json!({"jti": "3", "sub": "u-1"}));
    assert_eq!(house.sign_in.backchannel_logout(&all, ASKER).await.unwrap(), Logout::Done);
    assert_eq!(ended(), [true, true, true]);
    assert!(!is_good());
    assert_eq!(house.audited("session.end").await["reason"], "idp_logout");
    assert!(matches!(house.sign_in.backchannel_logout("junk", ASKER).await.unwrap(), Logout::Refused(_)));
}

#[tokio::test]
async fn a_session_in_use_ends_when_it_is_old() {
    let (house, mut tokens) = House::refreshing().await;
    house.provider.claim(json!({"exp": NOW + 1_000_000_000}));
    for _ in 0..3 {
        house.clock.advance(Duration::from_secs(30 * DAY) - SECOND);
        tokens = house.refresh(&tokens).await.unwrap();
        house.sign_in.sweep().await.unwrap();
    }
    assert_eq!(house.audit_lines("session.end").await, 0);
    house.clock.advance(3 * SECOND);
    assert_eq!(house.refresh(&tokens).await.err(), Some(RefreshError::Ended), "before any sweep");
    house.sign_in.sweep().await.unwrap();
    assert_eq!(house.audited("session.end").await["reason"], "max_age");
    assert_eq!(house.verified(&tokens), Err(BearerError::Revoked));
}

#[tokio::test]
async fn a_session_that_nobody_refreshes_ends() {
    let (house, tokens) = House::refreshing().await;
    house.provider.claim(json!({"exp": NOW + 1_000_000_000}));
    house.clock.advance(Duration::from_secs(30 * DAY));
    assert_eq!(house.refresh(&tokens).await.err(), Some(RefreshError::Ended));
    house.sign_in.sweep().await.unwrap();
    assert_eq!(house.audited("session.end").await["reason"], "idle");
    assert_eq!(house.listed().await[0]["end_reason"], "idle");
}

#[tokio::test]
async fn many_sign_ins_leave_no_rows_after_expiry_and_retention() {
    let house = House::open(|_| {}).await;
    for number in 0..60 {
        house.provider.claim(json!({"nonce": null, "sub": format!("u-{}", number % 7)}));
        let begun = house.begin().await;
        if number % 4 == 0 {
            continue;
        }
        let departure = house.confirm(&begun).await;
        house.complete(&departure, code()).await;
        if number % 4 == 1 {
            continue;
        }
        let Redemption::Tokens(tokens) = house.redeem(&begun).await else { unreachable!() };
        house.provider.claim(json!({"nonce": null}));
        if number % 4 == 2 {
            house.refresh(&tokens).await.unwrap();
        }
    }
    house.sign_in.sessions().revoke(&admin(), Some("u-3"), By::default()).await.unwrap();
    assert_eq!(house.listed().await.len(), 30);
    house.sign_in.sweep().await.unwrap();
    assert!(house.rows().await > 60);
    house.clock.advance(Duration::from_secs(30 * DAY));
    house.sign_in.sweep().await.unwrap();
    let ended = house.listed().await;
    assert!(ended.len() == 30 && ended.iter().all(|session| session["ended_at"].is_string()));
    house.clock.advance(Duration::from_secs(31 * DAY));
    house.sign_in.sweep().await.unwrap();
    assert_eq!(house.rows().await, 0);
}

#[tokio::test]
async fn a_rotated_secret_is_good_for_bearers_refresh_tokens_and_states_until_it_is_dropped() {
    const NEXT: &str = "b-secret-0123456789abcdefghijklmnop";
    let (house, old) = House::refreshing().await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    let house = house.restarted(&[NEXT, SECRET]).await;
    assert!(house.verified(&old).is_ok());
    assert!(matches!(house.complete(&departure, code()).await, Completion::SignedIn { .. }));
    house.provider.claim(json!({"nonce": null}));
    let new = house.refresh(&old).await.unwrap();
    let house = house.restarted(&[NEXT]).await;
    assert!(house.verified(&new).is_ok());
    let newer = house.refresh(&new).await.unwrap();
    assert_eq!(house.principal(&newer).session, house.principal(&new).session);
    assert_eq!(house.verified(&old), Err(BearerError::UnknownKey));
    assert_eq!(house.refresh(&old).await.err(), Some(RefreshError::Ended));
    assert_eq!(house.sign_in.returned(Some(&parameter(&departure, "state")), ASKER).err(), Some(BadState));
}

#[tokio::test]
async fn what_one_client_was_given_to_refresh_with_is_never_sent_as_another() {
    let (mut house, tokens) = House::refreshing().await;
    house.oidc.client_id = "another".to_owned();
    let asked = house.provider.asked_for("/token");
    let house = house.restarted(&[SECRET]).await;
    assert_eq!(house.refresh(&tokens).await.err(), Some(RefreshError::Ended));
    assert_eq!(house.provider.asked_for("/token"), asked);
}

#[tokio::test]
async fn sessions_are_listed_in_order_of_creation() {
    let house = House::open(|_| {}).await;
    for sub in ["a", "b", "a"] {
        house.provider.claim(json!({"nonce": null, "sub": sub}));
        house.signed_in().await;
    }
    let sessions = house.sign_in.sessions();
    let ids: Vec<String> = house.listed().await.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    sessions.end_one(&admin(), &ids[2], By::default()).await.unwrap();
    let page = async |from: From, filter: Filter, limit| {
        let page = sessions.page(&from, &filter, limit).await.unwrap()?;
        Some((page.sessions.into_iter().map(|session| session.id).collect::<Vec<_>>(), page.has_more))
    };
    let any = Filter::default;
    assert_eq!(page(From::Start, any(), 2).await, Some((ids[..2].to_vec(), true)));
    assert_eq!(page(From::After(ids[1].clone()), any(), 2).await, Some((ids[2..].to_vec(), false)));
    assert_eq!(page(From::Before(ids[2].clone()), any(), 1).await, Some((ids[1..2].to_vec(), true)));
    assert_eq!(page(From::After("unknown".to_owned()), any(), 1).await, None);
    let of = |sub: &str, active| Filter { sub: Some(sub.to_owned()), active };
    assert_eq!(page(From::Start, of("a", None), 9).await.unwrap().0, [ids[0].clone(), ids[2].clone()]);
    assert_eq!(page(From::Start, of("a", Some(true)), 9).await.unwrap().0, [ids[0].clone()]);
    assert_eq!(page(From::Start, of("a", Some(false)), 9).await.unwrap().0, [ids[2].clone()]);
    let shown = &house.listed().await[2];
    let expected = json!({
        "type": "session", "id": ids[2], "user_id": "a", "email_address": "Ann@Example.com",
        "issuer": house.provider.url, "surface": "cli", "client_ip": "203.0.113.7",
        "created_at": "2027-01-15T08:00:00.000Z", "last_refreshed_at": "2027-01-15T08:00:00.000Z",
        "ended_at": "2027-01-15T08:00:00.000Z", "end_reason": "admin"
    });
    assert_eq!(*shown, expected);
}
