//! The tour: the demo walks through itself, from outside, and says whether every promise was kept.

mod bill;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::clock::{Clock, SystemClock};
use futures_util::future;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{StatusCode, request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use self::bill::{Nano, dollars};
use super::people::{CONTRACTOR, ENGINEER, FINANCE, Person};
use super::staging::Staging;
use super::terminal::Terminal;
use super::visitor::{Answer, Browser, Visitor};

const LARGE: &str = "claude-opus-4-8";
const MIDDLE: &str = "claude-sonnet-4-6";
const SMALL: &str = "claude-haiku-4-5";
/// How many requests are sent at once against the cap.
const CROWD: usize = 20;
/// Numbers that each of them asks for: at the small model's price a little over a cent, a quarter of the cap.
const NUMBERS: u64 = 2500;
/// How long a settlement may take to be seen.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// A tour through a running demo.
pub(super) struct Tour<'a> {
    terminal: &'a mut Terminal,
    staging: &'a Staging,
    visitor: Visitor,
    clock: SystemClock,
}

/// Somebody with a bearer.
struct SignedIn {
    person: &'static Person,
    bearer: String,
}

/// What became of the crowd.
#[derive(Default)]
struct Outcome {
    let_through: usize,
    /// Told that the cap is reached.
    blocked: usize,
    /// Told to come back, because of others in flight.
    sent_back: usize,
    spent: Nano,
    dearest: Nano,
    message: String,
}

impl<'a> Tour<'a> {
    pub(super) fn new(terminal: &'a mut Terminal, staging: &'a Staging) -> anyhow::Result<Self> {
        Ok(Self { terminal, staging, visitor: Visitor::new(staging.origin())?, clock: SystemClock })
    }

    /// Walks to the end, or to the first promise that is broken: then the status is not 0.
    pub(super) async fn walk(mut self) -> anyhow::Result<ExitCode> {
        match self.steps().await {
            Ok(()) => {
                self.terminal.heading("Everything went as promised.")?;
                self.terminal
                    .say("Run `tollgate demo` without --tour to try it yourself, with Claude Code or curl.")?;
                Ok(ExitCode::SUCCESS)
            }
            // Nobody to tell.
            Err(error) if error.is::<io::Error>() => Err(error),
            Err(error) => {
                self.terminal.broken(&format!("Not as promised: {error:#}"))?;
                Ok(ExitCode::FAILURE)
            }
        }
    }

    async fn steps(&mut self) -> anyhow::Result<()> {
        self.terminal.heading("1  An engineer signs in")?;
        let ada = self.sign_in(&ENGINEER, true).await?;
        self.settings(&ada).await?;
        self.terminal.heading("2  Her prompt is answered, word by word")?;
        self.streamed(&ada).await?;
        self.terminal.heading("3  A contractor asks for a model that is not for him")?;
        let cole = self.sign_in(&CONTRACTOR, false).await?;
        self.denied(&cole).await?;
        self.terminal.heading(&format!("4  A cap holds under {CROWD} requests at once"))?;
        self.capped(&cole).await?;
        self.terminal.heading("5  A finance admin looks at the spend")?;
        let fran = self.sign_in(&FINANCE, false).await?;
        self.spend_table(&fran).await
    }

    /// The device flow (RFC 8628): a client without a browser, and a person with one.
    async fn sign_in(&mut self, person: &'static Person, in_full: bool) -> anyhow::Result<SignedIn> {
        let begin = self.visitor.post("/oauth/device_authorization");
        let begun = self.visitor.send(begin, "").await?;
        ensure!(begun.status == StatusCode::OK, "the sign-in does not begin: {}", begun.text());
        let grant = begun.json()?;
        let link = text(&grant, "verification_uri_complete")?;
        let mut browser = Browser::new(&self.visitor);
        let approval = browser.open(link).await?;
        ensure!(approval.status == StatusCode::OK, "no page behind {link}: {}", approval.status);
        let people = browser.submit(&approval, None).await?;
        ensure!(people.html.contains(person.name), "the identity provider does not know {}", person.name);
        let done = browser.submit(&people, Some(("login", person.login))).await?;
        ensure!(done.status == StatusCode::OK, "the sign-in of {} ended with {}", person.name, done.status);
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code={}",
            text(&grant, "device_code")?
        );
        let redeem = self.visitor.post("/oauth/token").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let tokens = self.visitor.send(redeem, form).await?;
        ensure!(tokens.status == StatusCode::OK, "no bearer: {}", tokens.text());
        let tokens = tokens.json()?;
        let bearer = text(&tokens, "access_token")?.to_owned();
        let claims = claims(&bearer)?;
        ensure!(claims["email"] == person.email, "the bearer is {}'s", claims["email"]);
        ensure!(claims["groups"] == json!([person.group]), "the bearer names the groups {}", claims["groups"]);

