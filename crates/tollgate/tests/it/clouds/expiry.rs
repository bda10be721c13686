//! Credentials that end, or are revoked, before anybody said they would.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::clock::{Clock, SystemClock, TestClock};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PROMPT, on_vertex};
use crate::support::cloud::anthropic;
use crate::support::gateway::TestGateway;
use crate::support::upstream::{Answer, Gate, Received, Step, Upstream, message_events};

/// Upstreams that are shown the tokens of `issuer`, and their environment.
fn cases(issuer: &Upstream, folder: &Path) -> [(Value, Vec<(&'static str, String)>); 4] {
    let host = issuer.url().strip_prefix("http://").unwrap().to_owned();
    let proof = folder.join("proof");
    std::fs::write(&proof, anthropic::ASSERTION).unwrap();
    let platform = json!({
        "provider": "anthropicGoogleCloud", "project_id": "p", "workspace_id": "w", "auth": { "api_key": null },
    });
    let foundry = json!({ "provider": "foundry", "resource": "ab", "auth": { "use_azure_ad": true, "api_key": null } });
    [
        (on_vertex("a", &json!({})), vec![("GCE_METADATA_HOST", host.clone())]),
        (platform, vec![("GCE_METADATA_HOST", host)]),
        (foundry, vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", issuer.url())]),
        // It is asked where the messages go.
        (json!({ "auth": anthropic::auth(&proof) }), Vec::new()),
    ]
}

fn granted(token: &str) -> Answer {
    Answer::json(200, &json!({ "access_token": token, "expires_in": 600, "token_type": "Bearer" }))
}

/// Serves who shows this token.
fn only(token: &'static str) -> impl Fn(&Received) -> Answer {
    move |request| {
        if request.header("authorization") != Some(format!("Bearer {token}").as_str()) {
            return Answer::error(401, "authentication_error", "the token was revoked");
        }
        Answer::stream(message_events("claude", &["Hello"], 11, 5).into_iter().map(Step::from))
    }
}

struct Scene {
    gateway: TestGateway,
    clock: Arc<TestClock>,
    /// `None`: the upstream itself.
    issuer: Option<Upstream>,
    _folder: TempDir,
}

impl Scene {
    async fn all() -> Vec<Self> {
        let mut scenes = Vec::new();
        for index in 0..4 {
            let (issuer, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
            let (mut entry, environment) = cases(&issuer, folder.path())[index].clone();
            entry["name"] = "a".into();
            let clock = Arc::new(TestClock::at(SystemClock.now()));
            let setup = TestGateway::setup().upstream(entry).clock(Arc::clone(&clock) as _);
            let setup = environment.iter().fold(setup, |setup, (name, value)| setup.environment(name, value));
            let gateway = setup.start().await;
            let issuer = Some(issuer).filter(|_| !environment.is_empty());
            scenes.push(Self { gateway, clock, issuer, _folder: folder });
        }
        scenes
    }

    fn issuer(&self) -> &Upstream {
        self.issuer.as_ref().unwrap_or(self.gateway.upstream())
    }

    /// How many tokens were asked for.
    fn fetched(&self) -> usize {
        self.issuer().requests().iter().filter(|request| request.uri.path().contains("token")).count()
    }

    async fn ask(&self) -> u16 {
        self.gateway.as_user("alice").messages(PROMPT).await.status.as_u16()
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_shown_to_the_next_request() {
    for scene in Scene::all().await {
        let upstream = scene.gateway.upstream();
        scene.issuer().answer(granted("one"));
        upstream.answer_otherwise(only("one"));
        assert_eq!((scene.ask().await, scene.ask().await), (200, 200));
        assert_eq!(scene.fetched(), 1);

        scene.clock.advance(Duration::from_secs(60));
        upstream.answer_otherwise(only("two"));
        let before = upstream.requests().len();
        // Nothing is sent twice (contract R29): this one fails, and the client tries again by itself.
        assert_eq!(scene.ask().await, 502);
        assert_eq!((upstream.requests().len() - before, scene.fetched()), (1, 1));
        scene.issuer().answer(granted("two"));
        assert_eq!((scene.ask().await, scene.ask().await), (200, 200));
        assert_eq!(scene.fetched(), 2);

        // Where every token is refused, whoever hands them out is left alone.
        let refuses = only("never");
        upstream.answer_otherwise(move |request| match request.uri.path() {
            "/v1/oauth/token" => granted("three"),
            _ => refuses(request),
        });
        scene.issuer.iter().for_each(|issuer| issuer.answer_otherwise(|_| granted("three")));
        scene.clock.advance(Duration::from_secs(60));
        for _ in 0..3 {
            assert_eq!(scene.ask().await, 502);
        }
        assert_eq!(scene.fetched(), 3);
    }
}

#[tokio::test]
async fn a_token_that_ends_while_an_answer_comes_does_not_end_the_answer() {
    for scene in Scene::all().await {
        let upstream = scene.gateway.upstream();
        let gate = Gate::closed();
        let events = message_events("claude", &["Hello"], 11, 5);
        let steps = events.iter().cloned().map(Step::from);
        let steps: Vec<Step> = steps.clone().take(2).chain([gate.step()]).chain(steps.skip(2)).collect();
        scene.issuer().answer(granted("one"));
        upstream.answer(Answer::stream(steps));
        let mut stream = scene.gateway.as_user("alice").stream(PROMPT).await.unwrap();
        let mut read = stream.next().await.unwrap().unwrap().to_vec();
        gate.reached().await;

        scene.clock.advance(Duration::from_secs(601));
        scene.issuer().answer(granted("two"));
        upstream.answer_otherwise(only("two"));
        assert_eq!(scene.ask().await, 200);
        gate.open();
        read.extend(stream.rest().await.unwrap());
        assert_eq!(String::from_utf8(read).unwrap(), events.concat());
    }
}
