//! The Claude API with a token that is exchanged for the workload's own.

use serde_json::json;

use super::PROMPT;
use crate::support::cloud::anthropic::{self, ASSERTION, TOKEN};
use crate::support::gateway::TestGateway;
use crate::support::upstream::Answer;

#[tokio::test]
async fn the_workloads_token_is_exchanged_once_and_again_as_it_stands_when_the_first_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "not yet").unwrap();
    let upstream = json!({ "name": "a", "path": "/prefix", "auth": anthropic::auth(&file) });
    let gateway = TestGateway::setup().upstream(upstream).start().await;
    gateway.upstream().answer_otherwise(|request| match request.uri.path() {
        "/prefix/v1/oauth/token" => anthropic::exchange(request),
        _ => Answer::message("claude", "Hello there", 11, 5),
    });
    // The provider has not written it yet: the exchange is refused, and the client is not told by whom.
    let reply = gateway.as_user("alice").messages(PROMPT).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["type"]), (502, &json!("api_error")));
    std::fs::write(&file, ASSERTION).unwrap();
    for _ in 0..2 {
        let reply = gateway.as_user("alice").header("anthropic-beta", "one,two").messages(PROMPT).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let requests = gateway.upstream().requests();
    let paths: Vec<_> = requests.iter().map(|request| request.uri.path()).collect();
    let (token, messages) = ("/prefix/v1/oauth/token", "/prefix/v1/messages");
    assert_eq!(paths, [token, token, messages, messages]);
    assert_eq!(requests[3].header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    assert_eq!(requests[3].header("anthropic-beta"), Some("one,two,oauth-2025-04-20"));
    assert_eq!(requests[3].body, PROMPT);
}
