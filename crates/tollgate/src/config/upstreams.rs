//! `upstreams`: where inference goes.

mod aws;
mod foundry;
mod google;

use proxy::upstream::credential::anthropic::FederationConfig;
use proxy::upstream::{AnthropicConfig, ApiConfig, Config, Credential, Timeouts};
use url::Url;
use wire::catalog::Provider;

use super::problem::did_you_mean;
use super::read::{Field, Mapping, all};
use super::reference::{Section, key};
use super::{Environment, failover, headers};

pub(super) use aws::{ASSUME_ROLE, GUARDRAIL};
pub(super) use google::warn_short_context;

pub(super) const SECTION: Section = Section {
    path: "upstreams[]",
    about: "Where inference goes: a list, tried in its order. At least one.",
    keys: &[
        key(
            "provider",
            "`anthropic`, `bedrock`, `mantle`, `anthropicAws`, `anthropicGoogleCloud`, `vertex` or `foundry`",
            "required",
            "The API it speaks.",
        ),
        key("name", "text, unique", "the provider", "What `models`, `pricing` and the audit call it."),
        key(
            "auth",
            "mapping",
            "",
            "Its credential. Required for `anthropic` and `foundry`; left out on AWS, AWS's default chain; left out on Google Cloud, its \
             application default credentials.",
        ),
        key(
            "base_url",
            "http or https URL without query",
            "",
            "Where it is; a path is kept as a prefix. Left out, the provider's own address, in its region.",
        ),
        key("headers", "mapping of header names to texts", "{}", "Headers added to every request."),
        key(
            "models",
            "list of model ids, not empty",
            "",
            "It serves these only; left out: all it has an id for. Required for `mantle`.",
        ),
        key("groups", "list of group names, not empty", "", "Only members of one of these use it; left out: everyone."),
        key(
            "forward_user_identity",
            "boolean; `anthropic` only, and not for api.anthropic.com",
            "false",
            "Tell it who is calling, in `x-claude-gateway-user-*` headers.",
        ),
        key(
            "region",
            "AWS region; `bedrock`, `mantle`, `anthropicAws` only; on `vertex` a region, `global`, `us` or `eu`",
            "",
            "Where. Required there.",
        ),
        key(
            "project_id",
            "text; `vertex`, `anthropicGoogleCloud` only",
            "",
            "The Google Cloud project. Required there.",
        ),
        key(
            "workspace_id",
            "text; `anthropicAws`, `anthropicGoogleCloud` only",
            "",
            "The workspace of Claude Platform that is used. Required there.",
        ),
        key(
            "resource",
            "2 to 64 letters, digits and inner hyphens; `foundry` only",
            "",
            "The Foundry resource. Required there.",
        ),
        key("guardrail", "mapping; `bedrock` only", "", "A guardrail for every request."),
        key("assume_role", "mapping; `bedrock`, `mantle` only", "", "An AWS role to use."),
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
    later: &[],
};

pub(super) const AUTH: Section = Section {
    path: "upstreams[].auth",
    about: "For `anthropic` exactly one of the first two, or a federation rule. On AWS, `aws_access_key_id` with `aws_secret_access_key`, or one of \
            the tokens, or nothing (`{}`): then the environment, a profile, SSO, a web identity, the container or the \
            instance, as AWS's own tools look for it.",
    keys: &[
        key("api_key", "text; `anthropic`, `anthropicAws` only", "", "Sent as `x-api-key`."),
        key("oauth_token", "text; `anthropic` only", "", "Sent as `Authorization: Bearer`."),
        key("aws_access_key_id", "text", "", "An access key of AWS."),
        key("aws_secret_access_key", "text", "", "Its secret."),
        key("aws_session_token", "text", "", "What a temporary key needs beside them."),
        key(
            "aws_bearer_token",
            "text; `bedrock`, `mantle` only",
            "",
            "An API key of Amazon Bedrock, sent as `Authorization: Bearer`; wins over keys.",
        ),
        key(
            "federation_rule_id",
            "text; `anthropic` only",
            "",
            "The rule by which the workload's own token is exchanged for one of the Claude API.",
        ),
        key("organization_id", "text; `anthropic` only", "", "The organization of that rule. Required with it."),
        key(
            "identity_token_file",
            "path; `anthropic` only",
            "",
            "Where the workload's own token is; read at every exchange. Required with the rule.",
        ),
        key("workspace_id", "text; `anthropic` only", "", "The workspace, where the rule allows more than one."),
        key("service_account_id", "text; `anthropic` only", "", "The service account of that rule."),
        key(
            "service_account_json",
            "path; `vertex`, `anthropicGoogleCloud` only",
            "",
            "A credential file of Google Cloud, of any type.",
        ),
        key(
            "use_azure_ad",
            "`true`; `foundry` only",
            "",
            "Ask with a token of Microsoft Entra: from the environment, a workload identity, a managed identity, or the Azure \
             CLI.",
        ),
    ],
    later: &[],
};

const PROVIDERS: &[Provider] = &[
    Provider::Anthropic,
    Provider::Bedrock,
    Provider::Mantle,
    Provider::AnthropicAws,
    Provider::AnthropicGoogleCloud,
    Provider::Vertex,
    Provider::Foundry,
];

type Owners = &'static [(&'static str, &'static [Provider])];

/// The keys that only some providers have.
const KEYS_OF: Owners = &[
    ("forward_user_identity", &[Provider::Anthropic]),
    ("region", &[Provider::Bedrock, Provider::Mantle, Provider::AnthropicAws, Provider::Vertex]),
    ("project_id", &[Provider::Vertex, Provider::AnthropicGoogleCloud]),
    ("resource", &[Provider::Foundry]),
    ("workspace_id", &[Provider::AnthropicAws, Provider::AnthropicGoogleCloud]),
    ("guardrail", &[Provider::Bedrock]),
    ("assume_role", &[Provider::Bedrock, Provider::Mantle]),
];

/// The same for keys of `auth`.
const AUTH_OF: Owners = &[
    ("api_key", &[Provider::Anthropic, Provider::AnthropicAws, Provider::Foundry]),
    ("oauth_token", &[Provider::Anthropic]),
    ("aws_access_key_id", &[Provider::Bedrock, Provider::Mantle, Provider::AnthropicAws]),
    ("aws_secret_access_key", &[Provider::Bedrock, Provider::Mantle, Provider::AnthropicAws]),
    ("aws_session_token", &[Provider::Bedrock, Provider::Mantle, Provider::AnthropicAws]),
    ("aws_bearer_token", &[Provider::Bedrock, Provider::Mantle]),
    ("federation_rule_id", &[Provider::Anthropic]),
    ("organization_id", &[Provider::Anthropic]),
    ("identity_token_file", &[Provider::Anthropic]),
    ("workspace_id", &[Provider::Anthropic]),
    ("service_account_id", &[Provider::Anthropic]),
    ("service_account_json", &[Provider::Vertex, Provider::AnthropicGoogleCloud]),
    ("use_azure_ad", &[Provider::Foundry]),
];

/// The keys of `auth` that belong to workload identity federation.
const FEDERATION: [&str; 5] =
    ["federation_rule_id", "organization_id", "identity_token_file", "workspace_id", "service_account_id"];

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
    environment: &Environment,
) -> Option<Vec<Config>> {
    let timeouts = failover::read_timeouts(timeouts);
    let items = upstreams?.some_items("upstream")?;
    let general = timeouts.unwrap_or_default();
    let read: Vec<Option<Config>> = items.iter().map(|item| read_one(item, general, environment)).collect();
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

fn read_one(item: &Field<'_>, general: Timeouts, environment: &Environment) -> Option<Config> {
    let upstream = item.mapping(&SECTION)?;
    let provider = upstream.required("provider", &format!("write one of {}", provider_names()), read_provider);
    let strict = provider.and_then(|provider| refuse_foreign(&upstream, provider, KEYS_OF));
    let name = upstream.or("name", provider.map_or("anthropic", Provider::as_str), Field::text);
    let written_url = upstream.maybe("base_url", |field| read_base_url(field, environment.allow_loopback()));
    let (api, default_url) = match provider.unwrap_or(Provider::Anthropic) {
        Provider::Anthropic => {
            let default = Url::parse(ANTHROPIC).ok();
            (read_anthropic(&upstream, written_url.clone().flatten().or(default.clone()).as_ref()), default)
        }
        google @ (Provider::Vertex | Provider::AnthropicGoogleCloud) => google::read(google, &upstream, environment),
        Provider::Foundry => foundry::read(&upstream, environment),
        aws => aws::read(aws, &upstream, environment),
    };
    let headers = upstream.or("headers", Vec::new(), |field| headers::read(field, is_reserved));
    let models = upstream.maybe("models", |field| field.some_texts("model"));
    if provider == Some(Provider::Mantle) && upstream.get("models").is_none() {
        upstream.missing("models", "name the models that it serves, such as claude-sonnet-5");
    }
    let groups = upstream.maybe("groups", |field| field.some_texts("group"));
    let timeouts = failover::read_own_timeouts(&upstream, general);
    let failover_on = failover::read_failover_on(&upstream);
    let breaker = failover::read_breaker(&upstream);
    strict?;
    Some(Config {
        name: name?.trim().to_owned(),
        base_url: written_url?.or(default_url)?,
        headers: headers?,
        models: models?,
        groups: groups?,
        api: api?,
        timeouts: timeouts?,
        failover_on: failover_on?,
        breaker: breaker?,
    })
}

fn provider_names() -> String {
    PROVIDERS.iter().map(|provider| provider.as_str()).collect::<Vec<_>>().join(", ")
}

fn read_provider(field: &Field<'_>) -> Option<Provider> {
    let written = field.text()?;
    if let Some(provider) = PROVIDERS.iter().find(|provider| provider.as_str() == written) {
        return Some(*provider);
    }
    match did_you_mean(written, PROVIDERS.iter().map(|provider| provider.as_str())) {
        Some(meant) => field.refuse(format!("unknown provider; did you mean {meant}?")),
        None => field.refuse(format!("unknown provider; write one of {}", provider_names())),
    }
    None
}

/// Refuses keys that another provider has and this one has not.
fn refuse_foreign(mapping: &Mapping<'_>, provider: Provider, owners: Owners) -> Option<()> {
    let mut clean = Some(());
    for (key, providers) in owners {
        if providers.contains(&provider) {
            continue;
        }
        if let Some(field) = mapping.get(key) {
            let names: Vec<_> = providers.iter().map(|owner| owner.as_str()).collect();
            field.refuse(format!(
                "is for {}, and this upstream is {}; leave it out",
                names.join(", "),
                provider.as_str()
            ));
            clean = None;
        }
    }
    clean
}

fn read_anthropic(upstream: &Mapping<'_>, base_url: Option<&Url>) -> Option<ApiConfig> {
    let credential =
        upstream.required("auth", "write api_key, oauth_token or a federation rule below it", read_credential);
    let identity = upstream.or("forward_user_identity", false, |field| read_identity(field, base_url));
    Some(ApiConfig::Anthropic(AnthropicConfig { credential: credential?, forward_user_identity: identity? }))
}

fn read_credential(field: &Field<'_>) -> Option<Credential> {
    let auth = field.mapping(&AUTH)?;
    refuse_foreign(&auth, Provider::Anthropic, AUTH_OF)?;
    let is_federated = FEDERATION.iter().any(|key| auth.get(key).is_some());
    match (auth.get("api_key"), auth.get("oauth_token"), is_federated) {
        (Some(key), None, false) => key.secret().map(Credential::ApiKey),
        (None, Some(token), false) => token.secret().map(Credential::OauthToken),
        (None, None, true) => read_federation(&auth).map(Credential::Federation),
        (None, None, false) => {
            auth.refuse("no credential; write api_key, oauth_token or a federation rule");
            None
        }
        _ => {
            auth.refuse("api_key, oauth_token and a federation rule exclude each other; keep one");
            None
        }
    }
}

fn read_federation(auth: &Mapping<'_>) -> Option<FederationConfig> {
    let text = |field: &Field<'_>| field.any_string();
    let rule = auth.required("federation_rule_id", "write the id of the rule, such as fdrl_...", text);
    let organization = auth.required("organization_id", "write the id of the organization", text);
    let file = auth.required("identity_token_file", "write where the workload's token is", Field::existing_file);
    let workspace_id = auth.maybe("workspace_id", text);
    let service_account_id = auth.maybe("service_account_id", text);
    Some(FederationConfig {
        federation_rule_id: rule?,
        organization_id: organization?,
        identity_token_file: file?,
        workspace_id: workspace_id?,
        service_account_id: service_account_id?,
    })
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
