//! What can be asked of the admin API: every path, method and parameter.

use serde_json::{Value, json};

use super::schemas::named;
use crate::http::admin::reports::{COST, Kind, USAGE};

/// A method of a path.
pub(super) struct Operation {
    pub(super) path: &'static str,
    /// In lower case.
    pub(super) method: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Value>,
    /// The schema of the request's body.
    pub(super) body: Option<&'static str>,
    /// The schema of the answer,
    pub(super) answer: &'static str,
    /// and what it is.
    pub(super) told: &'static str,
    /// Whether the answer can be had as CSV.
    pub(super) csv: bool,
    /// Statuses beside those that every operation can have.
    pub(super) refusals: &'static [&'static str],
}

const BODY: &[&str] = &["411", "413"];
const BY_ID: &[&str] = &["404"];

/// Every operation, in the order of the document.
pub(super) fn all() -> Vec<Operation> {
    let mut all = caps();
    all.extend(reports());
    all.extend(sessions());
    all.push(Operation {
        path: "/v1/organizations/principals/{sub}",
        method: "delete",
        id: "erasePrincipal",
        tag: "People",
        summary: "Forget a person: sessions end, names go, and usage is kept under a pseudonym.",
        parameters: vec![path("sub", "The person's `user_id`.")],
        body: None,
        answer: "PrincipalErased",
        told: "What was done.",
        csv: false,
        refusals: BY_ID,
    });
    all.push(Operation {
        path: "/v1/openapi.json",
        method: "get",
        id: "describeAdminApi",
        tag: "About",
        summary: "This document.",
        parameters: vec![],
        body: None,
        answer: "Document",
        told: "An OpenAPI document.",
        csv: false,
        refusals: &[],
    });
    all
}

fn caps() -> Vec<Operation> {
    const TAG: &str = "Spend limits";
    let scope_type = json!({"enum": ["organization", "rbac_group", "user"]});
    vec![
        Operation {
            path: "/v1/organizations/spend_limits",
            method: "get",
            id: "listSpendLimits",
            tag: TAG,
            summary: "List spend limits, oldest first.",
            parameters: [
                cursors(),
                vec![limit(20, 1000), query("scope_type", scope_type, "Only limits of this kind.")],
            ]
            .concat(),
            body: None,
            answer: "SpendLimitPage",
            told: "A page of the list.",
            csv: false,
            refusals: &[],
        },
        Operation {
            path: "/v1/organizations/spend_limits",
            method: "post",
            id: "setSpendLimit",
            tag: TAG,
            summary: "Set a spend limit. There is one for each scope and period: a second one replaces the amount.",
            parameters: vec![],
            body: Some("SpendLimitSetting"),
            answer: "SpendLimit",
            told: "The limit as it is now.",
            csv: false,
            refusals: BODY,
        },
        Operation {
            path: "/v1/organizations/spend_limits/{id}",
            method: "get",
            id: "getSpendLimit",
            tag: TAG,
            summary: "Show one spend limit.",
            parameters: vec![path("id", "The limit's `id`.")],
            body: None,
            answer: "SpendLimit",
            told: "The limit.",
            csv: false,
            refusals: BY_ID,
        },
        Operation {
            path: "/v1/organizations/spend_limits/{id}",
            method: "delete",
            id: "deleteSpendLimit",
            tag: TAG,
            summary: "Delete a spend limit.",
            parameters: vec![path("id", "The limit's `id`.")],
            body: None,
            answer: "SpendLimitDeleted",
            told: "It is gone.",
            csv: false,
            refusals: BY_ID,
        },
        Operation {
            path: "/v1/organizations/spend_limits/effective",
            method: "get",
            id: "listEffectiveSpendLimits",
            tag: TAG,
            summary: "List people with the limit that counts for each of them, and what they spent.",
            parameters: vec![
                words("period", named("Period"), "Only these periods; all three when left out."),
                words(
                    "user_ids",
                    json!({"type": "string", "minLength": 1}),
                    "These people, in this order, known or not; no other parameter but `period[]` counts then.",
                ),
                query("q", json!({"type": "string"}), "Part of an id, a name or an e-mail address."),
                query(
                    "sort",
                    json!({"enum": ["spend_desc"]}),
                    "Who spent most comes first; needs exactly one `period[]`. By id when left out.",
                ),
                limit(20, 1000),
                page(),
            ],
            body: None,
            answer: "EffectivePage",
            told: "A row for each person and period.",
            csv: false,
            refusals: &[],
        },
        Operation {
            path: "/v1/organizations/spend_limits/audit",
            method: "get",
            id: "listSpendLimitChanges",
            tag: TAG,
            summary: "List who changed which spend limit, newest first.",
            parameters: vec![
                query(
                    "after_id",
                    json!({"type": "string", "pattern": "^[0-9]{1,18}$"}),
                    "Only what is older than this event.",
                ),
                limit(100, 1000),
            ],
            body: None,
            answer: "AuditPage",
            told: "A page of the list.",
            csv: false,
            refusals: &[],
        },
    ]
}

