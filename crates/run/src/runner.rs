//! From an order to what became of it: the lock, the record, the run.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use onlyonce::{Answer, Engine, EngineError, Request, Sweeper, Waited};
use onlyonce_core::{Cause, Fence, KeyId, Outcome, Policy, Record, Secret, StateKind, Timestamp};
use tokio::time::{sleep, timeout};

use crate::job::{Job, Local, Shared};
use crate::lock::{Lock, Locks};
use crate::order::Order;
use crate::signals::Signals;
use crate::transcript::{Ended, Keeping, Transcript};

/// How often somebody who waits looks again: the pause doubles from the first to the second.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LAST: Duration = Duration::from_millis(200);
/// How long a claim that is on its way is waited for once a signal has called the run off.
const CALLED_OFF: Duration = Duration::from_secs(2);

/// How long a claim of which nobody knows whether it was made is looked for, so that it does not
/// become an unknown outcome.
const TAKEN_BACK: Duration = Duration::from_secs(1);

/// What became of an order.
#[derive(Debug)]
pub enum Became {
    /// The command was started here, or could not be, and this is how it ended.
    Ran {
        /// How it ended.
        ended: Ended,
        /// Why that could not be recorded, if so: who asks again meets an unknown outcome.
        unrecorded: Option<String>,
        /// What else there is to say.
        notes: Vec<String>,
    },
    /// It ran before.
    Replayed {
        /// What it wrote, and how it ended.
        transcript: Transcript,
        /// When.
        answered_at: Timestamp,
    },
    /// It ran before, with this exit code, and its output is no longer kept.
    Gone {
        /// The exit code.
        code: u16,
        /// When.
        answered_at: Timestamp,
    },
    /// A run of it goes on, and did not end while we waited.
    InProgress,
    /// The run that was waited for did not happen: it may be asked for again.
    NotExecuted,
    /// The key was used for another command.
    Mismatch,
    /// Nobody knows whether it happened.
    Unknown {
        /// Since when.
        since: Timestamp,
        /// How knowledge was lost.
        cause: Cause,
        /// The run in doubt.
        fence: Option<Fence>,
        /// If it ran here just now: how it ended.
        ended: Option<Ended>,
        /// What else there is to say.
        notes: Vec<String>,
    },
    /// The key is older than the store: it may have run.
    Expired,
    /// The key was sealed: it never runs.
    Sealed,
    /// A signal came before anything was run here.
    Interrupted(u8),
    /// The store, or the folder with the locks, did not answer; nothing was run here.
    Failed(String),
}

/// Carries orders out.
pub struct Runner {
    engine: Engine,
    secret: Secret,
    locks: Locks,
    sweeps: Option<Policy>,
}

impl Runner {
    /// One for this store, whose secret this is. All processes on this machine that run commands
    /// with the store must have the same locks.
    pub const fn new(engine: Engine, secret: Secret, locks: Locks) -> Self {
        Self { engine, secret, locks, sweeps: None }
    }

    /// The same; while a command runs it forgets what may be forgotten, by this policy: only where
    /// nobody remembers longer in this store. What is not done when the command has ended is left
    /// to the next one.
    pub fn sweeping(self, policy: Policy) -> Self {
        Self { sweeps: Some(policy), ..self }
    }

    /// What the record of an order is found by.
    pub fn id(&self, order: &Order) -> KeyId {
        self.secret.key_id(&order.scope, &order.key)
    }

    /// Runs the command, unless its key was used before. Its output goes to our own streams as it
    /// comes; that of an earlier run is in what is returned.
    pub async fn run(&self, order: &Order) -> Became {
        self.ran(order).await.unwrap_or_else(|failed| Became::Failed(failed.0))
    }

    async fn ran(&self, order: &Order) -> Result<Became, Failed> {
        let mut signals = Signals::listen()?;
        let mut request = Request::new(self.id(order), order.fingerprint(&self.secret));
        request.key_time = order.key.uuid7_time();
        if let Some(lock) = self.locks.take(request.id)? {
            return self.claim(order, &request, lock, signals).await;
        }
        tokio::select! {
            became = self.wait(order, &request) => became,
            signal = signals.next() => Ok(interrupted(signal)),
        }
    }

    /// Nobody on this machine runs it, or has left a process of it behind.
    async fn claim(
        &self,
        order: &Order,
        request: &Request,
        lock: Lock,
        mut signals: Signals,
    ) -> Result<Became, Failed> {
        let (lock, shared) = (Arc::new(lock), Arc::new(Shared::default()));
        let room =
            order.output_max.min(self.engine.reply_max().saturating_sub(Keeping::overhead()));
        let job = Job {
            order: order.clone(),
            room,
            lock: Arc::clone(&lock),
            signals: Signals::listen()?,
            shared: Arc::clone(&shared),
            sweeper: self.sweeps.map(|policy| {
                // Most commands end before everyone uses the floor that is raised for them.
                Sweeper::new(self.engine.clone(), policy).handing_on()
            }),
        };
        let mut once = Box::pin(self.engine.once(request, &order.policy, order.wait, job));
        let answer = loop {
            tokio::select! {
                answer = &mut once => break answer,
                signal = signals.next() => {
                    if shared.call_off() {
                        // A claim that was granted meanwhile is released; there may be none.
                        let _ = timeout(CALLED_OFF, &mut once).await;
                        return Ok(interrupted(signal));
                    }
                    // The command has it, and how that ends is waited for.
                }
            }
        };
        drop(once);
        if shared.local().ended.is_none()
            && let Err(error) = &answer
            && error.is_transient()
        {
            // A claim that was made without our knowing is being looked for, and taken back.
            sleep(TAKEN_BACK).await;
        }
        let became = self.became(request, order, answer, shared.local()).await?;
        if let Some(lock) = Arc::into_inner(lock)
            && !matches!(became, Became::Unknown { .. })
        {
            lock.remove();
        }
        Ok(became)
    }

