//! What the providers on Amazon have of their own: `region`, `auth`, `guardrail`, `assume_role`, `workspace_id`.

use std::path::{Path, PathBuf};

use http::HeaderValue;
use proxy::upstream::{
    AnthropicAwsConfig, AnthropicAwsCredential, ApiConfig, AssumeRole, AwsChain, AwsConfig, AwsCredential,
    BedrockConfig, Guardrail, SessionName,
};
use url::Url;
use wire::catalog::Provider;

use super::super::Environment;
use super::super::read::{Field, Mapping};
use super::super::reference::{Section, key};
use super::refuse_foreign;

pub(in super::super) const GUARDRAIL: Section = Section {
    path: "upstreams[].guardrail",
    about: "A guardrail of Amazon Bedrock that every request to this upstream passes.",
    keys: &[
        key("id", "text", "required", "Its id or ARN."),
        key("version", "text", "required", "Its version, or `DRAFT`."),
    ],
    later: &[],
};

pub(in super::super) const ASSUME_ROLE: Section = Section {
    path: "upstreams[].assume_role",
    about: "An AWS role whose temporary credentials are used in place of the credential of `auth`, which assumes it.",
    keys: &[
        key("role_arn", "ARN of a role", "required", "The role."),
        key("external_id", "text", "", "What the role's trust policy asks for."),
        key(
            "session_name",
            "`email` or `sub`",
            "",
            "Name each session after the developer, so that CloudTrail and cost reports tell them apart; left out, all are \
             `tollgate`.",
        ),
    ],
    later: &[],
};

/// The keys of `auth` that name the caller to Amazon.
pub(super) const AUTH_KEYS: [&str; 3] = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];

/// What is different in `provider`, and where it is by default.
pub(super) fn read(
    provider: Provider,
    upstream: &Mapping<'_>,
    environment: &Environment,
) -> (Option<ApiConfig>, Option<Url>) {
    let region = upstream.required("region", "write the AWS region, such as us-east-1", read_region);
    let base_url = region.as_deref().and_then(|region| default_url(provider, region, upstream, environment));
    let role = upstream.maybe("assume_role", read_role);
    let guardrail = upstream.maybe("guardrail", read_guardrail);
    let auth = read_auth(provider, upstream, environment);
    let workspace_id = match provider {
        Provider::AnthropicAws => {
            upstream.required("workspace_id", "write the id of the workspace, such as wrkspc_...", read_header_value)
        }
        _ => None,
    };
    if let (Some(Some(_)), Some(Auth::Aws(AwsCredential::Bearer(_)))) = (&role, &auth)
        && let Some(field) = upstream.get("assume_role")
    {
        field.refuse("a bearer token cannot assume a role; write keys below auth, or leave auth empty");
        return (None, base_url);
    }
    let aws = |credential| Some(AwsConfig { region: region.clone()?, credential, assume_role: role.clone()? });
    let api = match (provider, auth) {
        (_, None) => None,
        (Provider::Bedrock, Some(Auth::Aws(credential))) => {
            aws(credential).zip(guardrail).map(|(aws, guardrail)| ApiConfig::Bedrock(BedrockConfig { aws, guardrail }))
        }
        (Provider::AnthropicAws, Some(auth)) => {
            let credential = match auth {
                Auth::ApiKey(key) => Some(AnthropicAwsCredential::ApiKey(key)),
                Auth::Aws(credential) => aws(credential).map(AnthropicAwsCredential::Aws),
            };
            let config = |(credential, workspace_id)| AnthropicAwsConfig { workspace_id, credential };
            credential.zip(workspace_id).map(config).map(ApiConfig::AnthropicAws)
        }
        (_, Some(Auth::Aws(credential))) => aws(credential).map(ApiConfig::Mantle),
        (_, Some(Auth::ApiKey(_))) => None,
    };
    (api, base_url)
}

enum Auth {
    Aws(AwsCredential),
    ApiKey(secrecy::SecretString),
}

