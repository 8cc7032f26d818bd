//! What an apply has counted, in a file for Prometheus, which reads it as a text file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use onlyonce_core::Remedy;
use onlyonce_mail::Histogram;
use onlyonce_provision::{Applied, Became, Step, Work};
use tempfile::NamedTempFile;
use tokio::time::Instant;

use crate::alarms::Alarms;
use crate::exit::Exit;
use crate::failure::Failure;

/// What becomes of a resource, in a word each: the same ones are always there.
const STATES: [&str; 17] = [
    "ready",
    "created",
    "planned",
    "creating",
    "destroying",
    "refused",
    "conflict",
    "duplicate",
    "cannot-tell",
    "no-id",
    "changed",
    "missing",
    "destroyed",
    "unknown",
    "unrecorded",
    "no-store",
    "other",
];

/// What is counted while an apply works.
#[derive(Default)]
pub(super) struct Figures {
    doubt: Histogram,
    /// When the marks became durable of what is being made.
    marked: BTreeMap<String, Instant>,
}

/// A file that takes its place in the end.
pub(super) struct Page {
    new: NamedTempFile,
    to: PathBuf,
}

impl Figures {
    /// Counts a step.
    pub(super) fn step(&mut self, key: &str, step: &Step) {
        match step {
            Step::Creating { .. } => _ = self.marked.insert(key.to_owned(), Instant::now()),
            Step::There(_) => self.known(key),
            Step::Ended(became) => match became {
                // Nobody knows yet.
                Became::Unknown(_) | Became::Unrecorded { .. } => _ = self.marked.remove(key),
                Became::Ready(_)
                | Became::NotReady { .. }
                | Became::Refused(_)
                | Became::Conflict(_)
                | Became::Duplicate(_)
                | Became::CannotTell(_)
                | Became::NoId(_)
                | Became::Changed { .. }
                | Became::Missing { .. }
                | Became::Destroyed(_)
                | Became::NoStore(_)
                | Became::Busy(_)
                | Became::Destroying(_)
                | Became::Waits(_)
                | Became::Stopped => self.known(key),
            },
            Step::Looking | Step::Waiting(_) => {}
        }
    }

    /// It is recorded what became of it.
    fn known(&mut self, key: &str) {
        if let Some(marked) = self.marked.remove(key) {
            self.doubt.note(marked.elapsed());
        }
    }

    /// All of it, in the text format of Prometheus.
    pub(super) fn render(&self, plan: &str, all: &[Applied], alarms: &Alarms) -> String {
        let mut page = String::new();
        let name = "onlyonce_resources";
        let help = "Resources, by what became of them in the last apply that ended.";
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
        let word = |became: &Became| {
            let word = became.word();
            if STATES.contains(&word) { word } else { "other" }
        };
        for state in STATES {
            let count = all.iter().filter(|it| word(&it.became) == state).count();
            let _ = writeln!(page, "{name}{{plan=\"{plan}\",state=\"{state}\"}} {count}");
        }
        let name = "onlyonce_resources_held";
        let _ = writeln!(page, "# HELP {name} Those that no apply gets ready by itself.");
        let _ = writeln!(page, "# TYPE {name} gauge");
        let held = all.iter().filter(|it| is_held(&it.became)).count();
        let _ = writeln!(page, "{name}{{plan=\"{plan}\"}} {held}");
        let help = "From the durable mark to the record of what became of it, where there is one: \
                    so long nobody knew.";
        self.doubt.render(&mut page, "onlyonce_resource_doubt_seconds", help);
        let labels = format!("{{plan=\"{plan}\"}}");
        alarms.render(&mut page, "onlyonce_resource_second_reply_total", &labels);
        page
    }
}

/// Whether no apply settles it by itself, however often and late it comes.
fn is_held(became: &Became) -> bool {
    match became {
        Became::Unknown(doubt) => match doubt.remedy {
            // That takes another command.
            _ if doubt.work == Work::Destroying => true,
            Remedy::RunAgain => false,
            Remedy::Probe => doubt.final_from.is_none(),
            Remedy::Hold | Remedy::Seal => true,
        },
        Became::Duplicate(_)
        | Became::Conflict(_)
        | Became::NoId(_)
        | Became::Changed { .. }
        | Became::Missing { .. }
        | Became::Destroyed(_) => true,
        Became::Ready(_)
        | Became::NotReady { .. }
        | Became::Refused(_)
        | Became::CannotTell(_)
        | Became::Unrecorded { .. }
        | Became::NoStore(_)
        | Became::Busy(_)
        | Became::Destroying(_)
        | Became::Waits(_)
        | Became::Stopped => false,
    }
}

impl Page {
    /// Makes room for it, before anything is done.
    pub(super) fn open(to: &Path) -> Result<Self, Failure> {
        let folder = to.parent().filter(|it| !it.as_os_str().is_empty());
        let new = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
        let new = new.map_err(|error| {
            Failure::new(Exit::Usage, format!("--metrics: {}: {error}", to.display()))
        })?;
        Ok(Self { new, to: to.to_owned() })
    }

    /// Puts it there in one step: whoever reads it finds the old one or the new one.
    pub(super) fn put(self, page: &str) -> Result<(), Failure> {
        let Self { mut new, to } = self;
        // Whoever collects figures may be another user.
        let readable = std::fs::Permissions::from_mode(0o644);
        let written = new
            .write_all(page.as_bytes())
            .and_then(|()| new.as_file().set_permissions(readable))
            .and_then(|()| new.persist(&to).map(|_| ()).map_err(io::Error::from));
        written.map_err(|error| {
            let text = "the plan was applied, and its figures could not be written";
            Failure::new(Exit::Partly, format!("{}: {error}; {text}", to.display()))
        })
    }
}
