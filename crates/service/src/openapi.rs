//! The description of all endpoints in OpenAPI 3.1, made from [`TABLE`] and the types of its
//! documents. `docs/openapi.json` is a copy that a test compares.

use std::collections::BTreeMap;

use onlyonce_http::ProblemKind;
use onlyonce_http::problem::{Happened, ReuseKey, Who};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::endpoint::{BASE, Row, TABLE};

/// The version of the endpoints: they only gain members and problems within it.
const VERSION: &str = "1.0.0";

/// The description, as it is served and checked in.
pub fn openapi() -> String {
    let (mut requests, mut answers) = generators();
    let mut paths = Map::new();
    for row in &TABLE {
        let path = format!("{BASE}{}", row.name);
        paths.insert(path, json!({ "post": operation(row, &mut requests, &mut answers) }));
    }
    let mut schemas = requests.take_definitions(true);
    schemas.extend(answers.take_definitions(true));
    schemas.insert("Problem".to_owned(), problem());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "onlyonce record service",
            "version": VERSION,
            "summary": "An operation that was asked for once happens once.",
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the service's configuration. Callers may also be \
                                    known by a client certificate, or by having the right to open \
                                    the unix socket; they then send none.",
                },
            },
        },
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

const DESCRIPTION: &str = "Every endpoint is a POST with a JSON document. Every one of them may be \
                           repeated: saying the same twice is the same. Problems are RFC 9457 \
                           documents that say who failed (`who`), whether anything happened under \
                           the key (`happened`), and whether to send the same again (`retryable`). \
                           Tell them by `type`.";

fn generators() -> (SchemaGenerator, SchemaGenerator) {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let requests = settings().for_deserialize().into_generator();
    (requests, settings().for_serialize().into_generator())
}

fn operation(row: &Row, requests: &mut SchemaGenerator, answers: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    let schema = (row.answer)(answers);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "Done.",
            "content": { "application/json": { "schema": schema } },
        }),
    );
    let mut by_status: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in row.all_problems() {
        by_status.entry(kind.row().status.as_u16()).or_default().push(kind);
    }
    for (status, kinds) in by_status {
        responses.insert(status.to_string(), refusal(&kinds));
    }
    let mut operation = json!({
        "operationId": row.name,
        "summary": row.title,
        "description": row.text,
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": (row.request)(requests) } },
        },
        "responses": responses,
    });
    if row.operator {
        operation["tags"] = json!(["operators"]);
    }
    operation
}

fn refusal(kinds: &[ProblemKind]) -> Value {
    let told: Vec<String> =
        kinds.iter().map(|kind| format!("`{}`: {}.", kind.name(), kind.row().title)).collect();
    let mut refusal = json!({
        "description": told.join("\n\n"),
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
        },
    });
    if kinds.iter().any(|kind| kind.row().waiting_helps) {
        refusal["headers"] = json!({
            "Retry-After": {
                "description": "In how many seconds to ask again.",
                "schema": { "type": "integer", "minimum": 1 },
            },
        });
    }
    refusal
}

fn problem() -> Value {
    let happened = [Happened::Yes, Happened::No, Happened::Unknown].map(Happened::name);
    let reuse = [ReuseKey::Must, ReuseKey::MustNot].map(ReuseKey::name);
    json!({
        "type": "object",
        "description": "A problem (RFC 9457). Further members say more about its type.",
        "required": ["type", "title", "status", "detail", "retryable", "happened", "who"],
        "properties": {
            "type": { "type": "string", "description": "Which problem it is." },
            "title": { "type": "string" },
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": { "type": "string", "description": "What is wrong with this request." },
            "retryable": {
                "type": "boolean",
                "description": "Whether the same request may succeed later unchanged.",
            },
            "happened": {
                "enum": happened,
                "description": "Whether anything has happened under the key, in any attempt.",
            },
            "who": { "enum": Who::ALL.map(Who::name), "description": "Who failed." },
            "reuse_key": {
                "enum": reuse,
                "description": "`must`: another key could run the operation twice. `must_not`: \
                                this key can never be right for this request.",
            },
            "field": {
                "type": "string",
                "description": "The member of the request that is wrong, as a path.",
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("ONLYONCE_BLESS").is_some() {
            std::fs::write(path, openapi()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == openapi(), "docs/openapi.json is old: run cargo xtask docs");
    }

    #[test]
    fn rows_stand_in_the_order_of_their_endpoints_and_all_references_lead_somewhere() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.endpoint as usize, at, "{}", row.name);
        }
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let text = openapi();
        let references = text.split("\"$ref\": \"#").skip(1);
        for reference in references.map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