        if in_full {
            let code = text(&grant, "user_code")?;
            self.terminal.say("The client asks for a code; the person opens the link in a browser and confirms it:")?;
            self.terminal.exchange("POST /oauth/device_authorization", 200, &format!("code {code}"))?;
            let notes = ["the code, and what asked for it", "on to the identity provider", "who is signing in?"];
            let notes = notes.into_iter().chain([person.name, "signed in; back to the terminal"]);
            let way = [&approval.way, &people.way, &done.way].into_iter().flatten();
            for ((request, status), note) in way.zip(notes) {
                self.terminal.exchange(request, *status, note)?;
            }
            let life = format!("a bearer for {} s", tokens["expires_in"]);
            self.terminal.exchange("POST /oauth/token", 200, &life)?;
            let sealed = "The identity provider's own tokens never leave the gateway: the client holds a short-lived bearer \
                          and an opaque refresh token.";
            let refresh_token = text(&tokens, "refresh_token")?;
            ensure!(!self.staging.provider.has_given(refresh_token), "the client holds the provider's refresh token");
            self.terminal.kept(sealed)?;
        } else {
            self.terminal.say(&format!("{} signs in the same way, as a member of {}.", person.name, person.group))?;
        }
        Ok(SignedIn { person, bearer })
    }

    async fn settings(&mut self, who: &SignedIn) -> anyhow::Result<()> {
        let answer = self.visitor.send(as_user(self.visitor.get("/managed/settings"), who), "").await?;
        ensure!(answer.status == StatusCode::OK, "no settings: {}", answer.text());
        let settings = answer.json()?;
        let models = settings["settings"]["availableModels"].clone();
        self.terminal.exchange("GET /managed/settings", 200, "her settings, by her policy")?;
        ensure!(models == json!([LARGE, MIDDLE, SMALL]), "her models are {models}");
        self.terminal.kept(&format!("Her models: {LARGE}, {MIDDLE} and {SMALL}."))?;
        Ok(())
    }

    async fn streamed(&mut self, who: &SignedIn) -> anyhow::Result<()> {
        let question = "What happens to a prompt on its way?";
        self.terminal.say(&format!("{} asks {MIDDLE}: \"{question}\"", who.person.name))?;
        let began = self.clock.instant();
        let request = as_user(self.visitor.post("/v1/messages"), who);
        let response = self.visitor.open(request, prompt(MIDDLE, question, 400, true)).await?;
        ensure!(response.status() == StatusCode::OK, "the prompt is refused: {}", response.status());
        self.terminal.blank()?;
        let mut body = response.into_body();
        let (mut reader, mut seen) = (wire::sse::Reader::new(), Stream::default());
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.context("the stream broke off")?.into_data() else { continue };
            let mut words = String::new();
            reader.feed(&bytes, |event| seen.hear(event, &mut words));
            if !words.is_empty() {
                seen.came_at(self.clock.instant());
                self.terminal.stream(&words)?;
            }
        }
        self.terminal.end_stream()?;
        self.terminal.blank()?;
        ensure!(seen.ended, "the stream has no message_stop");
        let (Some(first), Some(last)) = (seen.first, seen.last) else { anyhow::bail!("the stream has no text") };
        let lasted = last.saturating_duration_since(first);
        ensure!(seen.pieces > 10 && lasted > Duration::from_millis(100), "the words came all at once");
        let cost = bill::of(MIDDLE, &seen.usage)?;
        self.terminal.kept(&format!(
            "Streamed: {} pieces, the first after {} ms, the last after {} ms. Nothing was held back.",
            seen.pieces,
            first.saturating_duration_since(began).as_millis(),
            last.saturating_duration_since(began).as_millis()
        ))?;
        let spent = self.settled(who.person, cost).await?;
        self.terminal.kept(&format!(
            "Charged: {} tokens in and {} out are {} at list price, and the ledger says {}.",
            seen.usage["input_tokens"],
            seen.usage["output_tokens"],
            dollars(cost),
            dollars(spent)
        ))?;
        Ok(())
    }

    async fn denied(&mut self, who: &SignedIn) -> anyhow::Result<()> {
        let ask = async |model| {
            let request = as_user(self.visitor.post("/v1/messages"), who);
            self.visitor.send(request, prompt(model, "count to 3", 10, false)).await
        };
        let before = self.staging.model.asked();
        let refused = ask(LARGE).await?;
        let reached = self.staging.model.asked() > before;
        let answered = ask(SMALL).await?;
        let body = refused.json()?;
        let message = text(&body["error"], "message")?;
        self.terminal.exchange(&format!("POST /v1/messages {LARGE}"), refused.status.as_u16(), "")?;
        self.terminal.say(message)?;
        self.terminal.exchange(
            &format!("POST /v1/messages {SMALL}"),
            answered.status.as_u16(),
            "what his policy names",
        )?;
        ensure!(refused.status == StatusCode::BAD_REQUEST, "{LARGE} was not refused with 400");
        ensure!(body["error"]["type"] == "invalid_request_error", "the refusal is {body}");
        ensure!(!reached, "the refused prompt reached the model");
        ensure!(answered.status == StatusCode::OK, "{SMALL} was refused: {}", answered.text());
        self.settled(who.person, bill::of(SMALL, &answered.json()?["usage"])?).await?;
        self.terminal.kept("The refused prompt never reached the model, and only the answered one was charged.")?;
        Ok(())
    }

    async fn capped(&mut self, who: &SignedIn) -> anyhow::Result<()> {
        let (cap, before) = self.standing(who.person).await?;
        self.terminal.say(&format!(
            "{}'s cap is {} a day; {} of it is spent. He sends {CROWD} requests at the same moment, each worth about a \
             quarter of the cap. A gateway that only compares what was spent would let all of them through.",
            who.person.name,
            dollars(cap),
            dollars(before)
        ))?;
        let ask = || {
            let request = as_user(self.visitor.post("/v1/messages"), who);
            self.visitor.send(request, prompt(SMALL, &format!("count to {NUMBERS}"), NUMBERS, false))
        };
        let asked = self.staging.model.asked();
        let answers = future::try_join_all((0..CROWD).map(|_| ask())).await?;
        let asked = self.staging.model.asked().saturating_sub(asked);
        let outcome = Outcome::of(&answers)?;
        let expected = before.saturating_add(outcome.spent);
        let spent = self.settled(who.person, expected).await?;
        let past = spent.saturating_sub(cap).max(0);
        self.terminal.fact("let through", &format!("{} of {CROWD}", outcome.let_through))?;
        let refused =
            format!("{} told that the cap is reached, {} to come back later", outcome.blocked, outcome.sent_back);
        self.terminal.fact("refused", &refused)?;
        self.terminal.fact("spent", &dollars(spent))?;
        self.terminal.fact("cap", &dollars(cap))?;
        self.terminal.fact("past the cap", &dollars(past))?;
        self.terminal.fact("what he is told", &outcome.message)?;
        ensure!(outcome.let_through > 0, "nothing was let through, though the cap was not reached");
        ensure!(outcome.blocked > 0, "nobody was told that the cap is reached");
        ensure!(asked == outcome.let_through, "the model was asked {asked} times");
        ensure!(past <= outcome.dearest, "{} past the cap is more than one request's cost", dollars(past));
        self.terminal.kept(&format!(
            "Money is set aside before a request goes out. The promise is at most one request's cost ({}) past the cap.",
            dollars(outcome.dearest)
        ))?;
        Ok(())
    }

    async fn spend_table(&mut self, who: &SignedIn) -> anyhow::Result<()> {
        let path = "/v1/organizations/spend_limits/effective?period%5B%5D=daily&sort=spend_desc";
        let answer = self.visitor.send(as_user(self.visitor.get(path), who), "").await?;
        self.terminal.exchange(
            "GET /v1/organizations/spend_limits/effective",
            answer.status.as_u16(),
            "with her own bearer",
        )?;
        ensure!(answer.status == StatusCode::OK, "she may not see it: {}", answer.text());
        let answer = answer.json()?;
        let rows = answer["data"].as_array().context("no rows")?;
        let row = |row: &Value| {
            let cap = row["amount"].as_str().map(bill::from_cents).transpose()?;
            Ok(vec![
                row["actor"]["name"].as_str().unwrap_or_default().to_owned(),
                row["actor"]["email_address"].as_str().unwrap_or_default().to_owned(),
                row["groups"][0].as_str().unwrap_or_default().to_owned(),
                dollars(bill::from_cents(text(row, "period_to_date_spend")?)?),
                cap.map_or_else(|| "none".to_owned(), dollars),
            ])
        };
        let rows: Vec<_> = rows.iter().map(row).collect::<anyhow::Result<_>>()?;
        self.terminal.blank()?;
        self.terminal.table(&["who", "e-mail", "group", "spent today", "cap a day"], &rows, &[3, 4])?;
        self.terminal.blank()?;
        let names: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
        ensure!(names.starts_with(&[CONTRACTOR.name, ENGINEER.name]), "the table lists {names:?}");
        let stranger = self.visitor.get(path);
        let status = self.visitor.send(stranger, "").await?.status;
        ensure!(status == StatusCode::UNAUTHORIZED, "without a credential the table is answered with {status}");
        self.terminal.kept("Who spent most comes first. Without her bearer or an admin key the answer is 401.")?;
        Ok(())
    }

    /// A person's cap and spend of today, as the operator sees them.
    async fn standing(&self, person: &Person) -> anyhow::Result<(Nano, Nano)> {
        let path =
            format!("/v1/organizations/spend_limits/effective?period%5B%5D=daily&user_ids%5B%5D={}", person.login);
        let request = self.visitor.get(&path).header("x-api-key", &self.staging.admin_key);
        let answer = self.visitor.send(request, "").await?.json()?;
        let row = &answer["data"][0];
        Ok((bill::from_cents(text(row, "amount")?)?, bill::from_cents(text(row, "period_to_date_spend")?)?))
    }

    /// Waits until the ledger has recorded this much for a person: settlements are written a moment after the answer.
    async fn settled(&self, person: &Person, expected: Nano) -> anyhow::Result<Nano> {
        let began = self.clock.instant();
        loop {
            let (_, spent) = self.standing(person).await?;
            if bill::same(spent, expected) {
                return Ok(spent);
            }
            let waited = self.clock.instant().saturating_duration_since(began);
            let (spent, expected) = (dollars(spent), dollars(expected));
            ensure!(waited < SETTLED_WITHIN, "the ledger says {spent}, and the answers cost {expected}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A stream so far.
#[derive(Default)]
struct Stream {
    pieces: usize,
    first: Option<Instant>,
    last: Option<Instant>,
    usage: Value,
    ended: bool,
}

impl Stream {
    fn hear(&mut self, event: wire::sse::Event<'_>, words: &mut String) {
        let Ok(data) = serde_json::from_slice::<Value>(event.data) else { return };
        words.push_str(data["delta"]["text"].as_str().unwrap_or_default());
        if data["usage"].is_object() {
            self.usage = data["usage"].clone();
        }
        self.ended |= data["type"] == "message_stop";
    }

    fn came_at(&mut self, now: Instant) {
        self.pieces += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

impl Outcome {
    fn of(answers: &[Answer]) -> anyhow::Result<Self> {
        let mut outcome = Self::default();
        for answer in answers {
            let body = answer.json()?;
            match (answer.status, body["error"]["type"].as_str()) {
                (StatusCode::OK, _) => {
                    let cost = bill::of(SMALL, &body["usage"])?;
                    outcome.let_through += 1;
                    outcome.spent = outcome.spent.saturating_add(cost);
                    outcome.dearest = outcome.dearest.max(cost);
                }
                (StatusCode::TOO_MANY_REQUESTS, Some("billing_error")) => {
                    outcome.blocked += 1;
                    text(&body["error"], "message")?.clone_into(&mut outcome.message);
                }
                (StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_error")) => outcome.sent_back += 1,
                (status, _) => anyhow::bail!("a request was answered with {status}: {}", answer.text()),
            }
        }
        Ok(outcome)
    }
}

fn as_user(request: request::Builder, who: &SignedIn) -> request::Builder {
    request.header(AUTHORIZATION, format!("Bearer {}", who.bearer)).header("anthropic-version", "2023-06-01")
}

fn prompt(model: &str, text: &str, max_tokens: u64, stream: bool) -> String {
    let messages = json!([{"role": "user", "content": text}]);
    json!({"model": model, "max_tokens": max_tokens, "stream": stream, "messages": messages}).to_string()
}

/// What a bearer says of its holder; whether it is true is the gateway's to check.
fn claims(bearer: &str) -> anyhow::Result<Value> {
    let payload = bearer.split('.').nth(1).context("the bearer is no JWT")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

fn text<'v>(json: &'v Value, field: &str) -> anyhow::Result<&'v str> {
    json[field].as_str().with_context(|| format!("no {field} in {json}"))
}
