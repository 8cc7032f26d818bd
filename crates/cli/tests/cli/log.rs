//! The log and the counts: each outcome can be traced, and nothing in them is a secret.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::caller::order;
use crate::process::{Folder, Proxy, onlyonce};
use crate::upstream::{Manner, Upstream};

pub(crate) const CONFIG: &str = "[policy]\nwait = \"50ms\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                      token = \"token-of-the-operators\"\n";
/// What must never be written: keys, credentials, bodies, the operators' token.
const SECRETS: [&str; 5] = ["sesame", "anna", "blender", "kettle", "token-of-the-operators"];

/// The page of counts.
pub(crate) fn metrics(proxy: &Proxy) -> String {
    operators(proxy, "/metrics")
}

/// A page of the port for operators.
pub(crate) fn operators(proxy: &Proxy, path: &str) -> String {
    let hello = proxy.hello();
    let from = hello.split_once("operators at http://").unwrap().1;
    let mut stream = TcpStream::connect(from.lines().next().unwrap()).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         authorization: Bearer token-of-the-operators\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// The ids of the keys, by their states.
fn id(folder: &Folder, state: &str) -> (String, String) {
    let list = ["keys", "list", "--json", "--state", state, "--store", &folder.store()];
    let listed = onlyonce(list).done();
    let view: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    (view["id"].as_str().unwrap().to_owned(), view["fence"].to_string())
}

/// Case B142: each outcome is logged with the key's id, the path, how far it got and how long ago
/// the first attempt was; no key, credential or body is, and no label grows with the keys.
#[test]
fn every_outcome_can_be_traced_and_no_secret_is_written() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let config = folder.write("onlyonce.toml", CONFIG);
    let arguments = ["--config", &config, "--log", "json", "--log-level", "info"];
    let proxy = Proxy::start_with(&folder.store(), &upstream, &arguments);
    let address = proxy.address;
    let by_anna = |key: &str| order(key).by("Bearer anna");

    by_anna("sesame-1").send(address).ran();
    by_anna("sesame-1").send(address).replayed();
    by_anna("sesame-1").of("kettle").send(address).is_problem(422, "key-reused");
    by_anna("sesame 2").send(address).is_problem(400, "key-invalid");
    let (answered, _) = id(&folder, "completed");

    upstream.manner(Manner::Hold);
    let begun = by_anna("sesame-3").begin(address);
    upstream.began("sesame-3");
    by_anna("sesame-3").send(address).is_problem(409, "request-in-progress");
    upstream.let_go();
    begun.answer().unwrap().ran();

    upstream.manner(Manner::Cut);
    by_anna("sesame-4").send(address).is_problem(502, "outcome-unknown");
    by_anna("sesame-4").send(address).is_problem(409, "outcome-unknown");
    let (unknown, fence) = id(&folder, "unknown");
    let store = folder.store();
    let again = ["keys", "resolve", &unknown, "--fence", &fence, "--run-again", "--why", "it may"];
    onlyonce(again.into_iter().chain(["--store", &store])).done();
    upstream.manner(Manner::Answer(0));
    by_anna("sesame-4").send(address).ran();

    let page = metrics(&proxy);
    proxy.signal(Signal::TERM);
    let log = proxy.ended().err;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let answers: Vec<Value> =
        lines.filter(|line| line["fields"]["message"] == "answered").collect();
    let mut told = BTreeMap::<_, Vec<(String, String)>>::new();
    for answer in &answers {
        assert_eq!(answer["span"]["path"], "/orders", "{answer}");
        let field = |name: &str| answer["fields"][name].as_str().unwrap_or_default().to_owned();
        told.entry(field("key")).or_default().push((field("idempotency"), field("problem")));
        // Whoever came after another says how long after.
        let first = ["executed", "not-evaluated"].contains(&&*field("idempotency"))
            || answer["fields"]["status"] == 502;
        assert_eq!(answer["fields"]["age_ms"].is_u64(), !first, "{answer}");
    }
    let of = |key: &str| {
        told[key].iter().map(|(says, problem)| format!("{says} {problem}")).collect::<Vec<_>>()
    };
    assert_eq!(of(&answered), ["executed ", "replayed ", "mismatch key-reused"]);
    let doubt = "unknown outcome-unknown";
    assert_eq!(of(&unknown), [doubt, doubt, "executed "]);
    let third = told.values().find(|it| it.iter().any(|(says, _)| says == "in-progress"));
    assert_eq!(third.unwrap().len(), 2, "{told:?}");
    assert_eq!(of(""), ["not-evaluated key-invalid"]);
    let second = answers.iter().find(|it| it["fields"]["attempt"] == 2).unwrap();
    assert!(second["fields"]["fence"].is_u64() && second["fields"]["key"] == unknown.as_str());
    assert!(log.contains("outcome unknown"), "{log}");

    for text in [&log, &page] {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }
    assert!(page.contains("onlyonce_unknown_total{kind=\"connection-lost\"} 1"), "{page}");
    assert!(told.keys().all(|key| key.is_empty() || !page.contains(key)), "{page}");
}
