//! What `onlyonce run` tells: the exit codes of its own, and one line for each.

use onlyonce_core::{Cause, Fence, KeyId, Timestamp};
use onlyonce_run::{Became, Stream, Transcript, write};

use super::RunArgs;
use crate::operate::time;
use crate::output::printable;
use crate::place::Place;

/// Why a command was not run now; the number is added to `--codes-from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InProgress,
    Mismatch,
    Unknown,
    Gone,
    Expired,
    Store,
    NotExecuted,
    Sealed,
}

impl Code {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; 8] = [
        Self::InProgress,
        Self::Mismatch,
        Self::Unknown,
        Self::Gone,
        Self::Expired,
        Self::Store,
        Self::NotExecuted,
        Self::Sealed,
    ];

    pub(super) const fn number(self, from: u8) -> u8 {
        from.wrapping_add(self as u8)
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::InProgress => "it runs, and did not end within --wait: ask again later",
            Self::Mismatch => "the key was used for another command",
            Self::Unknown => "nobody knows whether it happened: look, then `onlyonce keys resolve`",
            Self::Gone => "it has run; its output is no longer kept",
            Self::Expired => "the key is older than the store knows: it may have run",
            Self::Store => "the store cannot be opened or asked; nothing was run",
            Self::NotExecuted => "the run that was waited for did not happen: ask again",
            Self::Sealed => "the key was sealed: it never runs",
        }
    }
}

/// What stands below the flags.
pub(super) fn help() -> String {
    let mut help = "\
For example:

  onlyonce run --key \"backup-$(date +%F)\" -- pg_dump --file shop.sql shop
  onlyonce run --key order-7829 --retry-exit 75 -- ./ship 7829

Whoever comes with the key again gets the same output on the same streams and the same exit code, \
and nothing is run. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are sent on to the \
command. A command that cannot be started (126, 127) did not happen. The command has the key in \
ONLYONCE_KEY, and ONLYONCE_FENCE and ONLYONCE_ATTEMPT: docs/run.md.

Exit codes, where it is not the command's own; --codes-from moves them:
"
    .to_owned();
    for code in Code::ALL {
        help += &format!("  {}  {}\n", code.number(190), code.meaning());
    }
    help
}

/// A line for whoever called.
pub(super) fn say(text: &str) {
    // If nobody can read it there is nobody to be told.
    let _ = write(Stream::Err, format!("onlyonce: {}\n", printable(text)).as_bytes());
}

/// Tells what became of it, and how to end.
pub(super) fn told(args: &RunArgs, place: &Place, id: KeyId, became: Became) -> u8 {
    let code = |code: Code, text: &str| {
        say(text);
        code.number(args.codes_from)
    };
    match became {
        Became::Ran { ended, unrecorded, notes } => {
            notes.iter().for_each(|note| say(note));
            if let Some(why) = unrecorded {
                say(&format!(
                    "it ran and ended with {}, and that could not be recorded ({why}): whoever \
                     comes with the key again is told that nobody knows",
                    ended.code
                ));
            }
            ended.code
        }
        Became::Replayed { transcript, answered_at } => replayed(args, &transcript, answered_at),
        Became::Gone { code: ended, answered_at } => code(
            Code::Gone,
            &format!(
                "it ran and ended with {ended} at {}; its output is no longer kept, and it is not \
                 run again",
                time(answered_at)
            ),
        ),
        Became::InProgress => code(
            Code::InProgress,
            "it runs, or a process that it left behind does; nothing was run: ask again later",
        ),
        Became::NotExecuted => code(
            Code::NotExecuted,
            "the run that was waited for did not happen; nothing was run: ask again",
        ),
        Became::Mismatch => code(
            Code::Mismatch,
            "the key was used for another command, folder or environment; nothing was run: a new \
             operation needs a new key",
        ),
        Became::Unknown { since, cause, fence, ended, notes } => {
            notes.iter().for_each(|note| say(note));
            if let Some(ended) = ended {
                say(&format!("it ran and ended with {}", ended.code));
            }
            code(Code::Unknown, &unknown(place, id, since, cause, fence))
        }
        Became::Expired => code(
            Code::Expired,
            "the key has a time from before the store was made, or is long forgotten: it may have \
             run; nothing was run. A new operation needs a new key",
        ),
        Became::Sealed => code(Code::Sealed, "the key was sealed; it never runs"),
        Became::Interrupted(signal) => {
            say(&format!("ended by signal {signal}; nothing was run"));
            128_u8.wrapping_add(signal)
        }
        Became::Failed(why) => code(Code::Store, &format!("nothing was run: {why}")),
    }
}

fn unknown(
    place: &Place,
    id: KeyId,
    since: Timestamp,
    cause: Cause,
    fence: Option<Fence>,
) -> String {
    let fence = fence.map_or_else(|| "N".to_owned(), |it| it.get().to_string());
    format!(
        "nobody knows whether it happened ({}, since {}), so it is not run; look, then say what \
         you found: onlyonce keys resolve {id} --fence {fence} --store {place} \
         --did-not-happen|--run-again|--exited CODE --why TEXT",
        cause.name(),
        time(since)
    )
}

/// The same bytes on the same streams, and the same end.
fn replayed(args: &RunArgs, transcript: &Transcript, answered_at: Timestamp) -> u8 {
    let mut failed = [false; 2];
    for (stream, bytes) in &transcript.pieces {
        let failed = &mut failed[usize::from(*stream == Stream::Err)];
        if *failed {
            continue;
        }
        if let Err(error) = write(*stream, bytes) {
            *failed = true;
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                say(&format!("{} could not be written: {error}", stream.name()));
            }
        }
    }
    if transcript.is_cut() {
        say(&format!(
            "this was the first {} of {} bytes of output; more was not kept",
            transcript.kept(),
            transcript.written
        ));
    }
    if args.mark_replay {
        say(&format!("this is the output of the run that ended at {}", time(answered_at)));
    }
    transcript.ended.code
}