/// Left out, as `{}`: Amazon's default chain.
fn read_auth(provider: Provider, upstream: &Mapping<'_>, environment: &Environment) -> Option<Auth> {
    let Some(field) = upstream.get("auth") else {
        return read_chain(environment, |message| upstream.refuse(&message));
    };
    let auth = field.mapping(&super::AUTH)?;
    refuse_foreign(&auth, provider, super::AUTH_OF)?;
    let has_keys = AUTH_KEYS.iter().any(|key| auth.get(key).is_some());
    let preferred = ["api_key", "aws_bearer_token"].iter().find_map(|name| Some((*name, auth.get(name)?)));
    if let Some((name, field)) = preferred {
        if has_keys {
            field.warn(format!("{name} is used, and the keys beside it are not"));
        }
        let secret = field.secret()?;
        return Some(if name == "api_key" { Auth::ApiKey(secret) } else { Auth::Aws(AwsCredential::Bearer(secret)) });
    }
    if !has_keys {
        return read_chain(environment, |message| field.refuse(message));
    }
    let id = auth.required("aws_access_key_id", "it belongs to aws_secret_access_key", Field::string);
    let secret = auth.required("aws_secret_access_key", "it belongs to aws_access_key_id", Field::secret);
    let session_token = auth.maybe("aws_session_token", Field::secret);
    Some(Auth::Aws(AwsCredential::Keys { id: id?, secret: secret?, session_token: session_token? }))
}

/// Amazon's default chain, when what the environment names for it is there (contract R33).
fn read_chain(environment: &Environment, refuse: impl FnMut(String)) -> Option<Auth> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let chain = AwsChain {
        profile: set("AWS_PROFILE"),
        token_file: set("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from),
        container_url: set("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    };
    check_chain(environment, refuse).then_some(Auth::Aws(AwsCredential::Chain(chain)))
}

fn check_chain(environment: &Environment, mut refuse: impl FnMut(String)) -> bool {
    let mut are_there = true;
    for name in ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        let Some(path) = environment.get(name).filter(|path| !path.is_empty()) else { continue };
        if let Err(error) = std::fs::File::open(path) {
            refuse(format!("{name} names a file that cannot be read, {path}: {error}; correct or unset it"));
            are_there = false;
        }
    }
    if let Some(problem) = check_profile(environment).filter(|_| are_there) {
        refuse(problem);
        are_there = false;
    }
    are_there
}

/// The profile that is chosen is there, and whatever it takes its credentials from. Amazon's library passes over one that is
/// not, and then finds no metadata service where there is none: a cause that leads nobody to the spelling of a name.
fn check_profile(environment: &Environment) -> Option<String> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    // Keys go before profiles.
    if set("AWS_ACCESS_KEY_ID").is_some() {
        return None;
    }
    let file =
        |name: &str, usual: &str| set(name).map(PathBuf::from).or_else(|| Some(Path::new(set("HOME")?).join(usual)));
    let files = [file("AWS_CONFIG_FILE", ".aws/config"), file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")];
    let texts: Vec<String> = files.iter().flatten().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let missing = |who: String, name: &str| {
        let files: Vec<String> = files.iter().flatten().map(|path| path.display().to_string()).collect();
        Some(format!("{who} {name}, which is not in {}; correct or unset it", files.join(" or ")))
    };
    let mut profile = set("AWS_PROFILE").unwrap_or("default").to_owned();
    if !is_defined(&texts, &profile) {
        // Without any choice there need not be one.
        return if profile == "default" { None } else { missing("AWS_PROFILE names the profile".to_owned(), &profile) };
    }
    let mut seen = Vec::new();
    while let Some(source) = texts.iter().find_map(|text| source_profile(text, &profile)) {
        if !is_defined(&texts, &source) {
            return missing(format!("the profile {profile} has the source_profile"), &source);
        }
        // A profile may name itself; a longer circle is the library's to refuse.
        seen.push(std::mem::replace(&mut profile, source));
        if seen.contains(&profile) {
            break;
        }
    }
    None
}

fn is_defined(texts: &[String], profile: &str) -> bool {
    texts.iter().any(|text| text.lines().any(|line| section(line) == Some(profile)))
}

/// The name of the section that a line begins: `[name]` or `[profile name]`, with or without quotes.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>
fn section(line: &str) -> Option<&str> {
    let section = line.trim_start().strip_prefix('[')?.split_once(']')?.0.trim();
    let name = section.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(section);
    Some(name.trim().trim_matches(['"', '\'']))
}

/// The `source_profile` of a profile.
fn source_profile(text: &str, profile: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| section(line) != Some(profile)).skip(1);
    let within = lines.by_ref().take_while(|line| section(line).is_none());
    let (_, value) = within.filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "source_profile")?;
    let value = value.split(" #").next().unwrap_or_default().trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn read_region(field: &Field<'_>) -> Option<String> {
    let region = field.text()?.trim();
    let is_region = region.contains('-')
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && region.starts_with(|first: char| first.is_ascii_lowercase())
        && region.len() <= 32;
    if !is_region {
        field.refuse("must be an AWS region, such as us-east-1");
        return None;
    }
    Some(region.to_owned())
}

