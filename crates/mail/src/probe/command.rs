//! A command of the user's that looks for a message.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;

use onlyonce::{InDoubt, Probed};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::{EVIDENCE_MAX, receipt};
use crate::message::Message;

/// Runs the command. Its standard error is ours; it is ended when nobody waits for it any more.
pub(super) async fn ask(
    command: &OsStr,
    absent: &[u8],
    message: &Message,
    id: Vec<u8>,
    doubt: &InDoubt,
) -> Option<Probed> {
    let mut asking = Command::new("sh");
    asking.arg("-c").arg(command);
    asking.env("ONLYONCE_KEY", message.key().as_str());
    asking.env("ONLYONCE_MESSAGE_ID", OsString::from_vec(id));
    asking.env("ONLYONCE_RECIPIENT", message.to().as_str());
    asking.env("ONLYONCE_FENCE", doubt.fence.get().to_string());
    asking.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = asking.spawn().ok()?;
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
        0 => {
            let line = kept.split(|it| *it == b'\n').next().unwrap_or_default().trim_ascii();
            Probed::Happened(receipt(&String::from_utf8_lossy(line)))
        }
        code if absent.contains(&code) => Probed::DidNotHappen,
        _ => Probed::CannotTell,
    })
}
