//! Asking whether the server has a message of which nobody knows: by a command that looks.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;
use std::time::Duration;

use onlyonce::{InDoubt, Probed};
use onlyonce_core::Reply;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::message::Message;

/// How long a probe may take. One that takes longer has said nothing.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The longest evidence that is kept, in bytes.
const EVIDENCE_MAX: usize = 512;
/// What stands for "taken" where the server's own answer was lost (RFC 5321, section 4.2.3).
const TAKEN: u16 = 250;

/// A command that knows whether the server has a message, and when its "no" counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// For `sh -c`. It exits with 0 if the server has the message, and the first line that it
    /// writes to standard output is kept as evidence, such as the server's queue id.
    pub command: OsString,
    /// The exit codes that say that the server does not have it. All others say nothing.
    pub absent: Vec<u8>,
    /// How long what the server has taken may need to be seen by the command.
    pub settle: Duration,
    /// How long what was sent may need to arrive, from when it became unknown.
    pub late: Duration,
}

/// Runs the command. Its standard error is ours; it is ended when nobody waits for it any more.
pub(crate) async fn ask(asking: &Asking, message: &Message, doubt: &InDoubt) -> Probed {
    let asked = tokio::time::timeout(TIME_MAX, asked(asking, message, doubt));
    asked.await.ok().flatten().unwrap_or(Probed::CannotTell)
}

async fn asked(asking: &Asking, message: &Message, doubt: &InDoubt) -> Option<Probed> {
    let id = message.message_id();
    // A search for nothing finds anything.
    if id.is_empty() {
        return None;
    }
    let mut command = Command::new("sh");
    command.arg("-c").arg(&asking.command);
    command.env("ONLYONCE_KEY", message.key().as_str());
    command.env("ONLYONCE_MESSAGE_ID", OsString::from_vec(id));
    command.env("ONLYONCE_RECIPIENT", message.to().as_str());
    command.env("ONLYONCE_FENCE", doubt.fence.get().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut out = child.stdout.take()?;
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 4 << 10]);
    loop {
        match out.read(&mut buffer).await.ok()? {
            0 => break,
            read => {
                let room = EVIDENCE_MAX - kept.len();
                kept.extend_from_slice(&buffer[..read.min(room)]);
            }
        }
    }
    let code = child.wait().await.ok()?.code().and_then(|it| u8::try_from(it).ok())?;
    Some(match code {
        0 => Probed::Happened(receipt(&kept)),
        code if asking.absent.contains(&code) => Probed::DidNotHappen,
        _ => Probed::CannotTell,
    })
}

/// What the command has found it by.
fn receipt(printed: &[u8]) -> Reply {
    let line = printed.split(|it| *it == b'\n').next().unwrap_or_default().trim_ascii();
    let evidence = String::from_utf8_lossy(line);
    Reply::kept(TAKEN, json!({ "found_by": "probe", "evidence": evidence }).to_string())
}
