use super::*;
use crate::upstream::tests::upstream;

fn answer(status: u16, retry_after: Option<&'static str>) -> Answer {
    let mut response = http::Response::builder().status(status);
    if let Some(value) = retry_after {
        response = response.header(RETRY_AFTER, value);
    }
    Answer::whole(response.body(bytes::Bytes::from(status.to_string())).unwrap())
}

/// What is told when upstreams a, b, c fail with these; 0 is a refused connection.
fn told(statuses: &[(u16, Option<&'static str>)]) -> String {
    let failures = statuses.iter().zip(["a", "b", "c"]).map(|(&(status, retry_after), name)| Failed {
        upstream: upstream(name),
        failure: match status {
            0 => Failure::Unreachable("refused".to_owned()),
            _ => Failure::judge(answer(status, retry_after), &FailoverOn::default()).unwrap_err(),
        },
    });
    match verdict(failures.collect()) {
        Verdict::Relay(upstream, answer) => format!("{} of {}", answer.status().as_u16(), upstream.name()),
        Verdict::Overloaded { retry_after } => {
            format!("529 {}", retry_after.map_or("-".into(), |value| value.to_str().unwrap().to_owned()))
        }
        Verdict::Exhausted => "502".to_owned(),
    }
}

#[test]
fn the_final_answer_prefers_what_the_client_can_act_on() {
    assert_eq!(told(&[(429, None), (429, None), (529, None)]), "429 of b");
    assert_eq!(told(&[(529, Some("7")), (503, None), (404, None)]), "529 7");
    assert_eq!(told(&[(503, None), (0, None), (500, None)]), "529 -");
    assert_eq!(told(&[(404, None), (501, None), (500, None)]), "404 of a");
    assert_eq!(told(&[(501, None), (402, None), (0, None)]), "501 of a");
    assert_eq!(told(&[(500, None), (502, None), (504, None)]), "502");
    assert_eq!(told(&[(0, None)]), "502");
}

#[test]
fn a_refused_credential_never_reaches_the_client() {
    assert_eq!(told(&[(401, None), (403, None)]), "502");
    assert_eq!(told(&[(403, None), (404, None)]), "404 of b");
}

#[test]
fn the_matrix_of_statuses_is_the_contracts() {
    let over = [401, 402, 403, 404, 429, 500, 501, 502, 503, 504, 505, 529, 599];
    let not = [
        200, 201, 204, 301, 302, 304, 307, 308, 400, 405, 406, 408, 409, 410, 413, 415, 418, 421, 422, 423, 424, 425,
        426, 428, 431, 451,
    ];
    for status in over.into_iter().chain([600, 999]) {
        assert!(may_fail_over(StatusCode::from_u16(status).unwrap()), "{status}");
    }
    for status in not {
        assert!(!may_fail_over(StatusCode::from_u16(status).unwrap()), "{status}");
    }
}

fn failing(status: u16) -> Failure {
    let everything = FailoverOn::new((100..600).map(Trigger::Status).collect());
    Failure::judge(answer(status, None), &everything).unwrap_err()
}

#[test]
fn a_status_that_an_operator_lists_is_a_failure_and_relayed_when_none_is_left() {
    let on = FailoverOn::new(vec![Trigger::Default, Trigger::Status(408)]);
    let failure = Failure::judge(answer(408, None), &on).unwrap_err();
    assert!(on.includes(&failure) && on.includes(&failing(429)) && !FailoverOn::default().includes(&failure));
    assert!(Failure::judge(answer(409, None), &on).is_ok());
    let relayed = verdict(vec![Failed { upstream: upstream("a"), failure }]);
    assert!(matches!(relayed, Verdict::Relay(_, answer) if answer.status() == 408));
}

#[test]
fn a_list_without_the_default_narrows() {
    let on = FailoverOn::new(vec![Trigger::Class(Class::Connect), Trigger::Status(529)]);
    let lead_on = |failure: &Failure| on.includes(failure);
    assert!(lead_on(&Failure::Unreachable(String::new())) && lead_on(&failing(529)));
    assert!(!lead_on(&failing(503)) && !lead_on(&failing(429)) && !lead_on(&Failure::Silent(Duration::ZERO)));
}

#[test]
fn every_failure_has_its_class_and_only_some_speak_of_the_upstreams_health() {
    let mut told = String::new();
    let mut tell = |what: &str, failure: Failure| {
        told.push_str(&format!("{what} {} {}\n", failure.class().as_str(), failure.blames_upstream()));
    };
    for status in [401, 402, 403, 404, 408, 429, 500, 501, 503, 504, 529, 600] {
        tell(&status.to_string(), failing(status));
    }
    let why = String::new;
    tell("no connection", Failure::Unreachable(why()));
    tell("no credential", Failure::Uncredentialed(why()));
    tell("nothing sendable", Failure::Unsendable(why()));
    tell("no answer", Failure::Interrupted(why()));
    tell("silence", Failure::Silent(Duration::ZERO));
    tell("first frame", Failure::FirstFrame(why()));
    tell("no model", Failure::NoModel(Box::new(answer(400, None))));
    insta::assert_snapshot!(told, @r"
    401 credential true
    402 usage_limit true
    403 credential false
    404 not_found false
    408 status false
    429 rate_limit true
    500 server_error true
    501 server_error false
    503 overload true
    504 server_error true
    529 overload true
    600 server_error true
    no connection connect true
    no credential credential true
    nothing sendable unsendable false
    no answer broken true
    silence timeout true
    first frame first_frame true
    no model model false
    ");
}
