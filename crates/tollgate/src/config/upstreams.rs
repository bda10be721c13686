//! `upstreams`: where inference goes.

use proxy::upstream::{Config, Credential, Timeouts};
use url::Url;

use super::problem::did_you_mean;
use super::read::{Field, all};
use super::reference::{Later, Section, key, later};
use super::{failover, headers};

pub(super) const SECTION: Section = Section {
    path: "upstreams[]",
    about: "Where inference goes: a list, tried in its order. At least one.",
    keys: &[
        key("provider", "`anthropic`", "required", "The API it speaks."),
        key("name", "text, unique", "the provider", "What `models`, `pricing` and the audit call it."),
        key("auth", "mapping", "required", "Its credential."),
        key(
            "base_url",
            "http or https URL without query",
            "https://api.anthropic.com",
            "Where it is; a path is kept as a prefix.",
        ),
        key("headers", "mapping of header names to texts", "{}", "Headers added to every request."),
        key("models", "list of model ids, not empty", "", "It serves these only; left out: all it has an id for."),
        key("groups", "list of group names, not empty", "", "Only members of one of these use it; left out: everyone."),
        key(
            "forward_user_identity",
            "boolean; not for api.anthropic.com",
            "false",
            "Tell it who is calling, in `x-claude-gateway-user-*` headers.",
        ),
        key("timeouts", "mapping", "`timeouts` of the file", "Time limits of its own."),
        key(
            "failover_on",
            "list of kinds of failure and statuses, not empty",
            "[default]",
            "What leads to the next upstream: `default`, which is all of these kinds - `connect`, `timeout`, `broken`, \
             `credential`, `usage_limit`, `not_found`, `rate_limit`, `overload`, `server_error`, `model`, `first_frame` - \
             single ones of them, or statuses from 400 to 599.",
        ),
        key("breaker", "mapping", "on", "When it is left alone because it fails."),
    ],
    later: &[
        later("region", "the region of a cloud provider"),
        later("project_id", "the project of a Google Cloud provider"),
        later("workspace_id", "the workspace on a cloud's Claude platform"),
        later("resource", "the resource of Microsoft Foundry"),
        later("guardrail", "a guardrail of Amazon Bedrock"),
        later("assume_role", "an AWS role to assume"),
    ],
};

pub(super) const AUTH: Section = Section {
    path: "upstreams[].auth",
    about: "Exactly one of these.",
    keys: &[
        key("api_key", "text", "", "Sent as `x-api-key`."),
        key("oauth_token", "text", "", "Sent as `Authorization: Bearer`."),
    ],
    later: &[
        later("federation_rule_id", "a token exchanged for the workload's own identity"),
        later("organization_id", "a token exchanged for the workload's own identity"),
        later("identity_token_file", "a token exchanged for the workload's own identity"),
        later("workspace_id", "a token exchanged for the workload's own identity"),
        later("service_account_id", "a token exchanged for the workload's own identity"),
        later("aws_access_key_id", "credentials of AWS"),
        later("aws_secret_access_key", "credentials of AWS"),
        later("aws_session_token", "credentials of AWS"),
        later("aws_bearer_token", "credentials of AWS"),
        later("service_account_json", "credentials of Google Cloud"),
        later("use_azure_ad", "credentials of Microsoft Entra"),
    ],
};

const LATER_PROVIDERS: &[Later] = &[
    later("bedrock", "Amazon Bedrock"),
    later("mantle", "Amazon Bedrock's Anthropic-format endpoint"),
    later("anthropicAws", "Claude Platform on AWS"),
    later("anthropicGoogleCloud", "Claude Platform on Google Cloud"),
    later("vertex", "Google Cloud Vertex AI"),
    later("foundry", "Microsoft Foundry"),
];

const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "x-api-key",
    "api-key",
    "host",
    "content-type",
    "content-length",
    "accept",
    "accept-encoding",
    "user-agent",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "x-goog-user-project",
    "x-litellm-end-user-id",
];
const RESERVED_PREFIXES: &[&str] = &["anthropic-", "x-amz-", "x-amzn-", "x-stainless-", "x-claude-gateway-user-"];

const ANTHROPIC: &str = "https://api.anthropic.com";

