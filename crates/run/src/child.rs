//! The command while it runs: its output is passed on and kept, signals are sent on to it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onlyonce_core::Reply;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::lock::Lock;
use crate::output::{self, Stream};
use crate::signals::{Signals, forward};
use crate::transcript::{Ended, Keeping};

/// How long output is waited for that processes may still write which the command has left behind.
const LINGER: Duration = Duration::from_secs(2);
/// After that no more is read than a pipe may hold, in bytes (pipe(7), `pipe-max-size`): what the
/// command itself wrote is in there.
const PIPE: usize = 1 << 20;
/// How much is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// How a command that was started has ended.
pub(crate) struct Done {
    pub(crate) ended: Ended,
    /// What is kept of it.
    pub(crate) reply: Reply,
    /// What whoever started it should know beside that.
    pub(crate) notes: Vec<String>,
}

/// Starts a command. Its children inherit the lock.
///
/// # Errors
/// It was not started, and nothing happened.
pub(crate) fn start(
    command: &[OsString],
    env: &[(&'static str, OsString)],
    lock: &Lock,
) -> io::Result<Child> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no command"));
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::piped());
    lock.inherit(true)?;
    let started = command.spawn();
    // Nothing else is started by this process, so that it would harm nobody if this failed.
    let _ = lock.inherit(false);
    started
}

/// Waits for a command's end.
pub(crate) async fn attend(
    mut child: Child,
    mut signals: Signals,
    room: usize,
) -> io::Result<Done> {
    let kept = Arc::new(Mutex::new(Keeping::new(room)));
    let (tell, over) = watch::channel(None);
    let out = child.stdout.take().map(|it| pass(it, Stream::Out, Arc::clone(&kept), over.clone()));
    let err = child.stderr.take().map(|it| pass(it, Stream::Err, Arc::clone(&kept), over));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            signal = signals.next() => {
                // It has a number for as long as nobody has asked how it ended.
                if let Some(pid) = child.id() {
                    forward(signal, pid);
                }
            }
        }
    };
    // Those that pass on output may have ended before.
    let _ = tell.send(Some(Instant::now() + LINGER));
    let mut notes = Vec::new();
    for (stream, passing) in [(Stream::Out, out), (Stream::Err, err)] {
        let Some(passing) = passing else { continue };
        let name = stream.name();
        match passing.await.map_err(io::Error::other)? {
            Passed { left_open: true, .. } => notes.push(format!(
                "a process that the command left behind still has its {name}: what it writes from \
                 now on is neither shown nor kept"
            )),
            Passed { failed: Some(error), .. } => {
                notes.push(format!("{name} could not be written: {error}"));
            }
            Passed { .. } => {}
        }
    }
    let kept = std::mem::replace(
        &mut *kept.lock().unwrap_or_else(PoisonError::into_inner),
        Keeping::new(0),
    );
    let ended = ended(status);
    Ok(Done { ended, reply: kept.reply(ended), notes })
}

fn ended(status: ExitStatus) -> Ended {
    let number = |it: i32| u8::try_from(it).ok();
    match (status.code().and_then(number), status.signal().and_then(number)) {
        (Some(code), _) => Ended::exited(code),
        (None, Some(signal)) => Ended::killed(signal),
        // No status is anything else (wait(2)).
        (None, None) => Ended::exited(u8::MAX),
    }
}

/// What came of passing a stream on.
struct Passed {
    /// Somebody still has it open for writing.
    left_open: bool,
    /// Why it could not be written on; that nobody reads it is no failure.
    failed: Option<io::Error>,
}

fn pass(
    from: impl AsyncRead + Send + Unpin + 'static,
    stream: Stream,
    kept: Arc<Mutex<Keeping>>,
    over: watch::Receiver<Option<Instant>>,
) -> JoinHandle<Passed> {
    tokio::spawn(async move {
        let (mut from, mut over, mut left) = (from, over, PIPE);
        let (mut is_open, mut failed) = (true, None);
        loop {
            let mut buffer = vec![0; CHUNK];
            let read = match next(&mut from, &mut buffer, &mut over, &mut left).await {
                Some(0) => return Passed { left_open: false, failed },
                Some(read) => read,
                None => return Passed { left_open: true, failed },
            };
            buffer.truncate(read);
            let bytes = Bytes::from(buffer);
            kept.lock().unwrap_or_else(PoisonError::into_inner).add(stream, &bytes);
            if !is_open {
                continue;
            }
            // It goes on without its reader: what it does is not undone by not looking.
            let written = tokio::task::spawn_blocking(move || output::write(stream, &bytes)).await;
            if let Err(error) = written.map_err(io::Error::other).flatten() {
                is_open = false;
                failed = Some(error).filter(|it| it.kind() != io::ErrorKind::BrokenPipe);
            }
        }
    })
}

/// Reads what comes next, 0 at the end; `None` once nothing more is waited for.
async fn next(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    over: &mut watch::Receiver<Option<Instant>>,
    left: &mut usize,
) -> Option<usize> {
    loop {
        let until = *over.borrow_and_update();
        let read = match until {
            None => tokio::select! {
                read = from.read(buffer) => read,
                _ = over.changed() => continue,
            },
            // What is there already is read also when the time is over.
            Some(until) => match tokio::time::timeout_at(until, from.read(buffer)).await {
                Ok(read) => {
                    let read = read.unwrap_or_default();
                    if until <= Instant::now() {
                        *left = left.checked_sub(read)?;
                    }
                    return Some(read);
                }
                Err(_) => return None,
            },
        };
        return Some(read.unwrap_or_default());
    }
}
