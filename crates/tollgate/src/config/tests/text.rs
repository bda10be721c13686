//! What holds for the text of any file, for the environment, and for loading.

use std::path::Path;
use std::time::Duration;

use control::store;
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::{AWFUL, EVERY_KEY, SECRET, environment, file, parse, read, refused, valid};
use crate::config::{Environment, LogLevel, load, tree};

#[test]
fn an_unknown_key_is_refused_with_what_was_meant() {
    refused("listen: {host: localhost, prot: 1}", &["listen.prot: unknown key; did you mean port?"]);
    refused("acess_control: {}", &["acess_control: unknown key; did you mean access_control?"]);
    refused(
        "timeouts: {x: 1}",
        &["timeouts.x: unknown key; the keys here are upstream_connect_ms, upstream_ttfb_ms, upstream_idle_ms"],
    );
}

#[test]
fn a_key_written_twice_is_refused_with_both_lines() {
    let problems = read(&file("listen:\n  host: localhost\n  host: localhost")).unwrap_err();
    let line = problems[0].line.unwrap();
    let expected = format!("listen.host (line {line}): written twice, first on line {}; keep one", line - 1);
    assert_eq!((problems.len(), problems[0].to_string()), (1, expected));
}

#[test]
fn a_reference_that_cannot_be_filled_in_is_told_once_and_in_its_place() {
    refused("session: {jwt_secret: '${NOPE}'}", &["session.jwt_secret: the environment variable NOPE is not set"]);
    refused("session: {jwt_secret: '${NOPE:-x}'}", &["session.jwt_secret: ${NOPE...} knows no default"]);
    refused(
        "session: {jwt_secret: '${file:/nonexistent}'}",
        &["session.jwt_secret: the file /nonexistent cannot be read"],
    );
    refused("session: {jwt_secret: 'x${file:/etc/hostname}'}", &["session.jwt_secret: ${file:...} must be the whole"]);
}

#[test]
fn what_is_no_mapping_of_sections_is_refused_in_one_sentence() {
    for (text, part) in [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "the file must be a mapping"),
        ("just text", "the file must be a mapping"),
        ("a: [", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "a second YAML document"),
        ("? [a]\n: b\n", "a list or a mapping cannot be a key"),
        ("a: *b\n", "not valid YAML"),
        ("a: &a [*a]\n", "this alias stands inside the value that it repeats"),
        ("a:\n\t- x", "not valid YAML"),
    ] {
        let problems = read(text).unwrap_err();
        assert!(problems.len() == 1 && problems[0].message.starts_with(part), "{text:?}: {problems:?}");
    }
    assert_eq!(
        parse(b"a: \xff", Path::new(""), &environment()).unwrap_err()[0].message,
        "the file is not UTF-8 text; save it as UTF-8"
    );
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let laughs = (1..=9).fold("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let below = format!("*l{}", level - 1);
        format!("{text}l{level}: &l{level} [{}]\n", [below.as_str(); 10].join(", "))
    });
    assert!(read(&laughs).unwrap_err()[0].message.starts_with("the file holds too much"));
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), ["*a"; 1000].join(", "));
    assert!(read(&long).unwrap_err()[0].message.starts_with("the file holds too much"));
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(read(&deep).unwrap_err()[0].message.starts_with("nested more than 64 levels"));
    let ladder = (1..=20).fold("l0: &l0 [[[[[[x]]]]]]\n".to_owned(), |text, level| {
        format!("{text}l{level}: &l{level} [[[[[[*l{}]]]]]]\n", level - 1)
    });
    assert!(read(&ladder).unwrap_err()[0].message.starts_with("nested more than 64 levels"));
}

#[test]
fn tags_and_merges_that_mean_nothing_are_refused() {
    refused("listen: {host: !secret localhost}", &["listen.host: the tag !secret means nothing here"]);
    refused("listen: {host: localhost, <<: 5}", &["listen.<<: only a mapping can be merged"]);
    assert_eq!(valid("listen: {host: !!str localhost, port: !!int 7}").0.listen.port, 7);
    refused(
        "oidc: {issuer: 'https://i.example.com', client_id: 5, client_secret: b}",
        &["oidc.client_id: must be text"],
    );
    let merged = "listen:\n  <<: [{port: 1, host: 10.0.0.1}, {port: 2}]\n  host: localhost";
    assert_eq!((valid(merged).0.listen.port, valid(merged).0.listen.host), (1, "localhost".to_owned()));
}

