//! What a provider must not say: each refusal is the right one, is audited once with whoever was verified, and leaves
//! nothing behind.

use jiff::SignedDuration;

use super::*;

impl House {
    /// One sign-in with a provider that `breaks`; the provider is whole again afterwards.
    async fn attempt(&self, breaks: impl FnOnce(&FakeProvider)) -> (Completion, Value) {
        let begun = self.begin().await;
        let departure = self.confirm(&begun).await;
        let (claims, answer) = {
            let script = self.provider.script.lock().unwrap();
            (script.claims.clone(), script.answer.clone())
        };
        breaks(&self.provider);
        let completion = self.complete(&departure, code()).await;
        {
            let mut script = self.provider.script.lock().unwrap();
            (script.claims, script.answer, script.refusal) = (claims, answer, None);
        }
        let event = self.only_mint_of(&self.audited("device.verify").await["flow"]).await;
        if event["result"] == "fail" {
            assert!(refused(&self.redeem(&begun).await));
            assert!(matches!(self.redeem(&begun).await, Redemption::Expired));
        }
        (completion, event)
    }

    /// The one line about how a flow ended.
    async fn only_mint_of(&self, flow: &Value) -> Value {
        self.sign_in.audit.flush().await;
        let lines = String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_flow = |event: &Value| {
            event["flow"] == *flow && event["evt"] != "device.verify" && event["evt"] != "device.authorize"
        };
        let found: Vec<Value> = events.filter(of_flow).collect();
        assert!(found.len() == 1 && found[0]["evt"] == "session.mint", "{found:?}");
        found.into_iter().next().unwrap()
    }

