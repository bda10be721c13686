#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod crowds;
mod sessions;

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::clock::TestClock;
use crate::identity::fake_provider::{FakeProvider, NOW, loopback_egress};
use crate::identity::{Lasting, Principal};

const ASKER: Asker<'_> = Asker { request_id: "r-1", client_ip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)) };

const LASTING: Lasting = Lasting { idle: Duration::from_secs(30 * DAY), max: Duration::from_secs(90 * DAY) };
const DAY: u64 = 86_400;
const SECRET: &str = "a-secret-0123456789abcdefghijklmnop";

/// A gateway's sign-in with everything around it.
struct House {
    provider: FakeProvider,
    sign_in: Arc<SignIn>,
    clock: Arc<TestClock>,
    store: Store,
    oidc: OidcConfig,
    written: Written,
    _directory: tempfile::TempDir,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl House {
    async fn open(rules: impl FnOnce(&mut OidcConfig)) -> Self {
        let provider = FakeProvider::start().await;
        provider.claim(json!({"email": "Ann@Example.com", "groups": ["eng"]}));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sign-in.db");
        let store = Store::open(&crate::store::Config::Sqlite { path }).await.unwrap();
        let clock = Arc::new(TestClock::at(Timestamp::from_second(NOW).unwrap()));
        let written = Written::default();
        let audit = AuditLog::to(written.clone(), Arc::clone(&clock) as _).unwrap();
        let mut oidc = provider.config();
        rules(&mut oidc);
        let sign_in = replica(&[SECRET], &oidc, &store, &clock, &audit).await;
        Self { provider, sign_in, clock, store, oidc, written, _directory: directory }
    }

    /// The same gateway from now on, under other secrets.
    async fn restarted(self, secrets: &[&str]) -> Self {
        let sign_in = replica(secrets, &self.oidc, &self.store, &self.clock, &self.sign_in.audit).await;
        Self { sign_in, ..self }
    }

    /// Another replica.
    async fn beside(&self) -> Arc<SignIn> {
        replica(&[SECRET], &self.oidc, &self.store, &self.clock, &self.sign_in.audit).await
    }

    async fn begin(&self) -> Begun {
        self.sign_in.begin(Some("cli"), ASKER).await.unwrap()
    }

    async fn confirm(&self, begun: &Begun) -> Departure {
        let departure = self.sign_in.confirm(Some(&begun.user_code), ASKER).await.unwrap().unwrap();
        self.provider.claim(json!({"nonce": parameter(&departure, "nonce")}));
        departure
    }

    /// The browser of `departure` comes back.
    async fn complete(&self, departure: &Departure, answer: ProviderAnswer) -> Completion {
        let returned = self.sign_in.returned(Some(&parameter(departure, "state")), ASKER).unwrap();
        assert_eq!(returned.attempt(), departure.attempt);
        let binding = Some(departure.binding.expose_secret());
        self.sign_in.complete(returned, binding, answer, ASKER).await.unwrap()
    }

    async fn redeem(&self, begun: &Begun) -> Redemption {
        self.sign_in.redeem(begun.device_code.expose_secret()).await.unwrap()
    }

    async fn signed_in(&self) -> Tokens {
        let begun = self.begin().await;
        let departure = self.confirm(&begun).await;
        let completion = self.complete(&departure, code()).await;
        assert_eq!(completion, Completion::SignedIn { email: Some("Ann@Example.com".to_owned()) });
        match self.redeem(&begun).await {
            Redemption::Tokens(tokens) => tokens,
            other => unreachable!("{other:?}"),
        }
    }

    fn principal(&self, tokens: &Tokens) -> Principal {
        self.sign_in.bearers().verify(tokens.bearer.token.expose_secret(), self.clock.now()).unwrap()
    }

    async fn refresh(&self, tokens: &Tokens) -> Result<Tokens, RefreshError> {
        refresh_at(&self.sign_in, tokens).await
    }

    /// The last audit line of that name.
    async fn audited(&self, name: &str) -> Value {
        self.sign_in.audit.flush().await;
        let lines = String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.rev().find(|event| event["evt"] == name).unwrap()
    }
}

async fn replica(
    secrets: &[&str],
    oidc: &OidcConfig,
    store: &Store,
    clock: &Arc<TestClock>,
    audit: &AuditLog,
) -> Arc<SignIn> {
    let ours: Arc<dyn Clock> = Arc::clone(clock) as _;
    let session = SessionConfig {
        secrets: secrets.iter().map(|secret| SecretString::from(*secret)).collect(),
        ttl: Duration::from_secs(5400),
        issuer: "https://gw.example".to_owned(),
        billing_group_tag: None,
        lasting: LASTING,
    };
    let config = Config { oidc: oidc.clone(), session, named_groups: oidc.allowed_groups.clone() };
    Arc::new(SignIn::open(config, store.clone(), loopback_egress(), audit.clone(), ours).await.unwrap())
}

async fn refresh_at(sign_in: &Arc<SignIn>, tokens: &Tokens) -> Result<Tokens, RefreshError> {
    let presented = sign_in.present(tokens.refresh_token.as_ref().unwrap().expose_secret(), ASKER)?;
    sign_in.refresh(presented, ASKER).await
}

fn parameter(departure: &Departure, name: &str) -> String {
    let url = Url::parse(&departure.url).unwrap();
    let (_, value) = url.query_pairs().find(|(found, _)| found == name).unwrap();
    value.into_owned()
}

fn code() -> ProviderAnswer {
    ProviderAnswer { code: Some("the-code".to_owned()), ..ProviderAnswer::default() }
}

fn refused(redemption: &Redemption) -> bool {
    matches!(redemption, Redemption::Denied)
}

#[tokio::test]
async fn a_person_signs_a_device_in() {
    let house = House::open(|_| {}).await;
    let begun = house.begin().await;
    assert!(matches!(house.redeem(&begun).await, Redemption::Pending));
    let asked = house.sign_in.look_up(&begun.user_code).await.unwrap().unwrap();
    assert_eq!((asked.surface.as_deref(), asked.client_ip.as_str()), (Some("cli"), "203.0.113.7"));
    let departure = house.confirm(&begun).await;
    house.complete(&departure, code()).await;
    let Redemption::Tokens(tokens) = house.redeem(&begun).await else { unreachable!() };
    assert_eq!((tokens.bearer.expires_in, tokens.email.as_deref()), (5400, Some("Ann@Example.com")));
    let principal = house.principal(&tokens);
    assert_eq!((principal.sub.as_str(), principal.groups.as_slice()), ("u-1", &["eng".to_owned()][..]));
    assert_eq!(principal.session.unwrap().len(), 36);
    assert!(matches!(house.redeem(&begun).await, Redemption::Expired));
}

#[tokio::test]
async fn one_flow_id_ties_the_audit_events_of_a_sign_in_together() {
    let house = House::open(|_| {}).await;
    let tokens = house.signed_in().await;
    let (authorize, verify, mint) = (
        house.audited("device.authorize").await,
        house.audited("device.verify").await,
        house.audited("session.mint").await,
    );
    assert_eq!(
        (&authorize["result"], &verify["result"], &mint["result"]),
        (&json!("success"), &json!("redirect"), &json!("success"))
    );
    assert_eq!((&authorize["flow"], &verify["flow"]), (&mint["flow"], &mint["flow"]));
    assert_eq!((&authorize["surface"], &mint["surface"]), (&json!("cli"), &json!("cli")));
    assert_eq!(
        (&mint["sub"], &mint["email"], &mint["ttl_hours"]),
        (&json!("u-1"), &json!("Ann@Example.com"), &json!(1.5))
    );
    assert_eq!(mint["session"], json!(house.principal(&tokens).session));
    assert_eq!((&mint["client_ip"], &mint["request_id"]), (&json!("203.0.113.7"), &json!("r-1")));
}

#[tokio::test]
async fn two_sign_ins_in_one_browser_both_finish() {
    let house = House::open(|_| {}).await;
    let (one, other) = (house.begin().await, house.begin().await);
    let departure_one = house.confirm(&one).await;
    let departure_other = house.confirm(&other).await;
    assert_ne!(departure_one.attempt, departure_other.attempt);
    house.complete(&departure_other, code()).await;
    house.provider.claim(json!({"nonce": parameter(&departure_one, "nonce")}));
    house.complete(&departure_one, code()).await;
    for begun in [one, other] {
        assert!(matches!(house.redeem(&begun).await, Redemption::Tokens(_)));
    }
}

#[tokio::test]
async fn another_browser_cannot_finish_and_the_right_one_still_can() {
    let house = House::open(|_| {}).await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    for binding in [None, Some(""), Some("wrong")] {
        let returned = house.sign_in.returned(Some(&parameter(&departure, "state")), ASKER).unwrap();
        let completion = house.sign_in.complete(returned, binding, code(), ASKER).await.unwrap();
        assert_eq!(completion, Completion::BrowserMismatch);
    }
    assert_eq!(house.audited("device.callback").await["result"], "browser_mismatch");
    assert!(matches!(house.complete(&departure, code()).await, Completion::SignedIn { .. }));
}

#[tokio::test]
async fn a_bad_state_touches_no_grant() {
    let house = House::open(|_| {}).await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    for state in [None, Some(""), Some("junk"), Some(&parameter(&departure, "state")[1..])] {
        assert_eq!(house.sign_in.returned(state, ASKER).err(), Some(BadState));
    }
    assert_eq!(house.audited("sign_in.failed").await["reason"], "state_invalid");
    assert!(matches!(house.redeem(&begun).await, Redemption::Pending));
    house.clock.advance(Duration::from_secs(600));
    assert_eq!(house.sign_in.returned(Some(&parameter(&departure, "state")), ASKER).err(), Some(BadState));
    assert_eq!(house.audited("sign_in.failed").await["reason"], "state_expired");
}

#[tokio::test]
async fn an_error_of_the_provider_denies_the_grant_at_once() {
    let house = House::open(|_| {}).await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    let answer = ProviderAnswer {
        error: Some("access_denied".to_owned()),
        error_description: Some("no".to_owned()),
        ..ProviderAnswer::default()
    };
    let expected = Completion::ProviderError { error: "access_denied".to_owned(), description: Some("no".to_owned()) };
    assert_eq!(house.complete(&departure, answer).await, expected);
    assert!(refused(&house.redeem(&begun).await));
    let event = house.audited("sign_in.failed").await;
    assert_eq!((&event["reason"], &event["err"]), (&json!("idp_error"), &json!("access_denied")));
    assert_eq!(event["flow"], house.audited("device.verify").await["flow"]);
}

#[tokio::test]
async fn a_failed_rule_denies_the_grant_and_is_audited_with_who_it_was() {
    let house = House::open(|oidc| oidc.allowed_groups = vec!["admins".to_owned()]).await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    assert_eq!(house.complete(&departure, code()).await, Completion::Refused(Cause::Group));
    assert!(refused(&house.redeem(&begun).await));
    let event = house.audited("session.mint").await;
    assert_eq!((&event["result"], &event["err"]), (&json!("fail"), &json!("user is not a member of an allowed group")));
    assert_eq!(event["reason"], "group");
    assert_eq!((&event["sub"], &event["email"]), (&json!("u-1"), &json!("Ann@Example.com")));
    assert_eq!((&event["surface"], &event["flow"]), (&json!("cli"), &house.audited("device.verify").await["flow"]));
}

#[tokio::test]
async fn a_wrong_nonce_an_answer_of_another_issuer_and_one_without_code_are_refused() {
    let house = House::open(|_| {}).await;
    for (answer, nonce) in [
        (code(), json!("replayed")),
        (ProviderAnswer { iss: Some("https://evil.example".to_owned()), ..code() }, json!(null)),
        (ProviderAnswer::default(), json!(null)),
    ] {
        let begun = house.begin().await;
        let departure = house.confirm(&begun).await;
        if !nonce.is_null() {
            house.provider.claim(json!({"nonce": nonce}));
        }
        assert_eq!(house.complete(&departure, answer).await, Completion::Refused(Cause::BadAnswer));
        assert!(refused(&house.redeem(&begun).await));
    }
}

#[tokio::test]
async fn a_provider_that_is_down_at_the_callback_denies_the_grant_and_says_so() {
    let house = House::open(|_| {}).await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    house.provider.script.lock().unwrap().refusal = Some((503, json!({})));
    assert_eq!(house.complete(&departure, code()).await, Completion::Refused(Cause::ProviderUnavailable));
    assert!(refused(&house.redeem(&begun).await));
}

#[tokio::test]
async fn the_person_can_say_no() {
    let house = House::open(|_| {}).await;
    let begun = house.begin().await;
    let departure = house.confirm(&begun).await;
    assert!(house.sign_in.deny(Some(&begun.user_code), ASKER).await.unwrap());
    let event = house.audited("device.deny").await;
    assert_eq!((&event["requested_from"], &event["result"]), (&json!("203.0.113.7"), &json!("denied")));
    assert_eq!(event["requested_at"], "2027-01-15T08:00:00Z");
    assert!(!house.sign_in.deny(Some(&begun.user_code), ASKER).await.unwrap());
    assert_eq!(house.audited("device.verify").await["result"], "unknown_code");
    assert_eq!(house.complete(&departure, code()).await, Completion::NotPending);
    assert!(refused(&house.redeem(&begun).await));
}

#[tokio::test]
async fn an_unknown_code_leads_nowhere() {
    let house = House::open(|_| {}).await;
    let unknown = UserCode::read("BCDF-GHJK").unwrap();
    assert!(house.sign_in.confirm(Some(&unknown), ASKER).await.unwrap().is_none());
    assert!(house.sign_in.confirm(None, ASKER).await.unwrap().is_none());
    assert!(house.sign_in.look_up(&unknown).await.unwrap().is_none());
}

#[tokio::test]
async fn a_refresh_rotates_the_token_and_never_shows_the_providers() {
    let house = House::open(|_| {}).await;
    let first = house.signed_in().await;
    house.provider.claim(json!({"nonce": null, "groups": ["ops"]}));
    house.provider.script.lock().unwrap().answer = json!({"refresh_token": "idp-refresh-2"});
    let second = house.refresh(&first).await.unwrap();
    house.provider.script.lock().unwrap().answer = json!({});
    let third = house.refresh(&second).await.unwrap();
    let principal = house.principal(&third);
    assert_eq!((principal.groups, principal.session), (vec!["ops".to_owned()], house.principal(&first).session));
    let sent: Vec<_> = house
        .provider
        .heard
        .lock()
        .unwrap()
        .iter()
        .filter_map(|(_, form)| form.get("refresh_token").cloned())
        .collect();
    assert_eq!(sent, ["idp-refresh-1", "idp-refresh-2"]);
    let shown: Vec<_> =
        [&first, &second, &third].map(|tokens| tokens.refresh_token.as_ref().unwrap().expose_secret()).to_vec();
    assert!(shown[0] != shown[1] && shown[1] != shown[2]);
    for token in shown {
        let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("idp-refresh"), "sealed, and not only encoded");
    }
    let event = house.audited("session.refresh").await;
    assert_eq!((&event["result"], &event["sub"]), (&json!("success"), &json!("u-1")));
}

