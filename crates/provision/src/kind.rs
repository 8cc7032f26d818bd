//! The kinds of resources: how each is looked for, made and waited for. None of them decides
//! anything about a key.

mod aws;
mod command;
mod file;
mod http;
mod postgres;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use onlyonce::Attempt;
use onlyonce_core::{Always, Cause, Receiver, Timestamp};

use crate::identity::Identity;
use crate::script::Hold;

pub(crate) use aws::{Aws, Thing};
pub(crate) use command::Command;
pub(crate) use file::File;
pub(crate) use http::{
    Check, Create, Destroy, GONE, Http, IdIn, Json, REFUSED, REFUSED_GONE, Ready, Request, TAKEN,
};
pub(crate) use postgres::{Postgres, What, wrong as too_long};

/// What there is of a resource where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Absent,
    /// One thing with our marker; this is its id.
    Ours(String),
    /// Something of that name which does not carry our marker.
    NotOurs(String),
    /// More than one thing with our marker; these are their ids.
    Several(Vec<String>),
    /// Nobody can tell at present.
    CannotTell(String),
}

/// What an attempt to make a resource has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// It is there; this is its id.
    Created(String),
    /// It was definitely refused: nothing was made by this attempt, and nothing will be.
    Refused(String),
    /// Something has its place; over HTTP perhaps what this very attempt has made.
    Taken(String),
    /// Nobody can tell.
    Unknown(Cause, String),
}

/// What an attempt to destroy a resource has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// It is gone.
    Gone,
    /// It was definitely refused: nothing was done by this attempt, and nothing will be.
    Refused(String),
    /// Nobody can tell.
    Unknown(Cause, String),
}

/// Whether a resource that is there can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    NotYet(String),
    /// It never will be, by itself.
    Failed(String),
}

/// What a kind is told about the resource.
pub(crate) struct Call<'a> {
    pub(crate) key: &'a str,
    pub(crate) identity: &'a Identity,
    pub(crate) inputs: &'a BTreeMap<String, String>,
    /// The plan's folder.
    pub(crate) folder: &'a Path,
    pub(crate) now: Timestamp,
    /// Only while it is made or destroyed.
    pub(crate) attempt: Option<Attempt>,
    /// Only once it is there.
    pub(crate) id: Option<&'a str>,
    /// Held by this attempt, and by what is run for it, if that makes or destroys something.
    pub(crate) hold: Option<&'a Hold>,
}

/// The kind of a resource, with what its plan says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Command(Command),
    File(File),
    Http(Box<Http>),
    Postgres(Postgres),
    Aws(Aws),
}

