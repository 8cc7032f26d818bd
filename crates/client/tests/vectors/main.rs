//! The vectors of clients/vectors.json against the real programs: what every client does.

#![allow(clippy::unwrap_used, reason = "a test fails so")]

mod world;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use onlyonce_client::{
    Answer, Attempt, Client, Failed, Failure, Field, FileIntents, IntentStore as _, OnceError,
    Options, Retrying, RetryingClient, json_request,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use world::{LIMIT, World, vectors};

/// What an operation fails with that has nothing to do with onlyonce.
#[derive(Debug)]
struct Boom(String);

impl fmt::Display for Boom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operation returns: JSON, or what has no form in it.
#[derive(Debug)]
struct Got(Option<Value>);

impl Serialize for Got {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(to),
            None => Err(serde::ser::Error::custom("it has no form")),
        }
    }
}

impl<'de> Deserialize<'de> for Got {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Value::deserialize(from).map(Some).map(Self)
    }
}

/// What came of a step.
enum Came {
    Once(Result<Got, Failed<Got, Boom>>),
    Sent(Result<Answer, OnceError>),
}

struct Scene {
    world: Arc<World>,
    folder: TempDir,
    retrying: RetryingClient,
    begun: HashMap<String, JoinHandle<Came>>,
}

fn time(of: &Value, name: &str) -> Option<Duration> {
    of.get(name)?.as_u64().map(Duration::from_millis)
}

fn retrying(folder: &TempDir) -> RetryingClient {
    RetryingClient::new(FileIntents::new(folder.path()).unwrap())
}

impl Scene {
    async fn new(world: &Arc<World>) -> Self {
        world.ask(&json!({"do": "reset"})).await;
        let folder = tempfile::tempdir().unwrap();
        let retrying = retrying(&folder);
        Self { world: Arc::clone(world), folder, retrying, begun: HashMap::new() }
    }

    async fn step(&mut self, step: &Value) {
        if step.get("once").is_some() || step.get("send").is_some() {
            let work = match step.get("once") {
                Some(asked) => tokio::spawn(once(Arc::clone(&self.world), asked.clone())),
                None => {
                    let (world, retrying) = (Arc::clone(&self.world), self.retrying.clone());
                    tokio::spawn(send(world, retrying, step["send"].clone()))
                }
            };
            match step.get("begin") {
                Some(name) => drop(self.begun.insert(name.to_string(), work)),
                None => came(work, &step["want"]).await,
            }
        } else if let Some(name) = step.get("join") {
            came(self.begun.remove(&name.to_string()).unwrap(), &step["want"]).await;
        } else if let Some(asked) = step.get("world") {
            let told = self.world.ask(asked).await;
            for (name, wanted) in step.get("want").and_then(Value::as_object).into_iter().flatten()
            {
                assert_eq!(&told[name], wanted, "{name} of {told}");
            }
        } else if step.get("restart_client").is_some() {
            // All that a new process has of the old one is the folder.
            self.retrying = retrying(&self.folder);
        } else if let Some(intent) = step.get("forget") {
            self.retrying.forget(intent.as_str().unwrap()).await.unwrap();
        } else if let Some(seed) = step.get("seed") {
            let (intent, key) = (&seed["intent"], seed["key"].as_str().unwrap());
            let store = FileIntents::new(self.folder.path()).unwrap();
            store.take(intent.as_str().unwrap(), &|| key.to_owned()).unwrap();
        } else {
            panic!("a step that is not known");
        }
    }
}

async fn once(world: Arc<World>, asked: Value) -> Came {
    let token = asked.get("token").and_then(Value::as_str).unwrap_or(&world.token);
    let given = &asked["options"];
    let mut options = Options { lease: time(given, "lease_ms"), ..Options::default() };
    options.wait = time(given, "wait_ms").unwrap_or(options.wait);
    options.patience = time(given, "patience_ms").unwrap_or(options.patience);
    options.prepared = given["prepared"] == true;
    let client = Client::new(&world.service).unwrap().with_token(token).unwrap();
    let (key, acts) = (asked["key"].as_str().unwrap(), asked["acts"].as_array().unwrap());
    let inputs = asked.get("inputs").cloned().unwrap_or_default();
    let operation = async |attempt| acted(&world, attempt, key, acts).await;
    let client = client.with_options(options);
    Came::Once(client.once(key, Field::try_from(inputs).unwrap(), operation).await)
}

