//! The real binary as a child that never outlives its test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::plain;

/// A running demo.
pub(crate) struct Demo {
    child: Child,
    /// Open, so that the demo can always write.
    _stdout: BufReader<ChildStdout>,
    /// Where temporary files go.
    temporary: tempfile::TempDir,
    /// All that it printed when it was ready.
    pub(crate) text: String,
}

impl Demo {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it and reads what it prints, to the last line.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_onlyonce"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("\nCtrl-C ") || !text.ends_with('\n') {
            assert_ne!(stdout.read_line(&mut text).unwrap(), 0, "it ended early: {text}");
        }
        Self { child, _stdout: stdout, temporary, text }
    }

    /// Host and port of the page.
    pub(crate) fn page(&self) -> &str {
        let from = self.text.find("http://").unwrap() + "http://".len();
        self.text[from..].split('/').next().unwrap()
    }

    /// Host and port of the proxy.
    pub(crate) fn proxy(&self) -> &str {
        let from = self.text.find("curl -i http://").unwrap() + "curl -i http://".len();
        self.text[from..].split('/').next().unwrap()
    }

    /// What the shops have done.
    pub(crate) fn state(&self) -> Value {
        plain::request(self.page(), "GET", "/state", &[], "").json()
    }

    /// Where its temporary files are.
    pub(crate) fn temporary(&self) -> &Path {
        self.temporary.path()
    }

    /// Sends a signal to it.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
