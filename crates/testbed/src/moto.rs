//! Moto: a server that speaks the APIs of AWS. It makes a second thing wherever it is asked twice,
//! also where AWS does not.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Server;
use crate::program::{find, mortal};

/// Names another program.
const VARIABLE: &str = "ONLYONCE_TEST_MOTO";

/// A server of AWS's APIs, with what was made there in its memory.
#[derive(Debug)]
pub struct Moto {
    port: Port,
    program: PathBuf,
    _folder: TempDir,
    _server: Server,
}

impl Moto {
    /// One in which nothing was made but what an account of AWS has from its beginning.
    pub fn start() -> Self {
        let program = program();
        let (port, folder) = (Port::free(), tempfile::tempdir().unwrap());
        let log = folder.path().join("log");
        let mut command = mortal(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.number().to_string()]);
        // It looks for an account to speak for, and must not find one of this machine's.
        command.env("HOME", folder.path());
        let mut server = Server::start(command, &log);
        server.await_ready(&log, || TcpStream::connect(port.address()).is_ok());
        Self { port, program, _folder: folder, _server: server }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What a script in Python prints, in which `ec2` and `elb` are clients of boto3.
    ///
    /// # Panics
    /// It fails; with what it says.
    pub fn python(&self, script: &str) -> String {
        let begin = "import boto3, json\n\
                     of = lambda name: boto3.client(name, region_name='us-east-1')\n\
                     ec2, elb = of('ec2'), of('elbv2')\n";
        let program = self.program.with_file_name("python");
        let mut command = Command::new(program);
        command.args(["-c", &format!("{begin}{script}")]);
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.address()));
        command.envs([("AWS_ACCESS_KEY_ID", "count"), ("AWS_SECRET_ACCESS_KEY", "count")]);
        let ended = command.output().unwrap();
        let error = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{script}: {error}");
        String::from_utf8_lossy(&ended.stdout).trim().to_owned()
    }
}

/// Below `target` of the repository, or of the one that this is a copy in.
fn program() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut there = above.map(|it| it.join("target/moto/bin/moto_server"));
    // It is one with what it needs, as whatever is in the search path need not be.
    let there = there.find(|it| it.is_file() && std::env::var_os(VARIABLE).is_none());
    there.unwrap_or_else(|| find("moto_server", VARIABLE, &[]))
}