#[test]
fn the_environment_is_read_with_forgiveness() {
    let text = file("");
    let with = |pairs: &[(&str, &str)]| {
        parse(text.as_bytes(), Path::new(""), &Environment::from_pairs(pairs.iter().copied())).unwrap()
    };
    let (config, warnings) = with(&[
        ("CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS", "100"),
        ("CLAUDE_GATEWAY_LOG_LEVEL", "WARN"),
        ("https_proxy", "http://proxy:3128"),
        ("NO_PROXY", "localhost"),
    ]);
    assert_eq!((config.drain_timeout, config.log_level), (Duration::from_millis(100), LogLevel::Warn));
    let proxy = config.connect.proxy.unwrap();
    assert_eq!(proxy.https.unwrap().expose_secret(), "http://proxy:3128");
    assert_eq!((proxy.http.is_none(), proxy.no_proxy.as_deref()), (true, Some("localhost")));
    assert_eq!(warnings, []);
    let (config, warnings) = with(&[("CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS", "soon"), ("CLAUDE_GATEWAY_LOG_LEVEL", "loud")]);
    assert_eq!((config.drain_timeout, config.log_level), (Duration::from_secs(25), LogLevel::Info));
    assert_eq!(warnings.len(), 2);
}

#[test]
fn the_proxy_is_the_boundary_only_where_nothing_can_go_around_it_and_a_warning_says_what_stopped_it() {
    let read = |variables: &[(&str, &str)]| {
        let boundary = ("CLAUDE_GATEWAY_PROXY_IS_EGRESS_BOUNDARY", "1");
        let environment = Environment::from_pairs(variables.iter().copied().chain([boundary]));
        let (config, warnings) = parse(file("").as_bytes(), Path::new("/etc/tollgate"), &environment).unwrap();
        let is_boundary = config.connect.proxy.is_some_and(|proxy| proxy.is_egress_boundary);
        (is_boundary, warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>())
    };
    let proxy = ("HTTPS_PROXY", "http://proxy:3128");
    assert_eq!(read(&[proxy, ("NO_PROXY", " ")]), (true, Vec::new()));
    for (variables, reason) in [
        (vec![], "neither HTTPS_PROXY nor HTTP_PROXY is set"),
        (vec![proxy, ("no_proxy", "internal")], "NO_PROXY is set"),
        (vec![proxy, ("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1")], "CLAUDE_GATEWAY_ALLOW_LOOPBACK is 1"),
    ] {
        let (is_boundary, warnings) = read(&variables);
        assert!(!is_boundary && warnings.len() == 1 && warnings[0].contains(reason), "{warnings:?}");
    }
}

#[test]
fn a_file_is_loaded_with_the_digest_of_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    std::fs::write(&path, "a: 1\n").unwrap();
    let problems = load(&path, &environment()).unwrap_err();
    assert!(
        problems.to_string().starts_with(&format!("tollgate: 5 problems in {}:\n  listen: missing", path.display()))
    );
    std::fs::write(&path, file("")).unwrap();
    let loaded = load(&path, &environment()).unwrap();
    assert_eq!(loaded.digest.len(), 64);
    assert_eq!(loaded.digest, load(&path, &environment()).unwrap().digest);
    assert!(
        matches!(&loaded.config.store, store::Config::Sqlite { path } if path == &folder.path().join("tollgate.db"))
    );
    std::fs::write(&path, vec![b'#'; tree::MAX_BYTES + 1]).unwrap();
    assert!(load(&path, &environment()).unwrap_err().to_string().contains("larger than 1 MiB"));
    assert!(load(&folder.path().join("none.yaml"), &environment()).unwrap_err().to_string().contains("cannot be read"));
    assert!(load(folder.path(), &environment()).is_err());
}

#[test]
fn the_example_works_once_its_variables_are_set() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/gateway.example.yaml");
    let variables = [
        ("OIDC_CLIENT_SECRET", "from the identity provider"),
        ("GATEWAY_JWT_SECRET", SECRET),
        ("ANTHROPIC_API_KEY", "sk-ant-test"),
    ];
    let loaded = load(&example, &Environment::from_pairs(variables)).unwrap();
    assert_eq!((loaded.config.upstreams.len(), loaded.warnings), (1, Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_change_to_a_good_file_makes_the_reader_panic(
        changes in prop::collection::vec((0_usize..6000, 0_usize..20, "[\\PC\n]{0,8}|[-:{}\\[\\]&*!|>'\"%@`#,?\n ~$]{1,6}"), 1..6),
        awful: bool,
    ) {
        let mut text: Vec<char> = if awful { AWFUL } else { EVERY_KEY }.chars().collect();
        for (at, dropped, inserted) in changes {
            let at = at % text.len().max(1);
            let end = (at + dropped).min(text.len());
            text.splice(at.min(end)..end, inserted.chars());
        }
        if let Err(problems) = read(&text.into_iter().collect::<String>()) {
            prop_assert!(!problems.is_empty());
        }
    }
}
