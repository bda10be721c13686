//! `/v1/openapi.json`: the admin API described for programs (OpenAPI 3.1). What can be asked for stands in
//! `openapi/operations.rs`, what is said in `openapi/schemas.rs`. This room decides nothing: a test holds it against the
//! routes, and the integration tests against real answers.

mod operations;
mod schemas;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use self::operations::{Operation, all};
use super::{Error, json};

pub(super) async fn show() -> Result<Response, Error> {
    Ok(json(StatusCode::OK, &document()))
}

/// The whole document.
fn document() -> Value {
    let mut paths = Map::new();
    for operation in all() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(&operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Spend limits, reports, sessions. Present when the gateway is configured with `admin`. Every \
                answer carries a `request-id`. Unknown parameters and fields are left aside.",
        },
        "security": [{"key": []}, {"bearer": []}],
        "tags": [{"name": "Spend limits"}, {"name": "Reports"}, {"name": "Sessions"}, {"name": "People"}, {"name": "About"}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "apiKey", "in": "header", "name": "x-api-key",
                    "description": "One of `admin.read_keys` for GET, one of `admin.write_keys` for everything. It decides \
                        alone: a bearer beside it is not looked at.",
                },
                "bearer": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "The gateway's bearer of somebody in one of `admin.admin_groups`: for everything.",
                },
            },
            "headers": {
                "request-id": {
                    "description": "Names the request; errors repeat it in their body.",
                    "schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"},
                },
            },
            "schemas": schemas::all(),
            "responses": refusals(),
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let mut responses = Map::new();
    let mut content = json!({"application/json": {"schema": schemas::named(operation.answer)}});
    let mut headers = json!({"request-id": {"$ref": "#/components/headers/request-id"}});
    if operation.csv {
        content["text/csv"] = json!({"schema": {"type": "string"}});
        headers["x-next-page"] = json!({
            "description": "`next_page`, of a CSV that is not the last.",
            "schema": {"type": "string"},
        });
    }
    let answer = json!({"description": operation.told, "headers": headers, "content": content});
    responses.insert("200".to_owned(), answer);
    let changes = operation.method != "get";
    let common = [(true, "400"), (true, "401"), (changes, "403"), (true, "429"), (true, "500")];
    let common = common.iter().filter(|(applies, _)| *applies).map(|(_, status)| *status);
    for status in common.chain(operation.refusals.iter().copied()) {
        responses.insert(status.to_owned(), json!({"$ref": format!("#/components/responses/{status}")}));
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": operation.parameters,
        "responses": responses,
    });
    if let Some(body) = operation.body {
        let content = json!({"application/json": {"schema": schemas::named(body)}});
        described["requestBody"] = json!({"required": true, "content": content});
    }
    described
}

fn refusals() -> Value {
    let refusal = |description: &str| {
        json!({
            "description": description,
            "headers": {"request-id": {"$ref": "#/components/headers/request-id"}},
            "content": {"application/json": {"schema": schemas::named("Error")}},
        })
    };
    let mut too_many = refusal("Too many wrong credentials came from this address.");
    too_many["headers"]["retry-after"] = json!({
        "description": "Seconds until the next try may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    });
    json!({
        "400": refusal("The request is wrong; the message names the field. Nothing was changed."),
        "401": refusal("No credentials, or not an administrator's."),
        "403": refusal("A read key cannot change anything."),
        "404": refusal("There is nothing with this id."),
        "411": refusal("A body needs a `content-length`."),
        "413": refusal("The body is too large."),
        "429": too_many,
        "500": refusal("The gateway or its database failed; try again later."),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::admin::endpoints;

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let served: BTreeSet<_> =
            endpoints().iter().map(|(path, method, _)| format!("{} {path}", method.as_str().to_lowercase())).collect();
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let told = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        });
        assert_eq!(served, told.collect());
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_path_parameter_is_described() {
        let document = document();
        let text = document.to_string();
        let mut references = 0;
        for reference in text.split(r##""$ref":"#"##).skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            references += 1;
        }
        assert!(references > 50, "{references}");
        for operation in all() {
            let named =
                |parameter: &Value| operation.path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap()));
            let in_path = operation.parameters.iter().filter(|parameter| parameter["in"] == "path");
            assert_eq!(in_path.filter(|parameter| named(parameter)).count(), operation.path.matches('{').count());
        }
    }

    #[test]
    fn the_document_in_the_docs_is_the_one_that_is_served() {
        let text = format!("{:#}\n", document());
        assert!(
            crate::config::reference::is_current("admin.openapi.json", &text),
            "stale: run this test with UPDATE_DOCS=1"
        );
    }
}
