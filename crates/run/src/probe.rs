//! Asking whether a command happened of which nobody knows.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use onlyonce::{InDoubt, Probed};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::order::Asking;
use crate::output::Stream;
use crate::transcript::{Ended, Keeping};

/// How long a probe may take. One that takes longer has said nothing.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Runs the probe. Its standard error is ours; it is ended when nobody waits for it any more.
pub(crate) async fn ask(
    asking: &Asking,
    env: &[(&'static str, OsString)],
    doubt: &InDoubt,
    room: usize,
) -> Probed {
    let asked = asked(asking, env, doubt, room);
    tokio::time::timeout(TIME_MAX, asked).await.ok().flatten().unwrap_or(Probed::CannotTell)
}

async fn asked(
    asking: &Asking,
    env: &[(&'static str, OsString)],
    doubt: &InDoubt,
    room: usize,
) -> Option<Probed> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(&asking.command).envs(env.iter().map(|(name, value)| (name, value)));
    command.env("ONLYONCE_FENCE", doubt.fence.get().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut out = child.stdout.take()?;
    let mut keeping = Keeping::new(room);
    let mut buffer = vec![0; 16 << 10];
    loop {
        match out.read(&mut buffer).await.ok()? {
            0 => break,
            read => keeping.add(Stream::Out, &buffer[..read]),
        }
    }
    let code = child.wait().await.ok()?.code().and_then(|it| u8::try_from(it).ok())?;
    Some(match code {
        0 => Probed::Happened(keeping.reply(Ended::exited(0))),
        code if asking.absent.contains(&code) => Probed::DidNotHappen,
        _ => Probed::CannotTell,
    })
}
