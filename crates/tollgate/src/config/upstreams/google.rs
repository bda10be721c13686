//! What the providers on Google Cloud have of their own: `region`, `project_id`, `workspace_id`, `auth`.

use std::path::{Path, PathBuf};

use proxy::upstream::credential::Unusable;
use proxy::upstream::credential::google::{AwsEnvironment, Google, GoogleEnvironment};
use proxy::upstream::{ApiConfig, Config, VertexConfig, anthropic_google_cloud_url};
use secrecy::SecretString;
use url::Url;
use wire::catalog::{Catalog, Provider};

use super::super::Environment;
use super::super::read::{Field, Mapping};
use super::refuse_foreign;

/// What is different in `provider`, and where it is by default.
pub(super) fn read(
    provider: Provider,
    upstream: &Mapping<'_>,
    environment: &Environment,
) -> (Option<ApiConfig>, Option<Url>) {
    let project_id = upstream.required("project_id", "write the id of the Google Cloud project", |field| {
        read_name(field, "the id of a Google Cloud project", |c| c.is_ascii_alphanumeric() || "-.:".contains(c))
    });
    let google = read_auth(provider, upstream, environment);
    if provider == Provider::AnthropicGoogleCloud {
        let workspace_id =
            upstream.required("workspace_id", "write the id of the workspace, such as wrkspc_...", |field| {
                read_name(field, "the id of a workspace", |c| c.is_ascii_alphanumeric() || "-_".contains(c))
            });
        let url =
            project_id.zip(workspace_id).map(|(project, workspace)| anthropic_google_cloud_url(&project, &workspace));
        return (google.map(ApiConfig::AnthropicGoogleCloud), url.and_then(|url| Url::parse(&url).ok()));
    }
    let region = upstream.required("region", "write a region, such as europe-west1, or global", |field| {
        read_name(field, "a region of Google Cloud", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    });
    let url = region.as_deref().and_then(|region| Url::parse(&VertexConfig::base_url(region)).ok());
    let vertex = || Some(VertexConfig { project_id: project_id?, region: region?, google: google? });
    (vertex().map(ApiConfig::Vertex), url)
}

/// Warns of Claude Sonnet 4.5 on Vertex AI, where it has the short context only.
pub(in super::super) fn warn_short_context(upstreams: Option<Field<'_>>, read: &[Config], catalog: &Catalog) {
    const MODEL: &str = "claude-sonnet-4-5";
    let Some(meant) = catalog.resolve(MODEL) else { return };
    let Some(items) = upstreams.and_then(|field| field.items()) else { return };
    for (item, upstream) in items.iter().zip(read) {
        let is_it = |id: &String| catalog.resolve(id).is_some_and(|model| model.id == meant.id);
        let serves = upstream.models.as_ref().is_none_or(|listed| listed.iter().any(is_it));
        if serves && upstream.api.provider() == Provider::Vertex {
            item.warn(format!(
                "it serves {MODEL}, which has no context of 1 million tokens there; list its `models` without that one to \
                 leave it out"
            ));
        }
    }
}

/// Left out, as `{}`: the application default credentials.
fn read_auth(provider: Provider, upstream: &Mapping<'_>, environment: &Environment) -> Option<Google> {
    let values = google_environment(environment);
    let Some(field) = upstream.get("auth") else {
        return Google::from_environment(&values).map_err(|Unusable(why)| upstream.refuse(&why)).ok();
    };
    let auth = field.mapping(&super::AUTH)?;
    refuse_foreign(&auth, provider, super::AUTH_OF)?;
    match auth.get("service_account_json") {
        Some(path) => {
            let google = Google::from_file(Path::new(path.text()?.trim()), &values);
            google.map_err(|Unusable(why)| path.refuse(why)).ok()
        }
        None => Google::from_environment(&values).map_err(|Unusable(why)| field.refuse(why)).ok(),
    }
}

fn google_environment(environment: &Environment) -> GoogleEnvironment {
    let value = |name| environment.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let folder = value("CLOUDSDK_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| value("HOME").map(|home| Path::new(&home).join(".config/gcloud")));
    let secret = |name| value(name).map(SecretString::from);
    GoogleEnvironment {
        credentials_file: value("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
        well_known_file: folder.map(|folder| folder.join("application_default_credentials.json")),
        metadata_host: value("GCE_METADATA_HOST"),
        quota_project: value("GOOGLE_CLOUD_QUOTA_PROJECT"),
        allow_executables: value("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES").is_some_and(|value| value == "1"),
        of_programs: ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, value(name)?))).collect(),
        aws: AwsEnvironment {
            region: value("AWS_REGION").or_else(|| value("AWS_DEFAULT_REGION")),
            key: value("AWS_ACCESS_KEY_ID").zip(secret("AWS_SECRET_ACCESS_KEY")),
            session_token: secret("AWS_SESSION_TOKEN"),
        },
    }
}

/// A text that stands in an address.
fn read_name(field: &Field<'_>, what: &str, is_allowed: impl Fn(char) -> bool) -> Option<String> {
    let name = field.any_string()?.trim().to_owned();
    let is_name =
        name.len() <= 128 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_allowed);
    if !is_name {
        field.refuse(format!("must be {what}"));
        return None;
    }
    Some(name)
}
