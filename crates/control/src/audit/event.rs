//! Everything that can be recorded. Names and fields are a contract with dashboards: add, never rename.

use serde::Serialize;

/// One audit event; serialised as `{"evt": <name>, ...fields}`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "evt")]
pub enum Event<'a> {
    /// The configuration was read at boot.
    #[serde(rename = "config.load")]
    ConfigLoad {
        /// The file.
        path: &'a str,
        /// Hex SHA-256 of the file's bytes.
        sha256: &'a str,
    },
    /// `POST /oauth/device_authorization`.
    #[serde(rename = "device.authorize")]
    DeviceAuthorize {
        /// `success` or `rate_limited`.
        result: &'a str,
        /// Who asked.
        client_ip: &'a str,
        /// Ties the events of one sign-in together.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<&'a str>,
        /// The application that asked, as it names itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        surface: Option<&'a str>,
    },
    /// `POST /device`, and refusals of `POST /device/deny`.
    #[serde(rename = "device.verify")]
    DeviceVerify {
        /// `redirect`, `unknown_code`, `csrf_rejected` or `rate_limited`.
        result: &'a str,
        /// Who asked.
        client_ip: &'a str,
        /// Ties the events of one sign-in together.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<&'a str>,
    },
    /// The person pressed deny.
    #[serde(rename = "device.deny")]
    DeviceDeny {
        /// `denied`.
        result: &'a str,
        /// Who pressed.
        client_ip: &'a str,
        /// Where the flow was started.
        requested_from: &'a str,
        /// When the flow was started, RFC 3339.
        requested_at: &'a str,
        /// Ties the events of one sign-in together.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<&'a str>,
    },
    /// The callback came without the cookie of the browser that confirmed the code.
    #[serde(rename = "device.callback")]
    DeviceCallback {
        /// `browser_mismatch`.
        result: &'a str,
        /// Who called.
        client_ip: &'a str,
        /// Ties the events of one sign-in together.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<&'a str>,
    },
    /// A sign-in that ended at the callback before an identity could be minted: bad state, an error of the identity
    /// provider.
    #[serde(rename = "sign_in.failed")]
    SignInFailed {
        /// `state_invalid`, `state_expired` or `idp_error`.
        reason: &'a str,
        /// Who called.
        client_ip: &'a str,
        /// The provider's error code, or what was wrong.
        err: &'a str,
        /// Ties the events of one sign-in together.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<&'a str>,
    },
    /// A sign-in was completed, or failed, at the callback.
    #[serde(rename = "session.mint")]
    SessionMint {
        /// `success` or `fail`.
        result: &'a str,
        /// The subject; on failure only when the identity provider's signature was verified.
        #[serde(skip_serializing_if = "Option::is_none")]
        sub: Option<&'a str>,
        /// The e-mail address; on failure as `sub`.
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<&'a str>,
        /// Who called.
        client_ip: &'a str,
        /// Life of the bearer.
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_hours: Option<serde_json::Number>,
        /// What kind of thing went wrong: one word to count by.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        /// What went wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        err: Option<&'a str>,
        /// Ties the events of one sign-in together.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<&'a str>,
        /// The application that asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        surface: Option<&'a str>,
        /// The session's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a str>,
    },
    /// A refresh grant.
    #[serde(rename = "session.refresh")]
    SessionRefresh {
        /// `success` or `fail`.
        result: &'a str,
        /// The subject, when known.
        #[serde(skip_serializing_if = "Option::is_none")]
        sub: Option<&'a str>,
        /// The e-mail address, when known.
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<&'a str>,
        /// Who asked.
        client_ip: &'a str,
        /// Life of the bearer.
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_hours: Option<serde_json::Number>,
        /// What went wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        err: Option<&'a str>,
        /// Where it went wrong: `token`, `session`, `token_endpoint` or `claims`.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<&'a str>,
        /// What the client was told: `invalid_grant` or `temporarily_unavailable`.
        #[serde(skip_serializing_if = "Option::is_none")]
        answer: Option<&'a str>,
        /// The session's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a str>,
    },
    /// A session ended.
    #[serde(rename = "session.end")]
    SessionEnd {
        /// The session's id.
        session: &'a str,
        /// The subject.
        sub: &'a str,
        /// The e-mail address, when known.
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<&'a str>,
        /// `signed_out`, `admin`, `idp_logout`, `idle`, `max_age`, `reuse` or `other_person` (a refresh found somebody
        /// else at the provider).
        reason: &'a str,
        /// The administrator: `admin-key:<id>` or `oidc:<sub>`.
        #[serde(skip_serializing_if = "Option::is_none")]
        actor: Option<&'a str>,
        /// Who asked for it; absent when time did it.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_ip: Option<&'a str>,
    },
    /// A refresh token was used again after its successor had been in use for a minute: one of the two was stolen.
    #[serde(rename = "session.reuse")]
    SessionReuse {
        /// The session's id.
        session: &'a str,
        /// The subject.
        sub: &'a str,
        /// The e-mail address, when known.
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<&'a str>,
        /// Who used it again.
        client_ip: &'a str,
        /// How many refreshes the session had seen when that token was issued.
        generation: i64,
    },
    /// A 401 of a bearer endpoint.
    #[serde(rename = "auth.denied")]
    AuthDenied {
        /// `missing_token`, `invalid_token`.
        reason: &'a str,
        /// The true cause: `missing`, `malformed`, `bad_signature`, `expired`, `wrong_audience`, ...
        cause: &'a str,
        /// The path, without its query.
        path: &'a str,
        /// Who asked.
        client_ip: &'a str,
    },
    /// A 403 of the address rules.
    #[serde(rename = "access.denied")]
    AccessDenied {
        /// `ip_denylist`, `ip_not_allowlisted` or `xff_unparseable`.
        reason: &'a str,
        /// The hop that could not be read.
        #[serde(skip_serializing_if = "Option::is_none")]
        xff_hop: Option<&'a str>,
        /// Who asked.
        client_ip: &'a str,
    },
    /// Managed settings were served, or found unchanged.
    #[serde(rename = "managed.serve")]
    ManagedServe {
        /// The subject.
        sub: &'a str,
        /// The e-mail address.
        email: Option<&'a str>,
        /// Index of the selected policy in the file; `null` when only telemetry settings are served.
        policy_index: Option<usize>,
        /// The document's checksum.
        checksum: &'a str,
        /// The client had it already.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        unchanged: bool,
    },
    /// A bootstrap document of Claude Desktop was served.
    #[serde(rename = "desktop_bootstrap.serve")]
    DesktopBootstrapServe {
        /// The subject.
        sub: &'a str,
        /// The e-mail address.
        email: Option<&'a str>,
        /// Index of the selected policy in the file.
        policy_index: usize,
    },
    /// Claude Desktop was turned away.
    #[serde(rename = "desktop_bootstrap.denied")]
    DesktopBootstrapDenied {
        /// `not_configured`, `policy_not_opted_in` or `no_policy_matched`.
        reason: &'a str,
        /// The subject.
        sub: &'a str,
        /// The e-mail address.
        email: Option<&'a str>,
    },
    /// A 401 of the admin API.
    #[serde(rename = "admin.denied")]
    AdminDenied {
        /// `bearer_rejected`, `invalid_key`, `no_credentials` or `rate_limited`.
        reason: &'a str,
        /// The request's method.
        method: &'a str,
        /// The path, without its query.
        path: &'a str,
        /// Who asked.
        client_ip: &'a str,
    },
    /// A cap was set.
    #[serde(rename = "admin.limit.upsert")]
    LimitUpsert(LimitChange<'a>),
    /// A cap was deleted.
    #[serde(rename = "admin.limit.delete")]
    LimitDelete(LimitChange<'a>),
    /// Somebody's personal data was removed.
    #[serde(rename = "admin.principal.erase")]
    PrincipalErase {
        /// `admin-key:<id>` or `oidc:<sub>`.
        actor: &'a str,
        /// What stands in the place of the subject in usage rows.
        pseudonym: &'a str,
        /// How many usage rows there are.
        usage_rows: usize,
        /// How many sessions ended by it.
        sessions: usize,
    },
    /// A request was refused because of money.
    #[serde(rename = "spend.blocked")]
    SpendBlocked {
        /// The subject.
        sub: &'a str,
        /// `over_limit`, `in_flight`, `unbounded` or `store_error`.
        cause: &'a str,
        /// The cap in cents.
        #[serde(skip_serializing_if = "Option::is_none")]
        cap_cents: Option<&'a str>,
        /// `user`, `rbac_group`, `organization`, `group_pool`.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<&'a str>,
        /// `daily`, `weekly`, `monthly`.
        #[serde(skip_serializing_if = "Option::is_none")]
        period: Option<&'a str>,
        /// The group whose shared budget it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        groups: Option<&'a [&'a str]>,
    },
    /// An inference request ended.
    #[serde(rename = "inference")]
    Inference(Box<InferenceEvent<'a>>),
}

/// What changed in a cap.
#[derive(Debug, Clone, Serialize)]
pub struct LimitChange<'a> {
    /// `admin-key:<id>` or `oidc:<sub>`.
    pub actor: &'a str,
    /// The cap's id.
    pub target: &'a str,
    /// `user`, `rbac_group`, `organization`.
    pub scope_type: &'a str,
    /// The user or group; empty for the organisation.
    pub scope_id: &'a str,
    /// `daily`, `weekly`, `monthly`.
    pub period: &'a str,
    /// Cents before; `null` for unlimited; absent when there was no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_amount: Option<Option<String>>,
    /// Cents now; `null` for unlimited or deleted.
    pub amount: Option<String>,
    /// The pooled budget before; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_pooled_budget: Option<serde_json::Value>,
    /// The pooled budget now; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooled_budget: Option<serde_json::Value>,
}

/// What asking one upstream came to.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptEvent<'a> {
    /// Its name.
    pub upstream: &'a str,
    /// `served`; what kept it from serving: `connect`, `timeout`, `broken`, `credential`, `usage_limit`, `not_found`,
    /// `rate_limit`, `overload`, `server_error`, `model`, `first_frame`, `status`, `unsendable`; or, when nobody waited
    /// for it any more, the request's own outcome.
    pub ended: &'a str,
    /// The status of its answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds until its response headers, or until it was given up.
    pub ms: u64,
}

