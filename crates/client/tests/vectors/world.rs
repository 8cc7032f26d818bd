//! The world of the tests (clients/world), as Rust asks it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long anything may take before the test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Real servers; `ask` is one control of them.
pub(crate) struct World {
    _child: Child,
    control: String,
    pub(crate) service: String,
    pub(crate) proxy: String,
    pub(crate) token: String,
}

fn needed(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: run cargo xtask clients");
    }))
}

pub(crate) fn vectors() -> Value {
    let text = std::fs::read(needed("ONLYONCE_CLIENTS").join("vectors.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

impl World {
    pub(crate) async fn start() -> Self {
        let mut command = Command::new("python3");
        command.arg(needed("ONLYONCE_CLIENTS").join("world/world.py"));
        command.arg(needed("ONLYONCE_BINARY"));
        // It ends when its input does, which is when this process does.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("the world did not start");
        let line: Value = serde_json::from_str(&line).unwrap();
        let control = line["control"].as_str().unwrap().trim_start_matches("http://").to_owned();
        let told = ask(&control, &json!({"do": "where"})).await;
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let (service, proxy, token) = (text("service"), text("proxy"), text("token"));
        Self { _child: child, control, service, proxy, token }
    }

    pub(crate) async fn ask(&self, asked: &Value) -> Value {
        tokio::time::timeout(2 * LIMIT, ask(&self.control, asked)).await.unwrap()
    }
}

async fn ask(control: &str, asked: &Value) -> Value {
    let body = asked.to_string();
    let mut stream = TcpStream::connect(control).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: world\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, told) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{asked}: {told}");
    serde_json::from_str(told).unwrap()
}
