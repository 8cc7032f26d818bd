//! How each peer is installed and started.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::server::{Server, free_port};
use super::{Running, within};
use crate::{Failure, repo, steps};

/// Where peers are installed (kept between runs) and where they write (thrown away).
pub(super) struct Folder {
    installed: PathBuf,
    written: tempfile::TempDir,
    /// What proxies forward to.
    upstream: String,
}

impl Folder {
    /// Under `target/`.
    pub(super) fn open(upstream: String) -> Result<Self, Failure> {
        let installed = repo::root().join("target/peers");
        std::fs::create_dir_all(&installed)?;
        let written = super::super::scratch()?;
        Ok(Self { installed, written, upstream })
    }

    /// A path to write to.
    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.written.path().join(name)
    }

    fn installed(&self, name: &str) -> PathBuf {
        self.installed.join(name)
    }

    /// A Redis that keeps nothing on disk: the kindest setting for a peer's speed.
    fn redis(&self) -> Result<Server, Failure> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no"]).current_dir(self.written.path());
        Server::at(port, &mut command)
    }

    /// Packages of npm in a folder of their own.
    fn npm(&self, name: &str, packages: &[&str]) -> Result<PathBuf, Failure> {
        let folder = self.installed(name);
        std::fs::create_dir_all(&folder)?;
        if !folder.join("node_modules").exists() {
            let mut install = Command::new("npm");
            install.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder);
            within(5, "npm", install.args(packages))?;
        }
        Ok(folder)
    }

    /// Packages of pip in a virtual environment of their own; the folder of its programs.
    fn pip(&self, name: &str, packages: &[&str]) -> Result<PathBuf, Failure> {
        let programs = self.installed(name).join("bin");
        if !self.installed(name).join("complete").exists() {
            let mut make = Command::new("python3");
            steps::quiet("venv", make.args(["-m", "venv"]).arg(self.installed(name)))?;
            let mut install = Command::new(programs.join("pip"));
            within(5, "pip", install.args(["install", "-q"]).args(packages))?;
            std::fs::write(self.installed(name).join("complete"), "")?;
        }
        Ok(programs)
    }
}

/// Our files beside this crate.
fn ours(name: &str) -> PathBuf {
    repo::root().join("xtask/bench/peers").join(name)
}

pub(super) fn idempotent_proxy(folder: &Folder) -> Result<Running, Failure> {
    let root = folder.installed("cargo");
    let program = root.join("bin/idempotent-proxy-server");
    if !program.exists() {
        let mut install = Command::new(repo::cargo());
        install.args(["install", "--locked", "--version", "1.2.2", "--root"]).arg(&root);
        within(15, "cargo-install", install.arg("idempotent-proxy-server"))?;
    }
    let port = free_port()?;
    let own = folder.scratch("idempotent-proxy");
    std::fs::create_dir_all(&own)?;
    // It reads its settings from a file in the folder it runs in.
    let upstream = &folder.upstream;
    let settings = format!(
        "SERVER_ADDR=127.0.0.1:{port}\nURL_UP={upstream}\nREQUEST_TIMEOUT=60000\n\
         POLL_INTERVAL=100\nLOG_LEVEL=error\n"
    );
    std::fs::write(own.join(".env"), settings)?;
    let server = Server::at(port, Command::new(program).current_dir(own))?;
    Ok(Running { server, path: "/URL_UP", helpers: Vec::new() })
}

pub(super) fn node_idempotency(folder: &Folder) -> Result<Running, Failure> {
    node(folder, "plain")
}

pub(super) fn node_idempotency_express(folder: &Folder) -> Result<Running, Failure> {
    node(folder, "express")
}

fn node(folder: &Folder, framework: &str) -> Result<Running, Failure> {
    let packages =
        ["@node-idempotency/core", "@node-idempotency/storage-adapter-redis", "express@4"];
    let installed = folder.npm("node-idempotency", &packages)?;
    let (redis, port) = (folder.redis()?, free_port()?);
    let mut command = Command::new("node");
    command.arg(ours("node_idempotency.mjs")).args([port.to_string(), redis.port.to_string()]);
    let server = Server::at(port, command.arg(framework).current_dir(installed))?;
    Ok(Running { server, path: "/payments", helpers: vec![redis] })
}

pub(super) fn idemkit(folder: &Folder) -> Result<Running, Failure> {
    let packages = ["idemkit[redis,asgi]", "uvicorn[standard]", "starlette"];
    let programs = folder.pip("idemkit", &packages)?;
    let (redis, port) = (folder.redis()?, free_port()?);
    let mut command = Command::new(programs.join("uvicorn"));
    command
        .args(["idemkit_app:app", "--host", "127.0.0.1", "--log-level", "error"])
        .args(["--no-access-log", "--workers", "2", "--port", &port.to_string()])
        .env("REDIS_PORT", redis.port.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(ours(""));
    let server = Server::at(port, &mut command)?;
    Ok(Running { server, path: "/payments", helpers: vec![redis] })
}

pub(super) fn restate(folder: &Folder) -> Result<Running, Failure> {
    let packed = folder.npm("restate", &["@restatedev/restate-server-linux-x64"])?;
    let program =
        packed.join("node_modules/@restatedev/restate-server-linux-x64/bin/restate-server");
    let programs = folder.pip("restate-sdk", &["restate-sdk[serde]", "hypercorn"])?;
    let service = restate_service(&programs)?;
    let (ingress, admin, node) = (free_port()?, free_port()?, free_port()?);
    let local = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(program);
    command
        .arg("--base-dir")
        .arg(folder.scratch("restate"))
        .args(["--node-name", "n1"])
        .envs([("RESTATE_DISABLE_TELEMETRY", "true"), ("RESTATE_LISTEN_MODE", "tcp")])
        .env("RESTATE_INGRESS__BIND_ADDRESS", local(ingress))
        .env("RESTATE_ADMIN__BIND_ADDRESS", local(admin))
        .env("RESTATE_BIND_ADDRESS", local(node))
        .env("RESTATE_ADVERTISED_ADDRESS", format!("http://{}", local(node)));
    let server = Server::at(ingress, &mut command)?;
    let deployment = format!("{{\"uri\":\"http://127.0.0.1:{}\"}}", service.port);
    register(admin, &deployment)?;
    Ok(Running { server, path: "/pay/charge", helpers: vec![service] })
}

fn restate_service(programs: &Path) -> Result<Server, Failure> {
    let port = free_port()?;
    let mut command = Command::new(programs.join("hypercorn"));
    command
        .args(["restate_app:app", "--bind", &format!("127.0.0.1:{port}")])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(ours(""));
    Server::at(port, &mut command)
}

/// Tells the admin port of Restate where its service is; the port opens after the ingress.
fn register(admin: u16, deployment: &str) -> Result<(), Failure> {
    let mut last = String::new();
    for _ in 0..100 {
        last =
            post(admin, "/deployments", deployment).unwrap_or_else(|failure| failure.to_string());
        if last.starts_with("HTTP/1.1 2") {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    Err(format!("the service was not registered: {}", last.lines().next().unwrap_or("")).into())
}

fn post(port: u16, path: &str, body: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