async fn acted(
    world: &World,
    attempt: Attempt,
    key: &str,
    acts: &[Value],
) -> Result<Got, Failure<Boom>> {
    for act in acts {
        if act == "effect" {
            world.ask(&json!({"do": "effect", "key": key})).await;
        } else if let Some(asked) = act.get("world") {
            world.ask(asked).await;
        } else if act.get("commit").is_some() {
            attempt.commit().await.unwrap();
        } else if let Some(evidence) = act.get("note") {
            attempt.note(evidence.as_str().unwrap()).await.unwrap();
        } else if act.get("until_lost").is_some() {
            timeout(LIMIT, attempt.lost()).await.unwrap();
            assert!(attempt.is_lost());
        } else if let Some(text) = act.get("raise") {
            return Err(Boom(text.as_str().unwrap().to_owned()).into());
        } else if act.get("did_not_happen").is_some() {
            return Err(Failure::DidNotHappen(Boom("refused before anything was sent".into())));
        } else if act.get("return_no_json").is_some() {
            return Ok(Got(None));
        } else if let Some(letters) = act.get("return_letters").and_then(Value::as_u64) {
            return Ok(Got(Some("x".repeat(usize::try_from(letters).unwrap()).into())));
        } else {
            return Ok(Got(Some(act["return"].clone())));
        }
    }
    panic!("the acts have no end");
}

async fn send(world: Arc<World>, retrying: RetryingClient, asked: Value) -> Came {
    let given = &asked["options"];
    let mut options = Retrying::default();
    options.patience = time(given, "patience_ms").unwrap_or(options.patience);
    options.attempt_time = time(given, "attempt_ms").unwrap_or(options.attempt_time);
    options.retry_after_max = time(given, "retry_after_max_ms").unwrap_or(options.retry_after_max);
    let request = json_request(&format!("{}/orders", world.proxy), &asked["body"]).unwrap();
    let intent = asked["intent"].as_str().unwrap();
    Came::Sent(retrying.with_options(options).send(intent, request).await)
}

async fn came(work: JoinHandle<Came>, want: &Value) {
    let came = timeout(LIMIT, work).await.expect("it takes too long").unwrap();
    match came {
        Came::Once(Ok(got)) => returned(&got.0.unwrap(), want),
        Came::Sent(Ok(answer)) => answered(&answer, want),
        Came::Once(Err(Failed::CannotTell(Boom(text)))) => {
            assert_eq!(*want, json!({"raises": text}))
        }
        Came::Once(Err(Failed::DidNotHappen(_))) => {
            assert_eq!(*want, json!({"error": "DidNotHappen"}));
        }
        Came::Once(Err(Failed::Refused(error))) | Came::Sent(Err(error)) => {
            failed(&error, None, want);
        }
        Came::Once(Err(Failed::Happened { result, error })) => failed(&error, result.0, want),
    }
}

fn returned(value: &Value, want: &Value) {
    if let Some(letters) = want.get("letters").and_then(Value::as_u64) {
        let letters = usize::try_from(letters).unwrap();
        assert!(value.as_str().is_some_and(|it| *it == "x".repeat(letters)));
    } else if let Some(bytes) = want.get("bytes") {
        let all = value.as_array().unwrap().iter();
        let hex: String = all.map(|it| format!("{:02x}", it.as_u64().unwrap())).collect();
        assert_eq!(*bytes, hex);
    } else {
        assert_eq!(*want, json!({"returns": value}));
    }
}

fn answered(answer: &Answer, want: &Value) {
    assert_eq!(want["status"], answer.status, "{answer:?}");
    if let Some(mark) = want.get("mark").and_then(Value::as_str) {
        assert_eq!(answer.idempotency_status(), Some(mark));
        assert_eq!(answer.is_replayed(), mark == "replayed");
    }
    if let Some(json) = want.get("json") {
        assert_eq!(*json, answer.json::<Value>().unwrap());
    }
}

fn failed(error: &OnceError, result: Option<Value>, want: &Value) {
    for (name, wanted) in want.as_object().unwrap() {
        let ours = match name.as_str() {
            "error" => json!(error.kind().name()),
            "happened" => json!(error.happened().name()),
            "retryable" => json!(error.is_retryable()),
            "who" => json!(error.who().name()),
            "reuse_key" => json!(error.reuse_key().map(|it| it.name())),
            "problem_name" => json!(error.problem_name()),
            "result" => json!(result),
            other => panic!("no member {other}"),
        };
        assert_eq!(ours, *wanted, "{name} of {error:?}");
    }
    assert!(want.get("error").is_some(), "{error:?}");
}

/// Tries all scenarios of a kind, and names those that fail.
async fn all(kind: &str) {
    let world = Arc::new(World::start().await);
    let vectors = vectors();
    let scenarios = vectors[kind].as_array().unwrap();
    assert!(10 < scenarios.len());
    let mut failed = Vec::new();
    for scenario in scenarios {
        let (world, steps) = (Arc::clone(&world), scenario["steps"].clone());
        let played = tokio::spawn(async move {
            let mut scene = Scene::new(&world).await;
            for step in steps.as_array().unwrap() {
                println!("{step}");
                scene.step(step).await;
            }
        });
        if played.await.is_err() {
            failed.push(scenario["name"].to_string());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_are_run_once_as_with_every_client() {
    all("once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_are_sent_once_as_with_every_client() {
    all("send").await;
}
