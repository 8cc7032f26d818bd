//! A resource that scripts look for, make, wait for and destroy. Their exit codes are a contract,
//! and what is not in it says nothing: a script that fails never says that something is not there.

use std::time::Duration;

use onlyonce_core::Cause;

use super::{Call, Made, Readiness, Seen, Undone, id, last_line};
use crate::script::{Ended, Script};

/// Looked for, or to be destroyed: nothing is there. Not 1, which scripts end with when they fail.
const ABSENT: i32 = 10;
/// Looked for, or to be made: something else has its place.
const NOT_OURS: i32 = 11;
/// Looked for: there is more than one of ours.
const SEVERAL: i32 = 12;
/// To be made or destroyed: refused, and nothing was or will be done.
const REFUSED: i32 = 20;
/// Waited for: not ready yet.
const NOT_YET: i32 = 10;
/// Waited for: never by itself.
const FAILED: i32 = 20;

/// The scripts of a resource, for `sh -c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) check: Option<String>,
    pub(crate) create: String,
    pub(crate) ready: Option<String>,
    pub(crate) destroy: Option<String>,
    /// How long each of them may take.
    pub(crate) within: Duration,
}

impl Command {
    pub(super) async fn check(&self, call: &Call<'_>) -> Seen {
        let Some(check) = &self.check else {
            return Seen::CannotTell("the plan has no `check` for it".into());
        };
        let (code, out, err) = match self.run(check, call).await {
            Ended::Code { code, out, err } => (code, out, err),
            ended @ (Ended::NotBegun(_) | Ended::Signal | Ended::TooLong | Ended::Lost(_)) => {
                return Seen::CannotTell(format!("`check` {}", self.told(&ended)));
            }
        };
        match code {
            0 => match id(last_line(&out)) {
                Some(id) => Seen::Ours(id),
                None => Seen::CannotTell("`check` ended with 0 and printed no id".into()),
            },
            ABSENT => Seen::Absent,
            NOT_OURS => Seen::NotOurs(said(&out, &err)),
            SEVERAL => Seen::Several(out.lines().filter_map(id).collect()),
            code => Seen::CannotTell(format!("`check` ended with {code}: {}", said(&err, &out))),
        }
    }

    pub(super) async fn create(&self, call: &Call<'_>) -> Made {
        let (code, out, err) = match self.run(&self.create, call).await {
            Ended::Code { code, out, err } => (code, out, err),
            ended @ Ended::NotBegun(_) => {
                return Made::Refused(format!("`create` {}", self.told(&ended)));
            }
            ended @ (Ended::Signal | Ended::TooLong | Ended::Lost(_)) => {
                let cause = match ended {
                    Ended::TooLong => Cause::TimedOut,
                    Ended::NotBegun(_) | Ended::Signal | Ended::Lost(_) | Ended::Code { .. } => {
                        Cause::Abandoned
                    }
                };
                return Made::Unknown(cause, format!("`create` {}", self.told(&ended)));
            }
        };
        match code {
            // A script that prints nothing has used the name that it was given.
            0 if out.trim().is_empty() => Made::Created(call.identity.name.clone()),
            0 => match id(last_line(&out)) {
                Some(id) => Made::Created(id),
                None => {
                    let text = "`create` ended with 0, and its last line is no id";
                    Made::Unknown(Cause::AnswerCut, text.into())
                }
            },
            NOT_OURS => Made::Taken(said(&err, &out)),
            REFUSED => Made::Refused(said(&err, &out)),
            code => {
                let text = format!("`create` ended with {code}: {}", said(&err, &out));
                Made::Unknown(Cause::Abandoned, text)
            }
        }
    }

    pub(super) async fn destroy(&self, call: &Call<'_>) -> Undone {
        let Some(destroy) = &self.destroy else {
            return Undone::Refused("the plan has no `destroy` for it".into());
        };
        match self.run(destroy, call).await {
            Ended::Code { code: 0 | ABSENT, .. } => Undone::Gone,
            Ended::Code { code: REFUSED, out, err } => Undone::Refused(said(&err, &out)),
            Ended::Code { code, out, err } => {
                let text = format!("`destroy` ended with {code}: {}", said(&err, &out));
                Undone::Unknown(Cause::Abandoned, text)
            }
            ended @ Ended::NotBegun(_) => {
                Undone::Refused(format!("`destroy` {}", self.told(&ended)))
            }
            ended @ Ended::TooLong => {
                Undone::Unknown(Cause::TimedOut, format!("`destroy` {}", self.told(&ended)))
            }
            ended @ (Ended::Signal | Ended::Lost(_)) => {
                Undone::Unknown(Cause::Abandoned, format!("`destroy` {}", self.told(&ended)))
            }
        }
    }

    pub(super) async fn ready(&self, call: &Call<'_>) -> Readiness {
        let Some(ready) = &self.ready else { return Readiness::Ready };
        match self.run(ready, call).await {
            Ended::Code { code: 0, .. } => Readiness::Ready,
            Ended::Code { code: NOT_YET, out, err } => Readiness::NotYet(said(&out, &err)),
            Ended::Code { code: FAILED, out, err } => Readiness::Failed(said(&err, &out)),
            Ended::Code { code, out, err } => {
                Readiness::NotYet(format!("`ready` ended with {code}: {}", said(&err, &out)))
            }
            ended @ (Ended::NotBegun(_) | Ended::Signal | Ended::TooLong | Ended::Lost(_)) => {
                Readiness::NotYet(format!("`ready` {}", self.told(&ended)))
            }
        }
    }

    async fn run(&self, text: &str, call: &Call<'_>) -> Ended {
        let (folder, variables) = (call.folder, variables(call));
        Script { text, folder, variables, within: self.within }.run(call.hold).await
    }

    fn told(&self, ended: &Ended) -> String {
        match ended {
            Ended::NotBegun(error) => format!("could not be begun: {error}"),
            Ended::Signal => "was ended by a signal".into(),
            Ended::TooLong => format!("took longer than {:?} and was killed", self.within),
            Ended::Lost(error) => format!("ended, and nobody knows how: {error}"),
            Ended::Code { code, .. } => format!("ended with {code}"),
        }
    }
}

/// What a script finds in its environment.
fn variables(call: &Call<'_>) -> Vec<(String, String)> {
    let own = |name: &str, value: String| (format!("ONLYONCE_{name}"), value);
    let mut variables = vec![
        own("KEY", call.key.to_owned()),
        own("MARKER", call.identity.marker.clone()),
        own("NAME", call.identity.name.clone()),
        own("TOKEN", call.identity.token.clone()),
        own("ID", call.id.unwrap_or_default().to_owned()),
    ];
    if let Some(attempt) = call.attempt {
        variables.push(own("ATTEMPT", attempt.number.to_string()));
        variables.push(own("FENCE", attempt.fence.get().to_string()));
    }
    let inputs = call.inputs.iter();
    variables.extend(
        inputs.map(|(name, value)| (format!("INPUT_{}", name.to_uppercase()), value.clone())),
    );
    variables
}

/// What it says about itself: the last line of the first that has one.
fn said(first: &str, second: &str) -> String {
    let line = match last_line(first) {
        "" => last_line(second),
        line => line,
    };
    if line.is_empty() { "it says nothing".into() } else { line.to_owned() }
}
