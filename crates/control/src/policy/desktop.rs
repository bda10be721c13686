//! The bootstrap documents of Claude Desktop, ready but for who asks and when (contract A10).

use bytes::Bytes;
use serde_json::{Map, Value, json};
use wire::catalog::Model;

use super::{Config, Kind};
use crate::identity::Principal;

/// What Claude Desktop is told about the gateway itself.
#[derive(Debug, Clone, Default)]
pub struct DesktopConfig {
    /// The public origin, without a trailing slash.
    pub origin: String,
    /// `telemetry.resource_attributes`, when clients are told to send their telemetry.
    pub telemetry: Option<Vec<(String, String)>>,
}

/// A bootstrap document of one policy.
#[derive(Debug)]
pub struct Bootstrap {
    /// Position of the policy in the file, from 0.
    pub index: usize,
    /// The members that are the same for everyone, as JSON without the braces.
    common: String,
    /// Attributes of the operator's; `None` without telemetry.
    telemetry: Option<Map<String, Value>>,
}

impl Bootstrap {
    pub(super) fn new(
        index: usize,
        config: &Config,
        settings: &Map<String, Value>,
        overlay: &Map<String, Value>,
    ) -> Self {
        let DesktopConfig { origin, telemetry } = &config.desktop;
        // What the gateway says of itself wins; the configuration's checks refuse these keys in an overlay.
        let mut document = wire::desktop::derive(settings, overlay);
        let mut say = |key: &str, value: Value| document.insert(key.to_owned(), value);
        say("inferenceProvider", "gateway".into());
        say("inferenceGatewayBaseUrl", origin.as_str().into());
        say("inferenceCredentialKind", "interactive".into());
        if config.kind == Kind::Code {
            say("inferenceGatewayManagedClaudeCode", true.into());
        }
        if telemetry.is_some() {
            say("otlpEndpoint", origin.as_str().into());
            say("otlpProtocol", "http/protobuf".into());
        }
        let text = Value::Object(document).to_string();
        let common = text.trim_start_matches('{').strip_suffix('}').unwrap_or_default().to_owned();
        let attribute = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
        Self { index, common, telemetry: telemetry.as_ref().map(|pairs| pairs.iter().map(attribute).collect()) }
    }

    /// The whole response body for a principal who may use `models`, good until `expires_at` (Unix seconds).
    pub fn body<'a>(&self, principal: &Principal, models: impl Iterator<Item = &'a Model>, expires_at: i64) -> Bytes {
        let mut own = Map::new();
        own.insert("inferenceModels".to_owned(), models.map(entry).collect());
        own.insert("expiresAt".to_owned(), expires_at.into());
        if let Some(attributes) = &self.telemetry {
            let mut attributes = attributes.clone();
            attributes.extend(identity(principal));
            own.insert("otlpResourceAttributes".to_owned(), Value::Object(attributes));
        }
        let own = Value::Object(own).to_string();
        let own = own.strip_suffix('}').unwrap_or(&own);
        Bytes::from(format!("{own},{}}}", self.common))
    }
}

/// A model as Desktop lists it; the label only where the operator gave one.
fn entry(model: &Model) -> Value {
    let mut entry = json!({"name": model.id});
    if model.display_name != model.id {
        entry["labelOverride"] = model.display_name.as_str().into();
    }
    if model.supports_1m {
        entry["supports1m"] = true.into();
    }
    entry
}

/// Who is calling, as attributes. A list of groups that a comma or an equal sign in a name would make ambiguous is left out,
/// as is such a subject: whoever splits the list must never see a group that nobody is in.
fn identity(principal: &Principal) -> Map<String, Value> {
    let is_plain = |text: &str| !text.contains([',', '=']);
    let mut attributes = Map::new();
    let mut say = |name: &str, value: &str| attributes.insert(name.to_owned(), value.into());
    match &principal.email {
        Some(email) => {
            say("enduser.id", email);
            say("user.email", email);
            if is_plain(&principal.sub) {
                say("enduser.sub", &principal.sub);
            }
        }
        None => drop(say("enduser.id", &principal.sub)),
    }
    if !principal.groups.is_empty() && principal.groups.iter().all(|group| is_plain(group)) {
        say("user.groups", &principal.groups.join(","));
    }
    attributes
}
