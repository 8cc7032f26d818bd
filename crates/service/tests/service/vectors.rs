//! `docs/service-vectors.json`: what every client may rely on, run against the service.

use std::collections::HashMap;

use onlyonce_service::{Config, Credential, Listen};
use serde_json::Value;

use crate::world::{World, socket};

/// The same with what was kept in place of its names.
fn filled(value: &Value, kept: &HashMap<String, Value>) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some(name) => kept[name].clone(),
            None => value.clone(),
        },
        Value::Array(values) => values.iter().map(|it| filled(it, kept)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, it)| (name.clone(), filled(it, kept))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[tokio::test]
async fn what_clients_are_told_is_what_the_vectors_say() {
    let folder = tempfile::tempdir().unwrap();
    let listen = Listen::Unix(socket(folder.path()));
    let world = World::with(Config::for_one(listen, Credential::Socket)).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/service-vectors.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut steps = 0;
    for scenario in vectors["scenarios"].as_array().unwrap() {
        let mut kept = HashMap::new();
        for step in scenario["steps"].as_array().unwrap() {
            let body = filled(&step["body"], &kept);
            let answer = world.stranger().post(step["post"].as_str().unwrap(), &body).await;
            let told = answer.json();
            assert_eq!(answer.status, step["status"], "{}: {step} {told}", scenario["name"]);
            for (member, value) in step["told"].as_object().into_iter().flatten() {
                let value = filled(value, &kept);
                assert_eq!(told[member], value, "{}: {step} {told}", scenario["name"]);
            }
            for (name, member) in step["keep"].as_object().into_iter().flatten() {
                kept.insert(name.clone(), told[member.as_str().unwrap()].clone());
            }
            steps += 1;
        }
    }
    assert!(40 < steps, "{steps} steps");
}
