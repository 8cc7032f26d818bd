//! `onlyonce serve` as a user runs it: killed at any time, on a port and on a socket, with the
//! operator's commands beside it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::process::{Folder, Service, onlyonce, until};

const TOKEN: &str = "a-token-of-enough-letters";

/// A stream to a service.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connect(url: &str) -> Box<dyn Stream> {
    match url.strip_prefix("unix:") {
        Some(path) => Box::new(UnixStream::connect(path).unwrap()),
        None => Box::new(TcpStream::connect(url.trim_start_matches("http://")).unwrap()),
    }
}

/// Asks an endpoint and leaves the answer for later.
fn begin(url: &str, name: &str, body: &Value) -> Box<dyn Stream> {
    let (mut stream, body) = (connect(url), body.to_string());
    let head = format!("POST /v1/{name} HTTP/1.1\r\nhost: records\r\nconnection: close\r\n");
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    let length = format!("content-length: {}\r\n\r\n", body.len());
    // A socket without callers lets its owner in, and a token there would have to be a right one.
    let token = if url.starts_with("unix:") { "" } else { &token };
    stream.write_all(format!("{head}{token}{length}{body}").as_bytes()).unwrap();
    stream
}

/// Asks an endpoint: the status and the document.
pub(crate) fn ask(url: &str, name: &str, body: &Value) -> (u16, Value) {
    let mut text = String::new();
    begin(url, name, body).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

pub(crate) fn claim(key: &str, attempt: u32) -> Value {
    json!({ "key": key, "claim_id": format!("{attempt:032x}"), "fingerprint": "f" })
}

pub(crate) fn token(folder: &Folder) -> String {
    let path = folder.write("token", TOKEN);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// On a free port, with one caller.
fn start(folder: &Folder) -> Service {
    let (store, token) = (folder.store(), token(folder));
    Service::start(&["--listen", "127.0.0.1:0", "--token-file", &token, "--store", &store])
}

#[test]
fn a_service_that_is_killed_at_any_moment_loses_no_claim_and_no_reply() {
    let (folder, orders) = (Folder::with_store(), AtomicUsize::new(0));
    for round in 0..4_u32 {
        let key = format!("tap {round}");
        let service = start(&folder);
        // The claim is on its way when the service dies, or was just made durable.
        let mut begun = begin(&service.url, "claim", &claim(&key, 1));
        if round % 2 == 0 {
            let mut first = [0; 1];
            begun.read_exact(&mut first).unwrap();
        }
        service.kill();
        let service = start(&folder);
        let (status, granted) = ask(&service.url, "claim", &claim(&key, 1));
        assert_eq!((status, &granted["outcome"]), (200, &json!("granted")), "{granted}");
        assert_eq!(granted["attempt"], 1, "the same claim, not another one: {granted}");
        let (status, other) = ask(&service.url, "claim", &claim(&key, 2));
        assert_eq!(status, 409, "{other}");
        // Its holder lives, and does what it was granted, while the service dies again.
        service.kill();
        let order = orders.fetch_add(1, Ordering::SeqCst);
        let service = start(&folder);
        let reply = json!({ "status": 201, "json": { "order": order } });
        let done = json!({ "key": key, "fence": granted["fence"], "reply": reply });
        drop(begin(&service.url, "complete", &done));
        service.kill();
        let service = start(&folder);
        assert_eq!(ask(&service.url, "complete", &done).0, 200);
        service.kill();
        let service = start(&folder);
        let (_, told) = ask(&service.url, "claim", &claim(&key, 3));
        assert_eq!(
            (&told["outcome"], &told["reply"]["json"]["order"]),
            (&json!("replay"), &json!(order))
        );
        service.stop();
    }
    assert_eq!(orders.load(Ordering::SeqCst), 4);
}

#[test]
fn a_socket_needs_no_token_and_operators_have_their_commands_beside_it() {
    let folder = Folder::with_store();
    let (store, socket) = (folder.store(), folder.path("records.sock").display().to_string());
    let service = Service::start(&["--unix", &socket, "--store", &store]);
    let (_, granted) = ask(&service.url, "claim", &claim("tap", 1));
    let said = json!({ "key": "tap", "fence": granted["fence"] });
    assert_eq!(ask(&service.url, "abandon", &said).0, 200);
    let listed = onlyonce(["keys", "list", "--state", "unknown", "--json", "--store", &store]);
    let record: Value = serde_json::from_str(listed.done().trim()).unwrap();
    assert_eq!(record["fence"], granted["fence"]);
    let (_, ours) = ask(&service.url, "get", &json!({ "key": "tap" }));
    assert_eq!(record["id"], ours["id"]);
    // A reply as the command writes it is one that the service can tell.
    let reply = "HTTP/1.1 201 Created\ncontent-type: application/json\n\n{\"order\": 7829}";
    let file = folder.write("reply.http", reply);
    let (id, fence) = (record["id"].as_str().unwrap(), record["fence"].to_string());
    onlyonce([
        "keys",
        "resolve",
        id,
        "--fence",
        &fence,
        "--happened",
        &file,
        "--why",
        "seen",
        "--store",
        &store,
    ])
    .done();
    let (_, told) = ask(&service.url, "claim", &claim("tap", 2));
    assert_eq!(
        (&told["outcome"], &told["reply"]["json"]["order"]),
        (&json!("replay"), &json!(7829))
    );
    service.stop();
}

#[test]
fn who_waits_is_not_left_alone_when_the_service_is_stopped() {
    let folder = Folder::with_store();
    let service = start(&folder);
    assert_eq!(ask(&service.url, "claim", &claim("tap", 1)).0, 200);
    let mut waiting = begin(&service.url, "wait", &json!({ "key": "tap", "fingerprint": "f" }));
    // The request is there once something that was sent after it is answered.
    until("another answer", || {
        Some(ask(&service.url, "get", &json!({ "key": "tap" })))
            .filter(|(status, _)| *status == 200)
    });
    service.stop();
    let mut text = String::new();
    waiting.read_to_string(&mut text).unwrap();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 409"), "{text}");
}

#[test]
fn a_port_without_a_secret_token_is_not_opened() {
    let folder = Folder::with_store();
    let store = folder.store();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store", &store];
    let told = onlyonce(serve).failed(2);
    assert!(told.contains("--token-file"), "{told}");
    let open = token(&folder);
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let told = onlyonce(serve.iter().chain(&["--token-file", &open])).failed(2);
    assert!(told.contains("others can read it (mode 644)"), "{told}");
    std::fs::write(&open, "short").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o600)).unwrap();
    let told = onlyonce(serve.iter().chain(&["--token-file", &open])).failed(2);
    assert!(told.contains("at least 16 visible characters"), "{told}");
}