/// How an inference request ended (contract A1 and R39).
#[derive(Debug, Clone, Default, Serialize)]
pub struct InferenceEvent<'a> {
    /// The subject.
    pub sub: &'a str,
    /// The e-mail address.
    pub email: Option<&'a str>,
    /// The request's path.
    pub path: &'a str,
    /// The client's model string; `null` when the request was rejected for it.
    pub model: Option<&'a str>,
    /// Name of the upstream whose answer was sent.
    pub upstream: Option<&'a str>,
    /// That upstream's request id.
    pub upstream_request_id: Option<&'a str>,
    /// That cloud's request id.
    pub upstream_cloud_request_id: Option<&'a str>,
    /// The status sent to the client.
    pub status: u16,
    /// Milliseconds from the request's arrival to its end.
    pub ms: u64,
    /// Milliseconds to the first byte of the answer's body.
    pub ttfb_ms: Option<u64>,
    /// Uncached input tokens.
    pub input_tokens: Option<u64>,
    /// Output tokens.
    pub output_tokens: Option<u64>,
    /// Tokens read from the prompt cache.
    pub cache_read_input_tokens: Option<u64>,
    /// Tokens written to the prompt cache.
    pub cache_creation_input_tokens: Option<u64>,
    /// The charge in US dollars, as decimal text written as a JSON number.
    pub cost_usd: Option<serde_json::Number>,
    /// The charge rests on an estimate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// `complete`, `client_aborted`, `upstream_aborted`, `cut`, `error` or `rejected`.
    pub outcome: &'a str,
    /// The client's session id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<&'a str>,
    /// How many upstreams were asked.
    pub attempts: u32,
    /// What each of them came to, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<AttemptEvent<'a>>,
    /// The answer was a canned one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub load_test: bool,
    /// Billing group named by the request's tags, when it is one of the caller's groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing_group: Option<&'a str>,
    /// The request's tag was not one of the caller's groups.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub billing_group_ignored: bool,
}
