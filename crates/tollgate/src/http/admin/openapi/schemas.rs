//! What the admin API says and reads: every body's shape.

use serde_json::{Map, Value, json};

use crate::http::admin::reports::{COST, Kind, USAGE, token_types};

/// A reference to one of [`all`].
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Every shape by its name.
pub(super) fn all() -> Value {
    let mut all = Map::new();
    for shapes in [words(), caps(), lists(), reports(), sessions(), others()] {
        all.extend(shapes.into_iter().map(|(name, shape)| (name.to_owned(), shape)));
    }
    Value::Object(all)
}

type Shapes = Vec<(&'static str, Value)>;

fn words() -> Shapes {
    let id = json!({"type": "string", "minLength": 1});
    vec![
        ("Period", json!({"enum": ["daily", "weekly", "monthly"], "description": "In UTC; weeks begin on Monday."})),
        ("Time", json!({"type": "string", "format": "date-time", "examples": ["2026-11-22T11:26:46.731Z"]})),
        (
            "Cents",
            json!({
                "type": "string", "pattern": "^[0-9]+$", "examples": ["500"],
                "description": "Whole US cents as text, from 0 to 9223372036854775807.",
            }),
        ),
        (
            "CentsSpent",
            json!({
                "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$", "examples": ["1.2"],
                "description": "US cents as text, with as many decimals as it takes.",
            }),
        ),
        (
            "Scope",
            json!({
                "description": "Whom a limit is for. A group's or the organisation's is each member's own, not shared.",
                "oneOf": [
                    object(json!({"type": {"const": "organization"}})),
                    object(json!({"type": {"const": "rbac_group"}, "rbac_group_id": id})),
                    object(json!({"type": {"const": "user"}, "user_id": id})),
                ],
                "examples": [{"type": "user", "user_id": "alice"}],
            }),
        ),
    ]
}

fn caps() -> Shapes {
    let pool = json!({"amount": named("Cents"), "paused": {"type": "boolean"}});
    let mut pool_shown = pool.clone();
    pool_shown["currency"] = json!({"const": "USD"});
    pool_shown["period_to_date_spend"] = named("CentsSpent");
    let of_cap = json!({
        "id": {"type": "string", "pattern": "^spl_[0-9a-f]{32}$"},
        "created_at": named("Time"),
        "updated_at": named("Time"),
        "scope": named("Scope"),
        "amount": nullable(named("Cents")),
        "currency": {"const": "USD"},
        "period": named("Period"),
    });
    let mut shown = of_cap.clone();
    shown["type"] = json!({"const": "spend_limit"});
    let pooled = "The budget that the group's members share; only at a group's monthly limit.";
    let mut shown = object(shown);
    shown["properties"]["pooled_budget"] = nullable(named("PooledBudget"));
    shown["properties"]["pooled_budget"]["description"] = pooled.into();
    let mut kept = object(of_cap);
    kept["properties"]["pooled_budget"] = nullable(object(pool));
    vec![
        ("SpendLimitSetting", setting()),
        ("SpendLimit", shown),
        ("PooledBudget", object(pool_shown)),
        ("SpendLimitKept", kept),
        ("SpendLimitDeleted", object(json!({"type": {"const": "spend_limit_deleted"}, "id": {"type": "string"}}))),
    ]
}

/// The body of a `POST`.
fn setting() -> Value {
    json!({
        "type": "object",
        "required": ["scope", "amount"],
        "properties": {
            "scope": named("Scope"),
            "amount": {
                "description": "`null` is unlimited, and must be written.",
                "oneOf": [named("Cents"), {"type": "null"}],
            },
            "period": {"$ref": "#/components/schemas/Period", "default": "monthly"},
            "currency": {"const": "USD"},
            "pooled_budget": {
                "description": "Only at a group's monthly limit. What is left out stays as it is.",
                "type": ["object", "null"],
                "properties": {
                    "amount": named("Cents"),
                    "paused": {"type": "boolean"},
                    "currency": {"const": "USD"},
                },
            },
        },
        "examples": [
            {"scope": {"type": "user", "user_id": "alice"}, "amount": "500", "period": "daily"},
            {
                "scope": {"type": "rbac_group", "rbac_group_id": "engineering"}, "amount": null,
                "pooled_budget": {"amount": "100000"},
            },
        ],
    })
}

fn lists() -> Shapes {
    let actor = object(json!({
        "type": {"const": "user_actor"},
        "user_id": {"type": "string"},
        "name": text_or_null(),
        "email_address": text_or_null(),
        "deleted": {"type": "boolean"},
    }));
    let effective = object(json!({
        "scope": named("Scope"),
        "groups": {"type": "array", "items": {"type": "string"}},
        "actor": actor,
        "amount": nullable(named("Cents")),
        "currency": {"const": "USD"},
        "period": named("Period"),
        "source": nullable(named("Scope")),
        "spend_limit_id": text_or_null(),
        "period_to_date_spend": named("CentsSpent"),
    }));
    let event = object(json!({
        "type": {"const": "audit_event"},
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "created_at": named("Time"),
        "actor": {"type": "string", "examples": ["admin-key:finance", "oidc:grace"]},
        "action": {"enum": ["spend_limit.upsert", "spend_limit.delete"]},
        "target_id": {"type": "string"},
        "before": nullable(named("SpendLimitKept")),
        "after": nullable(named("SpendLimitKept")),
        "reason": text_or_null(),
    }));
    vec![
        ("SpendLimitPage", page_of("SpendLimit")),
        ("Effective", effective),
        ("EffectivePage", object(json!({"data": array_of("Effective"), "next_page": text_or_null()}))),
        ("AuditEvent", event),
        ("AuditPage", object(json!({"data": array_of("AuditEvent"), "has_more": {"type": "boolean"}}))),
    ]
}

fn reports() -> Shapes {
    let count = json!({"type": "integer", "minimum": 0});
    let usage = json!({
        "uncached_input_tokens": count,
        "cache_creation": object(json!({"ephemeral_1h_input_tokens": count, "ephemeral_5m_input_tokens": count})),
        "cache_read_input_tokens": count,
        "output_tokens": count,
        "server_tool_use": object(json!({"web_search_requests": count})),
        "requests": count,
    });
    let cost = json!({
        "amount": named("CentsSpent"),
        "currency": {"const": "USD"},
        "cost_type": {"enum": ["tokens", "web_search", null]},
        "description": text_or_null(),
        "model": text_or_null(),
        "service_tier": text_or_null(),
        "token_type": {"enum": token_types().map(Value::from).chain([Value::Null]).collect::<Vec<_>>()},
        "context_window": text_or_null(),
        "inference_geo": text_or_null(),
        "requests": {"type": ["integer", "null"], "minimum": 0},
    });
    vec![
        ("UsageResult", result(usage, &USAGE)),
        ("UsageReport", report_of("UsageResult")),
        ("CostResult", result(cost, &COST)),
        ("CostReport", report_of("CostResult")),
    ]
}

/// With what the report can be grouped by, `null` unless it was.
fn result(mut figures: Value, kind: &Kind) -> Value {
    for (name, _) in kind.groups {
        figures[*name] = text_or_null();
    }
    object(figures)
}

fn report_of(result: &str) -> Value {
    let bucket = json!({"starting_at": named("Time"), "ending_at": named("Time"), "results": array_of(result)});
    object(json!({
        "data": {"type": "array", "items": object(bucket)},
        "has_more": {"type": "boolean"},
        "next_page": text_or_null(),
    }))
}

fn sessions() -> Shapes {
    let session = object(json!({
        "type": {"const": "session"},
        "id": {"type": "string"},
        "user_id": {"type": "string"},
        "email_address": text_or_null(),
        "issuer": {"type": "string"},
        "surface": text_or_null(),
        "client_ip": {"type": "string"},
        "created_at": named("Time"),
        "last_refreshed_at": named("Time"),
        "ended_at": nullable(named("Time")),
        "end_reason": text_or_null(),
    }));
    let person = json!({
        "type": "object", "required": ["user_id"],
        "properties": {"user_id": {"type": "string", "minLength": 1}, "all": {"enum": [false, null]}},
    });
    let everyone = json!({
        "type": "object", "required": ["all"],
        "properties": {"all": {"const": true}, "user_id": {"type": "null"}},
    });
    let revoked = object(json!({
        "type": {"const": "sessions_revoked"},
        "user_id": text_or_null(),
        "all": {"type": "boolean"},
        "ended": {"type": "integer", "minimum": 0},
    }));
    vec![
        ("Session", session),
        ("SessionPage", page_of("Session")),
        ("SessionEnded", object(json!({"type": {"const": "session_ended"}, "id": {"type": "string"}}))),
        ("Revocation", json!({"oneOf": [person, everyone], "examples": [{"user_id": "alice"}, {"all": true}]})),
        ("SessionsRevoked", revoked),
    ]
}

fn others() -> Shapes {
    let count = json!({"type": "integer", "minimum": 0});
    let erased = object(json!({
        "type": {"const": "principal_erased"},
        "pseudonym": {"type": "string"},
        "usage_rows": count,
        "spend_limits_deleted": count,
        "sessions_ended": count,
    }));
    let kinds = json!({"enum": [
        "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
        "rate_limit_error", "api_error",
    ]});
    let error = object(json!({
        "type": {"const": "error"},
        "error": object(json!({"type": kinds, "message": {"type": "string"}})),
        "request_id": {"type": "string"},
    }));
    let document = json!({"type": "object", "required": ["openapi", "paths"]});
    vec![("PrincipalErased", erased), ("Error", error), ("Document", document)]
}

/// An object in which all of these are always there.
fn object(properties: Value) -> Value {
    let names: Vec<String> = properties.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
    json!({"type": "object", "required": names, "properties": properties})
}

fn array_of(name: &str) -> Value {
    json!({"type": "array", "items": named(name)})
}

fn nullable(schema: Value) -> Value {
    json!({"oneOf": [schema, {"type": "null"}]})
}

fn text_or_null() -> Value {
    json!({"type": ["string", "null"]})
}

fn page_of(name: &str) -> Value {
    object(json!({
        "data": array_of(name),
        "has_more": {"type": "boolean"},
        "first_id": text_or_null(),
        "last_id": text_or_null(),
    }))
}
