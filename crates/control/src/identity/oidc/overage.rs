//! Entra ID's group overage: who is in more than 200 groups gets a pointer to them instead (`_claim_names` and
//! `_claim_sources`, OpenID Connect Core 1.0, section 5.6.2), and Microsoft Graph is asked.
//!
//! The pointer's own address is not followed: it names the retired Azure AD Graph. It only says which cloud's Microsoft
//! Graph knows, so that an access token goes nowhere else.

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use url::Url;
use wire::oidc::Claims;

use super::call::{self, CallError, Line};

/// Hosts that a pointer may name, and the Microsoft Graph of that cloud.
const GRAPHS: [(&str, &str); 7] = [
    ("graph.windows.net", "https://graph.microsoft.com"),
    ("graph.microsoft.com", "https://graph.microsoft.com"),
    ("graph.microsoftazure.us", "https://graph.microsoft.us"),
    ("graph.microsoft.us", "https://graph.microsoft.us"),
    ("dod-graph.microsoft.us", "https://dod-graph.microsoft.us"),
    ("graph.chinacloudapi.cn", "https://microsoftgraph.chinacloudapi.cn"),
    ("microsoftgraph.chinacloudapi.cn", "https://microsoftgraph.chinacloudapi.cn"),
];

#[derive(Deserialize)]
struct Answer {
    value: Vec<String>,
}

/// Where the groups of an id_token are, when it only points to them. `Err` names a place that is not Microsoft Graph.
pub(super) fn place(claims: &Claims, groups_claim: &str, issuer: &Url) -> Option<Result<Url, String>> {
    let name = claims.lookup("_claim_names")?.get(groups_claim)?.as_str()?;
    let endpoint = claims.lookup("_claim_sources")?.get(name)?.get("endpoint")?.as_str()?;
    let Ok(url) = Url::parse(endpoint) else {
        return Some(Err("the id_token points to its groups with something that is no URL".to_owned()));
    };
    let host = url.host_str().unwrap_or_default();
    let of_cloud = GRAPHS.iter().find(|(named, _)| *named == host).and_then(|(_, graph)| Url::parse(graph).ok());
    // An issuer that serves Graph itself, as emulators do.
    let graph = of_cloud.or_else(|| (url.origin() == issuer.origin()).then(|| url.clone()));
    Some(match graph.and_then(|graph| graph.join("/v1.0/me/getMemberObjects").ok()) {
        Some(place) => Ok(place),
        None => Err(format!("the id_token points to its groups at {host}, which is not Microsoft Graph")),
    })
}

/// Ids of all groups the person is in, nested ones included. The access token needs `User.Read`.
pub(super) async fn groups(line: &Line, place: &Url, access_token: &SecretString) -> Result<Vec<String>, CallError> {
    // As the groups claim itself: security groups, distribution lists and directory roles alike.
    let asked = json!({"securityEnabledOnly": false});
    let answer: Answer = call::json(line.post_json(place, &asked, access_token).await)?;
    Ok(answer.value.into_iter().filter(|group| !group.is_empty()).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    fn placed(claims: Value) -> Option<Result<String, String>> {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        let issuer = "https://login.microsoftonline.com/tenant/v2.0".parse().unwrap();
        place(&claims, "groups", &issuer).map(|place| place.map(String::from))
    }

    fn pointing(endpoint: &str) -> Value {
        json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": endpoint}}})
    }

    #[test]
    fn a_pointer_of_each_cloud_leads_to_its_microsoft_graph() {
        for (endpoint, graph) in [
            ("https://graph.windows.net/tenant/users/oid/getMemberObjects", "https://graph.microsoft.com"),
            ("https://graph.microsoft.com/v1.0/users/oid/getMemberObjects", "https://graph.microsoft.com"),
            ("https://graph.microsoftazure.us/t/users/o/getMemberObjects", "https://graph.microsoft.us"),
            ("https://graph.chinacloudapi.cn/t/users/o/getMemberObjects", "https://microsoftgraph.chinacloudapi.cn"),
        ] {
            assert_eq!(placed(pointing(endpoint)), Some(Ok(format!("{graph}/v1.0/me/getMemberObjects"))), "{endpoint}");
        }
    }

    #[test]
    fn a_pointer_to_anywhere_else_gets_no_access_token() {
        for endpoint in ["https://graph.windows.net.evil.example/x", "http://169.254.169.254/", "not a URL"] {
            assert!(placed(pointing(endpoint)).unwrap().is_err(), "{endpoint}");
        }
    }

    #[test]
    fn a_token_without_a_pointer_has_no_overage() {
        for claims in [
            json!({}),
            json!({"_claim_names": {"groups": "src1"}}),
            json!({"_claim_names": "groups", "_claim_sources": []}),
            json!({"_claim_names": {"address": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/"}}}),
        ] {
            assert_eq!(placed(claims.clone()), None, "{claims}");
        }
    }
}