#[tokio::test]
async fn garbage_is_refused_without_asking_the_provider() {
    let house = House::open(|_| {}).await;
    let tokens = house.signed_in().await;
    let asked = house.provider.asked_for("/token");
    for token in ["", "junk", "idp-refresh-1", tokens.bearer.token.expose_secret()] {
        assert_eq!(house.sign_in.present(token, ASKER).err(), Some(RefreshError::Ended));
    }
    assert_eq!(house.provider.asked_for("/token"), asked);
    let event = house.audited("session.refresh").await;
    assert_eq!((&event["step"], &event["answer"]), (&json!("token"), &json!("invalid_grant")));
}

#[tokio::test]
async fn a_refresh_tells_an_ended_session_from_a_provider_in_trouble() {
    let house = House::open(|oidc| oidc.allowed_groups = vec!["eng".to_owned()]).await;
    let tokens = house.signed_in().await;
    house.provider.script.lock().unwrap().refusal = Some((500, json!({})));
    assert_eq!(house.refresh(&tokens).await.err(), Some(RefreshError::Unavailable));
    let event = house.audited("session.refresh").await;
    assert_eq!((&event["step"], &event["answer"]), (&json!("token_endpoint"), &json!("temporarily_unavailable")));
    house.provider.script.lock().unwrap().refusal = Some((400, json!({"error": "invalid_grant"})));
    assert_eq!(house.refresh(&tokens).await.err(), Some(RefreshError::Ended));
    assert!(house.sign_in.bearers().verify(tokens.bearer.token.expose_secret(), house.clock.now()).is_ok());
    house.provider.script.lock().unwrap().refusal = None;
    house.provider.claim(json!({"groups": ["ops"]}));
    assert_eq!(house.refresh(&tokens).await.err(), Some(RefreshError::Ended));
    let event = house.audited("session.refresh").await;
    assert_eq!((&event["step"], &event["err"]), (&json!("claims"), &json!("user is not a member of an allowed group")));
}

#[tokio::test]
async fn a_provider_that_gives_no_refresh_token_makes_a_session_that_cannot_be_refreshed() {
    let house = House::open(|_| {}).await;
    house.provider.script.lock().unwrap().answer = json!({});
    assert!(house.signed_in().await.refresh_token.is_none());
}