    async fn leaves_nothing(&self) {
        let end = self.clock.now() + SignedDuration::from_hours(1);
        assert_eq!(self.sign_in.grants.sweep(end).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_id_token_with_a_wrong_claim_is_refused_with_the_name_of_whom_it_speaks() {
    let house = House::open(|_| {}).await;
    let long = "x".repeat(256);
    for (claims, err) in [
        (json!({"nonce": "another"}), "id_token nonce does not match"),
        (json!({"nonce": null}), "id_token nonce does not match"),
        (json!({"nonce": ["n"]}), "id_token nonce does not match"),
        (json!({"aud": "another"}), "id_token aud does not hold the client id"),
        (json!({"aud": {"gateway": true}}), "id_token aud does not hold the client id"),
        (json!({"aud": [["gateway"]]}), "id_token aud does not hold the client id"),
        (json!({"aud": ["gateway", "another"]}), "id_token has several aud and no azp"),
        (json!({"azp": "another"}), "id_token azp is another client"),
        (json!({"azp": ["gateway"]}), "id_token azp is another client"),
        (json!({"iss": "https://evil.example"}), "id_token iss is not the configured issuer"),
        (json!({"iss": ["https://evil.example"]}), "id_token iss is not the configured issuer"),
        (json!({"exp": NOW - 30}), "id_token has expired"),
        (json!({"exp": null}), "id_token missing exp"),
        (json!({"exp": "2038-01-19"}), "id_token exp is not a time"),
        (json!({"iat": NOW + 31}), "id_token iat is in the future"),
        (json!({"iat": null}), "id_token missing iat"),
        (json!({"nbf": NOW + 31}), "id_token is not valid yet"),
    ] {
        let (completion, event) = house.attempt(|provider| provider.claim(claims.clone())).await;
        assert_eq!((completion, &event["err"]), (Completion::Refused(Cause::BadAnswer), &json!(err)), "{claims}");
        assert_eq!((&event["sub"], &event["email"]), (&json!("u-1"), &json!("Ann@Example.com")), "{claims}");
    }
    for (claims, err) in [
        (json!({"sub": null}), "id_token missing sub"),
        (json!({"sub": 7}), "id_token missing sub"),
        (json!({"sub": ""}), "id_token missing sub"),
        (json!({"sub": long}), "id_token sub is too long"),
    ] {
        let (completion, event) = house.attempt(|provider| provider.claim(claims.clone())).await;
        assert_eq!((completion, &event["err"]), (Completion::Refused(Cause::BadAnswer), &json!(err)), "{claims}");
    }
    house.leaves_nothing().await;
}

#[tokio::test]
async fn an_id_token_that_the_provider_did_not_sign_is_refused_and_nobody_is_named() {
    let house = House::open(|_| {}).await;
    let mallory = FakeProvider::start().await;
    let claims = json!({"iss": house.provider.url, "aud": "gateway", "sub": "u-1", "iat": NOW, "exp": NOW + 60});
    let good = house.provider.script.lock().unwrap().sign(&claims);
    let forged = mallory.script.lock().unwrap().sign(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let payload = signed.split_once('.').unwrap().1;
    for (token, err) in [
        (forged, "id_token signature is wrong"),
        (format!("eyJhbGciOiJub25lIn0.{payload}."), "id_token is signed with none"),
        (format!("eyJhbGciOiJIUzI1NiIsImtpZCI6ImtleS0xIn0.{payload}.{signature}"), "id_token is signed with HS256"),
        (format!("{signed}.{}", &signature[1..]), "id_token signature is wrong"),
        (signed.to_owned(), "id_token is malformed"),
        (".".repeat(1000), "id_token is malformed"),
        ("a.b.c.d.e".to_owned(), "id_token is malformed"),
    ] {
        let answer = json!({"id_token": token});
        let (completion, event) = house.attempt(|provider| provider.script.lock().unwrap().answer = answer).await;
        assert_eq!(completion, Completion::Refused(Cause::BadAnswer), "{token}");
        assert!(event["err"].as_str().unwrap().starts_with(err), "{token}: {event}");
        assert!(event.get("sub").is_none() && event.get("email").is_none(), "{event}");
    }
    house.leaves_nothing().await;
}

#[tokio::test]
async fn a_token_endpoint_in_trouble_is_told_as_the_providers_and_denies_the_grant() {
    let house = House::open(|_| {}).await;
    let page = json!("<!doctype html><title>Sign in</title>");
    for (status, body, err) in [
        (200, page.clone(), "the token endpoint answered with an unreadable document"),
        (200, json!(["access", "a.b.c", "refresh"]), "the token endpoint answered with an unreadable document"),
        (200, json!({}), "the token endpoint answered with an unreadable document"),
        (200, json!(""), "the token endpoint answered with an unreadable document"),
        (200, json!("x".repeat(2 * 1024 * 1024)), "the answer is larger than 1048576 bytes"),
        (302, page.clone(), "token endpoint answered 302 Found"),
        (404, page.clone(), "token endpoint answered 404 Not Found"),
        (500, page, "token endpoint answered 500 Internal Server Error"),
        (
            500,
            json!({"error": "server_error", "error_description": "a\u{1b}[31mb\n"}),
            "token endpoint: server_error (a[31mb)",
        ),
        (401, json!({"error": "invalid_client"}), "token endpoint: invalid_client"),
    ] {
        let breaks = |provider: &FakeProvider| provider.script.lock().unwrap().refusal = Some((status, body.clone()));
        let (completion, event) = house.attempt(breaks).await;
        assert_eq!((completion, &event["err"]), (Completion::Refused(Cause::ProviderUnavailable), &json!(err)));
    }
    for (body, err) in [
        (json!({"access_token": "a"}), "the provider sent no id_token"),
        (json!({"access_token": "a", "id_token": ["a.b.c"]}), "the provider sent no id_token"),
        (json!({"access_token": "a", "id_token": 7}), "the provider sent no id_token"),
    ] {
        let breaks = |provider: &FakeProvider| provider.script.lock().unwrap().refusal = Some((200, body.clone()));
        let (completion, event) = house.attempt(breaks).await;
        assert_eq!((completion, &event["err"]), (Completion::Refused(Cause::BadAnswer), &json!(err)));
    }
    let grant = json!({"error": "invalid_grant"});
    let (completion, event) =
        house.attempt(|provider| provider.script.lock().unwrap().refusal = Some((400, grant))).await;
    assert_eq!(
        (completion, &event["err"]),
        (Completion::Refused(Cause::CodeRefused), &json!("token endpoint: invalid_grant"))
    );
    house.leaves_nothing().await;
}

#[tokio::test]
async fn a_token_endpoint_that_hangs_is_given_up_and_denies_the_grant() {
    let mut house = House::open(|_| {}).await;
    Arc::get_mut(&mut house.sign_in).unwrap().provider.give_up_after(Duration::from_millis(20));
    let (completion, event) = house.attempt(|provider| provider.script.lock().unwrap().hangs = true).await;
    assert_eq!(completion, Completion::Refused(Cause::ProviderUnavailable));
    assert_eq!(event["err"], "outgoing request timed out after 20ms");
    house.leaves_nothing().await;
}

#[tokio::test]
async fn a_claim_of_an_odd_shape_costs_that_claim_and_not_the_sign_in() {
    let house = House::open(|_| {}).await;
    for (claims, groups) in [
        (json!({"groups": "eng,ops"}), &["eng,ops"][..]),
        (json!({"groups": ["eng", 7, null, "", ["ops"], {"name": "x"}]}), &["eng"]),
        (json!({"groups": {"eng": true}}), &[]),
        (json!({"groups": 7}), &[]),
    ] {
        house.provider.claim(claims.clone());
        assert_eq!(house.principal(&house.signed_in().await).groups, groups, "{claims}");
    }
    let (completion, event) = house.attempt(|provider| provider.claim(json!({"email": ["ann@example.com"]}))).await;
    assert_eq!((completion, &event["result"]), (Completion::SignedIn { email: None }, &json!("success")));
}
