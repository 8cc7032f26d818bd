//! One run of a command under its claim.

use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use onlyonce::{EngineError, InDoubt, Probed, Ran, Run, Sweeper, Ticket};
use onlyonce_core::{Cause, Evidence, Fence, Phase, Policy, Reply, State};
use onlyonce_failpoint::failpoint;

use crate::child::{self, Done};
use crate::lock::Lock;
use crate::order::{Codes, Order};
use crate::probe;
use crate::signals::Signals;
use crate::transcript::{Ended, Keeping};

/// What a shell answers for a command that is not there, and for one that cannot be run (POSIX,
/// Shell Command Language, section 2.8.2).
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// What goes on between the run and whoever waits for it.
#[derive(Default)]
pub(crate) struct Shared {
    gate: AtomicU8,
    local: Mutex<Local>,
}

/// What is known of the run in this process, whatever the record says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Local {
    /// How it ended, if the command was to be started here.
    pub(crate) ended: Option<Ended>,
    /// What whoever started it should know.
    pub(crate) notes: Vec<String>,
    /// What was heard of an earlier run that is in doubt, if it did not settle that.
    pub(crate) heard: Option<String>,
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const CALLED_OFF: u8 = 2;

impl Shared {
    /// From now on the run has its way, unless it was called off.
    fn begin(&self) -> bool {
        self.gate.compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Calls it off, unless it has begun.
    pub(crate) fn call_off(&self) -> bool {
        self.gate.compare_exchange(WAITING, CALLED_OFF, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn local(&self) -> Local {
        self.local.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, ended: Option<Ended>, notes: Vec<String>) {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.ended = ended.or(local.ended);
        local.notes.extend(notes);
    }

    fn hear(&self, heard: Option<String>) {
        self.local.lock().unwrap_or_else(PoisonError::into_inner).heard = heard;
    }
}

/// A command that runs if its claim is granted.
pub(crate) struct Job {
    pub(crate) order: Order,
    /// The output that is kept, in bytes.
    pub(crate) room: usize,
    pub(crate) lock: Arc<Lock>,
    pub(crate) signals: Signals,
    pub(crate) shared: Arc<Shared>,
    /// Works while the command runs.
    pub(crate) sweeper: Option<Sweeper>,
}

impl Job {
    /// What the command is told by its environment.
    fn env(&self, fence: Fence, attempt: u32) -> Vec<(&'static str, OsString)> {
        vec![
            ("ONLYONCE_KEY", self.order.key.as_str().into()),
            ("ONLYONCE_FENCE", fence.get().to_string().into()),
            ("ONLYONCE_ATTEMPT", attempt.to_string().into()),
        ]
    }

    fn not_started(&self, error: &io::Error) -> Ran {
        let is_there = error.kind() != io::ErrorKind::NotFound;
        let ended = Ended::exited(if is_there { NOT_RUNNABLE } else { NOT_FOUND });
        let program = self.order.command.first().map(|it| it.to_string_lossy().into_owned());
        let program = program.unwrap_or_default();
        let note = format!("{program:?} was not started, so nothing happened: {error}");
        self.shared.note(Some(ended), vec![note]);
        Ran::NotExecuted(nothing(ended))
    }
}

impl Run for Job {
    /// A command has no moment before which nothing can happen, but that it was not started.
    const PHASE: Phase = Phase::Committing;

    async fn run(self, ticket: &mut Ticket) -> Result<Ran, EngineError> {
        // A grant may have been long on its way, and nothing is begun when a lease is nearly over.
        ticket.check_lease(self.order.policy.lease / 3)?;
        if !self.shared.begin() {
            return Ok(Ran::NotExecuted(nothing(Ended::exited(0))));
        }
        if is_again(ticket) {
            let note = "an earlier run of this key is in doubt, and it runs again as was asked for";
            self.shared.note(None, vec![note.to_owned()]);
        }
        let env = self.env(ticket.fence(), ticket.attempt());
        failpoint!("command.start.before", self.order.key);
        let child = match child::start(&self.order.command, &env, &self.lock) {
            Ok(child) => child,
            Err(error) => return Ok(self.not_started(&error)),
        };
        failpoint!("command.start.after", self.order.key);
        let pid = child.id().unwrap_or_default();
        let mut attending = tokio::spawn(child::attend(child, self.signals, self.room));
        if let Some(sweeper) = self.sweeper {
            tokio::spawn(sweeper.run());
        }
        // For whoever has to find out what became of it; without it they know less, and no worse.
        if let Some(evidence) = Evidence::new(format!("pid {pid}")) {
            let _ = ticket.note(evidence).await;
        }
        // It is not cut off when its lease ends: it would go on, and nobody knew how it ended.
        let attended = ticket.listen(&mut attending).await;
        failpoint!("command.end.after", self.order.key);
        // It ran, and nobody can say how it ended.
        let Ok(Ok(Done { ended, reply, notes })) = attended else {
            return Ok(Ran::CannotTell(Cause::Abandoned));
        };
        self.shared.note(Some(ended), notes);
        Ok(meant(&self.order.codes, ended, reply))
    }

    async fn probe(&mut self, doubt: &InDoubt) -> Probed {
        let Some(asking) = &self.order.asking else { return Probed::CannotTell };
        let env = [("ONLYONCE_KEY", self.order.key.as_str().into())];
        let probed = probe::ask(asking, &env, doubt, self.room).await;
        self.shared.hear(heard(&probed, &self.order.policy));
        probed
    }
}

/// What a probe has said that does not settle it yet.
fn heard(probed: &Probed, policy: &Policy) -> Option<String> {
    match probed {
        Probed::Happened(_) => None,
        Probed::DidNotHappen => Some(format!(
            "the probe says that it did not happen; that counts once {:?} have passed since its \
             record was last written, as what it sent may still arrive: ask again then",
            policy.receiver.late
        )),
        Probed::StillRunning | Probed::CannotTell => {
            Some("the probe did not say whether it happened".to_owned())
        }
    }
}

/// What its end says about whether it happened.
fn meant(codes: &Codes, ended: Ended, reply: Reply) -> Ran {
    if codes.not_executed.contains(&ended.code) {
        Ran::NotExecuted(reply)
    } else if codes.unknown.contains(&ended.code) {
        Ran::CannotTell(Cause::Abandoned)
    } else {
        Ran::Happened(reply)
    }
}

/// Whether the claim carries an outcome along that nobody knows.
fn is_again(ticket: &Ticket) -> bool {
    match &ticket.record().state {
        State::InFlight(flight) => flight.inherited.is_some(),
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => false,
    }
}

fn nothing(ended: Ended) -> Reply {
    Keeping::new(0).reply(ended)
}
