//! What Microsoft Foundry has of its own: `resource` and `auth`.

use std::path::PathBuf;

use proxy::upstream::credential::Unusable;
use proxy::upstream::credential::azure::{Azure, AzureEnvironment};
use proxy::upstream::{ApiConfig, FoundryCredential, foundry_url};
use secrecy::SecretString;
use url::Url;
use wire::catalog::Provider;

use super::super::Environment;
use super::super::read::{Field, Mapping};
use super::refuse_foreign;

/// What is different in it, and where it is by default.
pub(super) fn read(upstream: &Mapping<'_>, environment: &Environment) -> (Option<ApiConfig>, Option<Url>) {
    let resource = upstream.required("resource", "write the name of the Foundry resource", read_resource);
    let auth = upstream
        .required("auth", "write api_key or use_azure_ad: true below it", |field| read_auth(field, environment));
    let url = resource.as_deref().and_then(|resource| Url::parse(&foundry_url(resource)).ok());
    (resource.and(auth).map(ApiConfig::Foundry), url)
}

fn read_resource(field: &Field<'_>) -> Option<String> {
    let resource = field.any_string()?.trim().to_owned();
    let is_letter = |c: char| c.is_ascii_alphanumeric();
    let is_resource = (2..=64).contains(&resource.len())
        && resource.chars().all(|c| is_letter(c) || c == '-')
        && resource.starts_with(is_letter)
        && resource.ends_with(is_letter);
    if !is_resource {
        field.refuse("must be the name of a Foundry resource: 2 to 64 letters, digits and inner hyphens");
        return None;
    }
    Some(resource)
}

fn read_auth(field: &Field<'_>, environment: &Environment) -> Option<FoundryCredential> {
    let auth = field.mapping(&super::AUTH)?;
    refuse_foreign(&auth, Provider::Foundry, super::AUTH_OF)?;
    match (auth.get("api_key"), auth.get("use_azure_ad")) {
        (Some(key), None) => key.secret().map(FoundryCredential::ApiKey),
        (None, Some(entra)) => {
            if !entra.flag()? {
                entra.refuse("write true, or api_key in its place");
                return None;
            }
            let azure = Azure::from_environment(&azure_environment(environment));
            azure.map(FoundryCredential::Entra).map_err(|Unusable(why)| entra.refuse(why)).ok()
        }
        (Some(_), Some(_)) => {
            auth.refuse("api_key and use_azure_ad exclude each other; keep one");
            None
        }
        (None, None) => {
            auth.refuse("no credential; write api_key or use_azure_ad: true");
            None
        }
    }
}

fn azure_environment(environment: &Environment) -> AzureEnvironment {
    let value = |name| environment.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let secret = |name| value(name).map(SecretString::from);
    let send_chain = value("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN").unwrap_or_default();
    AzureEnvironment {
        authority_host: value("AZURE_AUTHORITY_HOST"),
        tenant_id: value("AZURE_TENANT_ID"),
        client_id: value("AZURE_CLIENT_ID"),
        client_secret: secret("AZURE_CLIENT_SECRET"),
        client_certificate_path: value("AZURE_CLIENT_CERTIFICATE_PATH").map(PathBuf::from),
        send_certificate_chain: send_chain == "1" || send_chain.eq_ignore_ascii_case("true"),
        federated_token_file: value("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
        identity_endpoint: value("IDENTITY_ENDPOINT"),
        identity_header: secret("IDENTITY_HEADER"),
        metadata_host: value("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        path: value("PATH"),
        home: value("HOME"),
        azure_config_dir: value("AZURE_CONFIG_DIR"),
    }
}