pub(super) fn read(
    upstreams: Option<Field<'_>>,
    timeouts: Option<Field<'_>>,
    allow_loopback: bool,
) -> Option<Vec<Config>> {
    let timeouts = failover::read_timeouts(timeouts);
    let items = upstreams?.some_items("upstream")?;
    let general = timeouts.unwrap_or_default();
    let read: Vec<Option<Config>> = items.iter().map(|item| read_one(item, general, allow_loopback)).collect();
    for (index, upstream) in read.iter().enumerate() {
        let Some(upstream) = upstream else { continue };
        let taken = read[..index].iter().flatten().any(|earlier| earlier.name == upstream.name);
        if taken {
            items[index].refuse(format!("another upstream is called {} already; give each a name", upstream.name));
        }
    }
    timeouts?;
    all(read.into_iter())
}

fn read_one(item: &Field<'_>, general: Timeouts, allow_loopback: bool) -> Option<Config> {
    // A provider that is not built is said once, and not once more for each of its keys.
    if let Some(provider) = item.below("provider")
        && let Some(later) = LATER_PROVIDERS.iter().find(|later| provider.is(later.name))
    {
        provider.refuse(format!("{}; the provider so far is anthropic", later.refusal()));
        return None;
    }
    let upstream = item.mapping(&SECTION)?;
    let provider = upstream.required("provider", "write anthropic", read_provider);
    let name = upstream.or("name", "anthropic", Field::text);
    let credential = upstream.required("auth", "write api_key or oauth_token below it", read_credential);
    let base_url = match upstream.get("base_url") {
        Some(field) => read_base_url(&field, allow_loopback),
        None => Url::parse(ANTHROPIC).ok(),
    };
    let headers = upstream.or("headers", Vec::new(), |field| headers::read(field, is_reserved));
    let models = upstream.maybe("models", |field| field.some_texts("model"));
    let groups = upstream.maybe("groups", |field| field.some_texts("group"));
    let identity = upstream.or("forward_user_identity", false, |field| read_identity(field, base_url.as_ref()));
    let timeouts = failover::read_own_timeouts(&upstream, general);
    let failover_on = failover::read_failover_on(&upstream);
    let breaker = failover::read_breaker(&upstream);
    provider?;
    Some(Config {
        name: name?.trim().to_owned(),
        base_url: base_url?,
        credential: credential?,
        headers: headers?,
        models: models?,
        groups: groups?,
        forward_user_identity: identity?,
        timeouts: timeouts?,
        failover_on: failover_on?,
        breaker: breaker?,
    })
}

fn read_provider(field: &Field<'_>) -> Option<()> {
    let written = field.text()?;
    if written == "anthropic" {
        return Some(());
    }
    let names = || LATER_PROVIDERS.iter().map(|later| later.name).chain(["anthropic"]);
    match did_you_mean(written, names()) {
        Some(meant) => field.refuse(format!("unknown provider; did you mean {meant}?")),
        None => field.refuse("unknown provider; write anthropic"),
    }
    None
}

fn read_credential(field: &Field<'_>) -> Option<Credential> {
    let auth = field.mapping(&AUTH)?;
    match (auth.get("api_key"), auth.get("oauth_token")) {
        (Some(key), None) => key.secret().map(Credential::ApiKey),
        (None, Some(token)) => token.secret().map(Credential::OauthToken),
        (Some(_), Some(_)) => {
            auth.refuse("api_key and oauth_token exclude each other; keep one");
            None
        }
        (None, None) => {
            // A credential of a later version has been reported by its key.
            if auth.is_empty() {
                auth.refuse("no credential; write api_key or oauth_token");
            }
            None
        }
    }
}

fn read_base_url(field: &Field<'_>, allow_loopback: bool) -> Option<Url> {
    let url = field.target_url(allow_loopback)?;
    if url.query().is_some() || url.fragment().is_some() {
        field.refuse("must have no query and no fragment; /v1/messages is appended to its path");
        return None;
    }
    Some(url)
}

fn read_identity(field: &Field<'_>, base_url: Option<&Url>) -> Option<bool> {
    let forward = field.flag()?;
    if forward && base_url.is_some_and(|url| url.host_str() == Some("api.anthropic.com")) {
        field.refuse("is for a proxy that you run, and this upstream is api.anthropic.com; leave it out");
        return None;
    }
    if forward {
        field.warn("developers' e-mail addresses are sent to this upstream");
    }
    Some(forward)
}

fn is_reserved(name: &str) -> bool {
    RESERVED_HEADERS.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