impl Kind {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Postgres(_) => "postgres",
            Self::Aws(_) => "aws",
        }
    }

    /// Whether it can be looked for.
    pub(crate) const fn can_check(&self) -> bool {
        match self {
            Self::Command(command) => command.check.is_some(),
            Self::File(_) | Self::Postgres(_) | Self::Aws(_) => true,
            Self::Http(http) => http.check.is_some(),
        }
    }

    /// What a look for it goes by, the same as long as it looks at the same place. `None` where
    /// nothing is destroyed, or where that cannot be said.
    pub(crate) fn sight(&self, call: &Call<'_>) -> Option<String> {
        match self {
            Self::Command(command) => command.check.clone(),
            Self::File(file) => file.sight(call),
            Self::Http(http) => http.sight(call),
            Self::Postgres(_) | Self::Aws(_) => None,
        }
    }

    /// Why nothing is done where somebody wants it destroyed, if that is not known how.
    pub(crate) const fn why_not_destroyed(&self) -> Option<&'static str> {
        let has_destroy = match self {
            Self::Command(command) => command.destroy.is_some(),
            Self::Http(http) => http.destroy.is_some(),
            Self::File(_) => true,
            Self::Postgres(_) | Self::Aws(_) => {
                return Some("what is of its kind is deleted by hand; then forget it");
            }
        };
        match has_destroy {
            true => None,
            false => Some("the plan has no `destroy` for it: delete it by hand, and forget it"),
        }
    }

    /// Whether it is destroyed only if a look shows our marker, also if somebody has said that it
    /// is there. A script may be for things that have none.
    pub(crate) const fn must_show(&self) -> bool {
        match self {
            Self::Command(_) => false,
            Self::File(_) | Self::Http(_) | Self::Postgres(_) | Self::Aws(_) => true,
        }
    }

    /// Whether one attempt at a time is at it on this machine, whatever became of its claim:
    /// programs that are run for it may outlive us, and what is done to a file has no end by which
    /// it is given up.
    pub(crate) const fn is_held(&self) -> bool {
        match self {
            Self::Command(_) | Self::File(_) => true,
            Self::Http(_) | Self::Postgres(_) | Self::Aws(_) => false,
        }
    }

    /// How long making it may take before it is given up.
    pub(crate) const fn within(&self) -> Option<Duration> {
        match self {
            Self::Command(command) => Some(command.within),
            Self::Http(http) => Some(http.within),
            Self::Postgres(postgres) => Some(postgres.within),
            Self::Aws(aws) => Some(aws.within),
            Self::File(_) => None,
        }
    }

    /// By when what was made shows there, where the kind knows it and the plan does not say.
    pub(crate) const fn settle(&self) -> Option<Duration> {
        match self {
            // Its describing calls are eventually consistent; a minute is what its own tools wait.
            Self::Aws(_) => Some(Duration::from_secs(60)),
            Self::Command(_) | Self::File(_) | Self::Http(_) | Self::Postgres(_) => None,
        }
    }

    /// What the kind itself offers to settle an unknown outcome, whatever its plan says.
    pub(crate) const fn receiver(&self) -> Option<Receiver> {
        match self {
            // A name is given once there, and the mark comes with it.
            Self::File(_) | Self::Postgres(_) => Some(Receiver::always(Always::UniqueName)),
            Self::Command(_) | Self::Http(_) | Self::Aws(_) => None,
        }
    }

    /// What it offers to settle an unknown outcome of its destroying, where the kind knows it and
    /// the plan does not say.
    pub(crate) const fn receiver_of_destroying(&self) -> Option<Receiver> {
        match self {
            // Nobody else is on the way to it, since it is held; what is gone shows at once.
            Self::File(_) => Some(Receiver::queryable(Duration::ZERO, Duration::ZERO)),
            Self::Command(_) | Self::Http(_) | Self::Postgres(_) | Self::Aws(_) => None,
        }
    }

    /// Looks for it. Where it cannot be looked for, nobody can tell.
    pub(crate) async fn check(&self, call: &Call<'_>) -> Seen {
        match self {
            Self::Command(command) => command.check(call).await,
            Self::File(file) => file.check(call),
            Self::Http(http) => http.check(call).await,
            Self::Postgres(postgres) => postgres.check(call).await,
            Self::Aws(aws) => aws.check(call).await,
        }
    }

    /// Makes it.
    pub(crate) async fn create(&self, call: &Call<'_>) -> Made {
        match self {
            Self::Command(command) => command.create(call).await,
            Self::File(file) => file.create(call),
            Self::Http(http) => http.create(call).await,
            Self::Postgres(postgres) => postgres.create(call).await,
            Self::Aws(aws) => aws.create(call).await,
        }
    }

    /// Destroys it.
    pub(crate) async fn destroy(&self, call: &Call<'_>) -> Undone {
        match self {
            Self::Command(command) => command.destroy(call).await,
            Self::File(file) => file.destroy(call),
            Self::Http(http) => http.destroy(call).await,
            Self::Postgres(_) | Self::Aws(_) => {
                Undone::Refused(format!("a resource of the kind {} is not destroyed", self.name()))
            }
        }
    }

    /// Asks whether it can be used yet.
    pub(crate) async fn ready(&self, call: &Call<'_>) -> Readiness {
        match self {
            Self::Command(command) => command.ready(call).await,
            Self::File(_) | Self::Postgres(_) => Readiness::Ready,
            Self::Aws(aws) => aws.ready(call).await,
            Self::Http(http) => http.ready(call).await,
        }
    }
}

/// The longest id, in bytes.
const ID_MAX: usize = 400;

/// An id as it may be kept and given to others: one line of visible text.
fn id(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= ID_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// The end of what a script or a server says, for a person: its last line that says anything.
fn last_line(text: &str) -> &str {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let end = line.floor_char_boundary(ID_MAX);
    &line[..end]
}