fn reports() -> [Operation; 2] {
    let report = |path, id, summary, kind, answer| Operation {
        path,
        method: "get",
        id,
        tag: "Reports",
        summary,
        parameters: of_report(kind),
        body: None,
        answer,
        told: "One bucket of time after the other.",
        csv: true,
        refusals: &[],
    };
    [
        report(
            "/v1/organizations/usage_report/messages",
            "reportUsage",
            "Report tokens and requests.",
            &USAGE,
            "UsageReport",
        ),
        report("/v1/organizations/cost_report", "reportCost", "Report what was spent.", &COST, "CostReport"),
    ]
}

fn of_report(kind: &Kind) -> Vec<Value> {
    let widths: Vec<&str> = kind.widths.iter().map(|(name, ..)| *name).collect();
    let pages = kind.widths.iter().map(|(name, _, usual, most)| format!("{usual} of at most {most} for {name}"));
    let pages = format!("Buckets on a page: {}.", pages.collect::<Vec<_>>().join(", "));
    let most = kind.widths.iter().map(|(.., most)| *most).max();
    let groups: Vec<&str> = kind.groups.iter().map(|(name, _)| *name).collect();
    let time = json!({"type": "string", "format": "date-time"});
    let mut starting_at = query("starting_at", time.clone(), "The first bucket holds it.");
    starting_at["required"] = true.into();
    starting_at["example"] = "2026-11-20T00:00:00Z".into();
    let mut parameters = vec![
        starting_at,
        query(
            "ending_at",
            time,
            "The first bucket that is left out holds it; when missing, the present one is the last.",
        ),
        query("bucket_width", json!({"enum": widths, "default": "1d"}), "How long a bucket is, in UTC."),
        words("group_by", json!({"enum": groups}), "One result for each value of these."),
        query("limit", json!({"type": "integer", "minimum": 1, "maximum": most}), &pages),
        query("format", json!({"enum": ["json", "csv"]}), "Decides before the `accept` header."),
        page(),
    ];
    let any = json!({"type": "string"});
    parameters
        .extend(kind.filters.iter().map(|(name, _)| words(name, any.clone(), "Only requests with one of these.")));
    parameters
}

fn sessions() -> [Operation; 3] {
    const TAG: &str = "Sessions";
    [
        Operation {
            path: "/v1/organizations/sessions",
            method: "get",
            id: "listSessions",
            tag: TAG,
            summary: "List sign-ins, oldest first.",
            parameters: [
                cursors(),
                vec![
                    limit(20, 1000),
                    query("user_id", json!({"type": "string"}), "Only this person's."),
                    query("active", json!({"type": "boolean"}), "Only those that can, or cannot, be used any more."),
                ],
            ]
            .concat(),
            body: None,
            answer: "SessionPage",
            told: "A page of the list.",
            csv: false,
            refusals: &[],
        },
        Operation {
            path: "/v1/organizations/sessions/{id}",
            method: "delete",
            id: "endSession",
            tag: TAG,
            summary: "End one session.",
            parameters: vec![path("id", "The session's `id`.")],
            body: None,
            answer: "SessionEnded",
            told: "It has ended.",
            csv: false,
            refusals: BY_ID,
        },
        Operation {
            path: "/v1/organizations/sessions/revoke",
            method: "post",
            id: "revokeSessions",
            tag: TAG,
            summary: "End all sessions of a person, or of everyone, with all bearers given out until now.",
            parameters: vec![],
            body: Some("Revocation"),
            answer: "SessionsRevoked",
            told: "They have ended.",
            csv: false,
            refusals: BODY,
        },
    ]
}

fn path(name: &str, description: &str) -> Value {
    let schema = json!({"type": "string", "minLength": 1});
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

/// `name[]=a&name[]=b`.
fn words(name: &str, item: Value, description: &str) -> Value {
    let mut parameter = query(&format!("{name}[]"), json!({"type": "array", "items": item}), description);
    parameter["style"] = "form".into();
    parameter["explode"] = true.into();
    parameter
}

fn limit(usual: usize, most: usize) -> Value {
    let schema = json!({"type": "integer", "minimum": 1, "maximum": most, "default": usual});
    query("limit", schema, "How many at most.")
}

fn page() -> Value {
    query("page", json!({"type": "string"}), "`next_page` of the page before.")
}

fn cursors() -> Vec<Value> {
    let id = json!({"type": "string"});
    vec![
        query("after_id", id.clone(), "Go on after this id, usually `last_id` of the page before."),
        query("before_id", id, "The page that ends before this id; not together with `after_id`."),
    ]
}
