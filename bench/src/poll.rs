//! Polls: the CPU time that a client's question "have my settings changed?" costs the gateway, whatever the policy's size.
//! Alone of all here it links the gateway's code: a socket would cost more than what is measured.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use ::control::audit::AuditLog;
use ::control::clock::{Clock, SystemClock};
use ::control::identity::session::Bearers;
use ::control::identity::{Lasting, Principal, SessionConfig};
use ::control::policy::{Config, Policies, PolicyConfig, Selection};
use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::Request;
use clap::Args;
use http::StatusCode;
use http::header::{AUTHORIZATION, IF_NONE_MATCH};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tollgate::http::Router;
use tollgate::http::caller::Caller;
use tollgate::http::layers::RequestFacts;
use tollgate::http::managed::{self, Desktop};
use tower::ServiceExt;
use wire::catalog::Catalog;

use crate::process::Tree;

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Polls per policy.
    #[arg(long, default_value_t = 300_000)]
    polls: u32,
    /// Folder to keep the result in.
    #[arg(long)]
    results: Option<PathBuf>,
}

const DAY: Duration = Duration::from_secs(86_400);

/// Measures a policy of one rule and one of a megabyte, each under twenty others that do not match.
pub(crate) fn measure_all(options: &Options) -> Result<()> {
    let mut lines = vec![
        "What a poll of /managed/settings costs that ends in 304: bearer checked, policy matched among 21, checksum compared, \
         audit line written. CPU time of the whole process, sockets excluded."
            .to_owned(),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for (name, rules) in [("one rule", 1), ("1 MB of rules", 28_000)] {
        let (bytes, each) = runtime.block_on(measure(rules, options.polls))?;
        lines.push(format!(
            "{name:<14} {bytes:>8} bytes served  {:>6.1} us per poll  ({} polls)",
            each.as_secs_f64() * 1e6,
            options.polls
        ));
    }
    let text = lines.join("\n");
    println!("{text}");
    if let Some(folder) = &options.results {
        fs::create_dir_all(folder)?;
        let date = jiff::Timestamp::now().strftime("%F");
        fs::write(folder.join(format!("{date}-poll.txt")), text + "\n")?;
    }
    Ok(())
}

async fn measure(rules: usize, polls: u32) -> Result<(usize, Duration)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let bearers = Bearers::new(SessionConfig {
        secrets: vec![SecretString::from("the-session-secret-of-the-benchmark-0123456789")],
        ttl: Duration::from_secs(3600),
        issuer: "https://gateway.example.com".to_owned(),
        billing_group_tag: None,
        lasting: Lasting { idle: DAY, max: DAY },
    });
    let ann = Principal {
        sub: "00u1a2b3c4".to_owned(),
        email: Some("ann@example.com".to_owned()),
        name: Some("Ann Example".to_owned()),
        groups: (0..20).map(|index| format!("group-{index}")).collect(),
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    };
    let bearer = format!("Bearer {}", bearers.issue(&ann, clock.now()).token.expose_secret());
    let policies = Arc::new(Policies::compile(config(rules), Arc::new(Catalog::new(Vec::new(), true)?)).0);
    let (etag, bytes) = match policies.select(&ann) {
        Selection::Serve(served) => (served.etag.clone(), served.body.len()),
        other => anyhow::bail!("no settings: {other:?}"),
    };
    let audit = AuditLog::to(io::sink(), Arc::clone(&clock))?;
    let desktop = Desktop {
        reach: Arc::new(|_, _| true),
        clock: Arc::clone(&clock),
        ttl: Duration::from_secs(3600),
        admin_groups: Vec::new(),
    };
    let routes = managed::routes(policies, desktop, audit.clone());
    let poll = Poll { routes, bearers, clock, bearer, etag };
    for _ in 0..polls / 10 {
        poll.once().await?;
    }
    let process = Tree { name: "bench".to_owned(), root: std::process::id() };
    let before = process.cpu()?;
    for _ in 0..polls {
        poll.once().await?;
    }
    audit.flush().await;
    Ok((bytes, (process.cpu()? - before) / polls))
}

struct Poll {
    routes: Router,
    bearers: Bearers,
    clock: Arc<dyn Clock>,
    bearer: String,
    etag: String,
}

impl Poll {
    async fn once(&self) -> Result<()> {
        let mut request = Request::builder()
            .uri("/managed/settings")
            .header(AUTHORIZATION, &self.bearer)
            .header(IF_NONE_MATCH, &self.etag)
            .body(Body::empty())?;
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = self.bearers.authenticate(authorization, self.clock.now()).context("the bearer is refused")?;
        let facts = RequestFacts {
            request_id: Arc::from("0a8ae6f5-9d52-43d6-a8a2-6d30b5a2a1f0"),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            received: self.clock.instant(),
        };
        request.extensions_mut().insert(facts);
        request.extensions_mut().insert(Caller(Arc::new(caller.principal)));
        let answer = self.routes.clone().oneshot(request).await?;
        ensure!(answer.status() == StatusCode::NOT_MODIFIED, "answered {}", answer.status());
        Ok(())
    }
}

/// Twenty policies for others, and the base.
fn config(rules: usize) -> Config {
    let document = |value: Value| value.as_object().cloned().unwrap_or_else(Map::new);
    let deny: Vec<String> = (0..rules).map(|index| format!("Read(./secrets/some-file-{index:08})")).collect();
    let others = (0..20).map(|index| PolicyConfig {
        groups: Some(vec![format!("team-{index}")]),
        settings: Some(document(json!({"model": "claude-opus-4-8"}))),
        ..PolicyConfig::default()
    });
    let base = PolicyConfig {
        settings: Some(document(json!({"permissions": {"deny": deny}, "env": {"A": "1"}}))),
        ..PolicyConfig::default()
    };
    Config { policies: Some(others.chain([base]).collect()), ..Config::default() }
}