fn default_url(provider: Provider, region: &str, upstream: &Mapping<'_>, environment: &Environment) -> Option<Url> {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let text = match provider {
        Provider::Mantle => format!("https://bedrock-mantle.{region}.api.aws/anthropic"),
        Provider::AnthropicAws => format!("https://aws-external-anthropic.{region}.api.aws"),
        _ => {
            const NAME: &str = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME";
            if let Some(text) =
                environment.get(NAME).filter(|text| !text.is_empty() && upstream.get("base_url").is_none())
            {
                let url =
                    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
                let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
                let is_allowed = control::connect::check_literal_host(host, environment.allow_loopback()).is_ok();
                if url.is_none() || !is_allowed {
                    upstream.refuse(&format!("{NAME} is not a URL that may be connected to; correct or unset it"));
                }
                return url.filter(|_| is_allowed);
            }
            format!("https://bedrock-runtime.{region}.{domain}")
        }
    };
    Url::parse(&text).ok()
}

fn read_role(field: &Field<'_>) -> Option<AssumeRole> {
    let role = field.mapping(&ASSUME_ROLE)?;
    let role_arn = role.required("role_arn", "write the ARN of the role", |field| {
        let arn = field.text()?.trim();
        if !arn.starts_with("arn:") || !arn.contains(":role/") {
            field.refuse("must be the ARN of a role, such as arn:aws:iam::111122223333:role/tollgate");
            return None;
        }
        Some(arn.to_owned())
    });
    let external_id = role.maybe("external_id", Field::any_string);
    let names = [("email", SessionName::Email), ("sub", SessionName::Sub)];
    let session_name = role.maybe("session_name", |field| field.one_of(&names));
    Some(AssumeRole { role_arn: role_arn?, external_id: external_id?, session_name: session_name? })
}

fn read_guardrail(field: &Field<'_>) -> Option<Guardrail> {
    let guardrail = field.mapping(&GUARDRAIL)?;
    let id = guardrail.required("id", "write the id of the guardrail", read_header_value);
    let version = guardrail.required("version", "write the version of the guardrail, or DRAFT", read_header_value);
    Some(Guardrail { id: id?, version: version? })
}

/// Text that can stand in a header, whatever it looks like: versions are often numbers.
fn read_header_value(field: &Field<'_>) -> Option<HeaderValue> {
    let text = field.any_string()?;
    let value = HeaderValue::from_str(text.trim()).ok();
    if value.is_none() {
        field.refuse("must be printable ASCII");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_in_every_spelling_of_its_section() {
        let defines = |text: &str, profile: &str| is_defined(&[text.to_owned()], profile);
        for text in ["[work]", "a = b\n [ profile  work ] # x", "[profile \"work\"]", "[other]\n[profile\twork]"] {
            assert!(defines(text, "work"), "{text}");
        }
        for text in
            ["", "[works]", "[profile other]", "# [work]", "work = [work]", "[sso-session work]", "[profilework]"]
        {
            assert!(!defines(text, "work"), "{text}");
        }
        assert!(defines("[profiles]", "profiles"));
    }

    #[test]
    fn a_source_profile_is_read_in_its_own_section_only() {
        let text = "[other]\nsource_profile = a\n[profile work]\nregion = r\nsource_profile=base # keys\n[last]\n";
        assert_eq!(source_profile(text, "work").as_deref(), Some("base"));
        assert_eq!((source_profile(text, "last"), source_profile(text, "none")), (None, None));
        assert_eq!(source_profile("[work]\n[other]\nsource_profile = a", "work"), None);
    }
}
