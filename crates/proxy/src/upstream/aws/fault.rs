//! Why Amazon's chain has no credentials, and what to do: its library names neither files nor commands.

use super::AwsChain;

/// `why`, as the library says it, with what it leaves unsaid.
pub(super) fn explained(chain: &AwsChain, why: &str) -> String {
    match advice(chain, why) {
        Some(advice) => format!("{why}; {advice}"),
        None => why.to_owned(),
    }
}

fn advice(chain: &AwsChain, why: &str) -> Option<String> {
    let profile = chain.profile.as_deref().unwrap_or("default");
    if why.contains("SSO token") {
        return Some(format!("run `aws sso login --profile {profile}` as the user whom the gateway runs as"));
    }
    if let Some(path) = &chain.token_file
        && let Err(error) = std::fs::File::open(path)
    {
        return Some(format!(
            "the file of AWS_WEB_IDENTITY_TOKEN_FILE, {}, cannot be read: {error}; see that its writer renews it",
            path.display()
        ));
    }
    if let Some(url) = &chain.container_url
        && why.contains("dispatch failure")
    {
        return Some(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI, {url}, does not answer; correct or unset it"));
    }
    // The last place that is looked at.
    why.contains("IMDS").then(|| match &chain.profile {
        Some(profile) => format!(
            "the profile {profile} gives none, and no metadata service does: write keys, a role with its source_profile, or \
             SSO into it, or give the machine a role"
        ),
        None => "no metadata service gives any, and the environment names none: set AWS_PROFILE, keys or a web identity, or \
                 give the machine a role"
            .to_owned(),
    })
}