    async fn became(
        &self,
        request: &Request,
        order: &Order,
        answer: Result<Answer, EngineError>,
        Local { ended, mut notes, heard }: Local,
    ) -> Result<Became, Failed> {
        let unrecorded = match answer {
            Ok(Answer::Refused(Outcome::OutcomeUnknown { since, cause })) => {
                let fence = self.engine.get(request.id).await.ok().flatten().map(|it| it.fence);
                // Of a run that ended here it says nothing.
                notes.extend(heard.filter(|_| ended.is_none()));
                return Ok(Became::Unknown { since, cause, fence, ended, notes });
            }
            Ok(Answer::Reply(_) | Answer::NotExecuted(_)) => None,
            Ok(Answer::Replayed(_)) if ended.is_none() => {
                let acted = self.engine.look(request, &order.policy).await?;
                return Ok(told(acted.outcome));
            }
            Ok(Answer::Refused(outcome)) if ended.is_none() => return Ok(told(outcome)),
            Ok(Answer::Unrecorded(_)) => Some("the store did not take it".to_owned()),
            // It ran here, and somebody has said something else about it meanwhile.
            Ok(other) => Some(format!("the record says otherwise: {other:?}")),
            Err(error) if ended.is_some() => Some(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        Ok(match ended {
            Some(ended) => Became::Ran { ended, unrecorded, notes },
            // A waiter in this process: there is none.
            None => Became::NotExecuted,
        })
    }

    /// Somebody has the lock: waits until a run has ended, and claims nothing. If a hundred wait
    /// for a command that then has not happened, it does not run a hundred times.
    async fn wait(&self, order: &Order, request: &Request) -> Result<Became, Failed> {
        let until = self.engine.now().plus(order.wait);
        let mut pause = LOOK_FIRST;
        loop {
            // The record as it is stored: nobody is declared dead while somebody has the lock.
            let record = self.engine.get(request.id).await.map_err(EngineError::from)?;
            match record.as_ref().map(|it| it.state.kind()) {
                Some(StateKind::Completed | StateKind::Tombstone) => {
                    return Ok(told(self.engine.look(request, &order.policy).await?.outcome));
                }
                Some(StateKind::InFlight) if record.is_some_and(|it| is_another(&it, request)) => {
                    return Ok(Became::Mismatch);
                }
                // Whoever has the lock may be about to claim it.
                Some(StateKind::InFlight | StateKind::Released | StateKind::Unknown) | None => {}
            }
            if let Some(lock) = self.locks.take(request.id)? {
                let left = until.since(self.engine.now());
                let waited = self.engine.wait(request, &order.policy, left).await?;
                let (Waited::Ended { acted, .. } | Waited::StillRunning(acted)) = waited;
                drop(lock);
                let mut became = told(acted.outcome);
                if let Became::Unknown { fence, .. } = &mut became {
                    *fence = acted.record.map(|it| it.fence);
                }
                return Ok(became);
            }
            let left = until.since(self.engine.now());
            if left.is_zero() {
                return Ok(Became::InProgress);
            }
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(LOOK_LAST);
        }
    }
}

/// What an outcome says to somebody who has not run anything.
fn told(outcome: Outcome) -> Became {
    match outcome {
        Outcome::Replay { sealed: true, .. } | Outcome::Gone { sealed: true, .. } => Became::Sealed,
        Outcome::Replay { reply, answered_at, .. } => match Transcript::read(&reply) {
            Some(transcript) => Became::Replayed { transcript, answered_at },
            None => Became::Gone { code: reply.status(), answered_at },
        },
        Outcome::Gone { answered_at, status, .. } => Became::Gone { code: status, answered_at },
        Outcome::InFlight { .. } => Became::InProgress,
        // Keys of commands have no credentials; it is a key that is somebody else's all the same.
        Outcome::Mismatch | Outcome::CredentialChanged => Became::Mismatch,
        Outcome::OutcomeUnknown { since, cause } => {
            let (fence, ended, notes) = (None, None, Vec::new());
            Became::Unknown { since, cause, fence, ended, notes }
        }
        Outcome::Expired => Became::Expired,
        Outcome::Absent => Became::NotExecuted,
        Outcome::Granted(_)
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply => Became::Failed("another run was in the way".to_owned()),
    }
}

/// Whether it runs another command, as far as that can be compared.
fn is_another(record: &Record, request: &Request) -> bool {
    record.fingerprint.is_some_and(|it| {
        it.version() == request.fingerprint.version() && it != request.fingerprint
    })
}

fn interrupted(signal: rustix::process::Signal) -> Became {
    Became::Interrupted(u8::try_from(signal.as_raw()).unwrap_or_default())
}

/// Why nothing could be asked.
struct Failed(String);

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(format!("the locks of commands: {error}"))
    }
}
