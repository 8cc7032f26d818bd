//! Signals that are meant for the command: they are sent on to it.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Those that are sent on. What cannot be caught, or is about a process itself, is not.
const FORWARDED: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// The signals that have come. While this exists none of them ends this process.
pub(crate) struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// Listens from now on. What this process was told to ignore, as `nohup` does, stays ignored,
    /// by it and by its children.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let listened = FORWARDED.into_iter().filter(|it| ignored & bit(*it) == 0);
        let listened = listened.map(|it| Ok((it, signal(SignalKind::from_raw(it.as_raw()))?)));
        listened.collect::<io::Result<_>>().map(Self)
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Sends it on, unless the child has it already.
pub(crate) fn forward(signal: Signal, child: u32) {
    if is_from_the_terminal(signal) {
        return;
    }
    if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
        // It has ended if it cannot be told, and then there is nothing to end.
        let _ = kill_process(pid, signal);
    }
}

/// A terminal sends these to every process of its foreground group, so that the command has it
/// already: twice may mean "at once, without cleaning up" to it.
fn is_from_the_terminal(signal: Signal) -> bool {
    let by_key = signal == Signal::INT || signal == Signal::QUIT;
    by_key
        && fs::File::open("/dev/tty")
            .is_ok_and(|it| rustix::termios::tcgetpgrp(&it).is_ok_and(|group| group == getpgrp()))
}

/// The signals that this process ignores, a bit for each (proc(5), `SigIgn`).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}
