//! Asking whether the server has a message of which nobody knows: its queue and its log, a mailbox
//! that gets copies, a provider, or a command that looks.

mod command;
mod exim;
pub(crate) mod imap;
mod log;
mod postfix;
mod program;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onlyonce::{InDoubt, Probed};
use onlyonce_core::Reply;
use onlyonce_provider::{Letter, Looked, Provider};
use onlyonce_smtp::Mailbox;
use serde_json::json;

pub use imap::Archive;

use crate::message::Message;

/// How long a probe may take. One that takes longer has said nothing.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The longest evidence that is kept, in bytes.
const EVIDENCE_MAX: usize = 512;
/// What stands for "taken" where the server's own answer was lost (RFC 5321, section 4.2.3).
const TAKEN: u16 = 250;

/// Who knows whether the server has a message, and when a "no" counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Who is asked.
    pub whom: Whom,
    /// How long what the server has taken may need to be seen there.
    pub settle: Duration,
    /// How long what was sent may need to arrive, from when it became unknown.
    pub late: Duration,
}

/// Who knows whether the server has a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A command of the user's.
    Command {
        /// For `sh -c`. It exits with 0 if the server has the message, and the first line that it
        /// writes to standard output is kept as evidence, such as the server's queue id.
        command: OsString,
        /// The exit codes that say that the server does not have it. All others say nothing.
        absent: Vec<u8>,
    },
    /// A Postfix of this machine that is the server: its queue, and its log.
    Postfix(Place),
    /// An Exim of this machine that is the server: its queue, and its log.
    Exim(Place),
    /// The provider that messages go to, by its own look-up.
    Provider(Arc<Provider>),
    /// A mailbox that gets a copy of each message. Each is sent with a marker of its own then.
    Archive(Arc<Archive>),
}

/// Where a server's files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its configuration: the folder of Postfix, the file of Exim. `None`: the usual one.
    pub config: Option<PathBuf>,
    /// Its log. `None`: the one that the server says it writes.
    pub log: Option<PathBuf>,
}

/// What queue and log say of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// The server has it, or had it; with what it is found by there.
    There(String),
    /// There is nothing of it.
    Nothing,
    /// There is something that it may be.
    Unsure,
}

/// A message as it is looked for.
struct Wanted<'a> {
    /// Its Message-ID, without the brackets.
    id: &'a str,
    to: &'a str,
}

impl Wanted<'_> {
    /// Whether an address is the recipient's. Servers may write either part otherwise.
    fn is_for(&self, address: &str) -> bool {
        address.eq_ignore_ascii_case(self.to)
    }
}

impl Asking {
    /// Looks once whether it can be asked: the server's programs run and its log can be read, or
    /// the mailbox can be opened.
    ///
    /// # Errors
    /// What cannot be done, for a person. A command is not tried, and neither is a provider.
    pub async fn check(&self) -> Result<(), String> {
        match &self.whom {
            Whom::Command { .. } | Whom::Provider(_) => Ok(()),
            Whom::Postfix(place) => {
                postfix::queue(place).await?;
                log::Log::open(&postfix::log(place).await?).map(drop)
            }
            Whom::Exim(place) => {
                exim::queue(place).await?;
                log::Log::open(&exim::log(place).await?).map(drop)
            }
            Whom::Archive(archive) => {
                let checked = tokio::time::timeout(TIME_MAX, imap::check(archive)).await;
                checked.map_err(|_| "the mailbox is not opened in time".to_owned())?
            }
        }
    }
}

/// Asks about a message. Whatever goes wrong, nobody can tell.
pub(crate) async fn ask(asking: &Asking, message: &Message, doubt: &InDoubt) -> Probed {
    let asked = tokio::time::timeout(TIME_MAX, asked(asking, message, doubt));
    asked.await.ok().flatten().unwrap_or(Probed::CannotTell)
}

async fn asked(asking: &Asking, message: &Message, doubt: &InDoubt) -> Option<Probed> {
    let id = message.message_id();
    // A search for nothing finds anything.
    if id.is_empty() {
        return None;
    }
    match &asking.whom {
        Whom::Command { command, absent } => {
            return command::ask(command, absent, message, id, doubt).await;
        }
        Whom::Provider(provider) => {
            return Some(match provider.look(&letter(message).ok()?).await {
                Looked::There(id) => Probed::Happened(receipt(&id)),
                Looked::Absent => Probed::DidNotHappen,
                Looked::CannotTell => Probed::CannotTell,
            });
        }
        Whom::Postfix(_) | Whom::Exim(_) | Whom::Archive(_) => {}
    }
    // Servers write an odd one in ways of their own, and it would not be found.
    let id = String::from_utf8(id).ok()?;
    let id = plain(&id)?;
    let wanted = Wanted { id, to: message.to().as_str() };
    let (seen, log) = match &asking.whom {
        Whom::Postfix(place) => postfix::look(place, &wanted).await.ok()?,
        Whom::Exim(place) => exim::look(place, &wanted).await.ok()?,
        Whom::Archive(archive) => {
            let since = doubt.first_commit_at;
            let (seen, tells_all) =
                imap::look(archive, &wanted, &message.name(), since).await.ok()?;
            return Some(answered(seen, tells_all));
        }
        Whom::Command { .. } | Whom::Provider(_) => return None,
    };
    let tells_all = seen == Seen::Nothing && log.covers(doubt.first_commit_at?).await;
    Some(answered(seen, tells_all))
}

/// What stands between the brackets of a Message-ID, if it is written everywhere in one way.
fn plain(id: &str) -> Option<&str> {
    let id = id.strip_prefix('<')?.strip_suffix('>')?;
    let is_plain = |it: u8| it.is_ascii_graphic() && !b"<>\"\\()".contains(&it);
    (!id.is_empty() && id.bytes().all(is_plain)).then_some(id)
}

/// What that answers. A log that does not tell all of the time in question cannot say "no".
fn answered(seen: Seen, tells_all: bool) -> Probed {
    match seen {
        Seen::There(evidence) => Probed::Happened(receipt(&evidence)),
        Seen::Nothing if tells_all => Probed::DidNotHappen,
        Seen::Nothing | Seen::Unsure => Probed::CannotTell,
    }
}

/// A message as a provider is told it.
///
/// # Errors
/// It cannot be read; for a person.
pub(crate) fn letter(message: &Message) -> Result<Letter, String> {
    let sender = message.from.as_ref().map_or("", Mailbox::as_str);
    let (key, to) = (message.name(), message.to().as_str());
    Letter::read(&key, to, sender, message.content().as_bytes())
}

/// What it was found by.
fn receipt(evidence: &str) -> Reply {
    Reply::kept(TAKEN, json!({ "found_by": "probe", "evidence": evidence }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_that_tells_all_can_say_no() {
        let there = || Seen::There("4F8A".to_owned());
        assert!(matches!(answered(there(), false), Probed::Happened(_)));
        assert_eq!(answered(Seen::Nothing, true), Probed::DidNotHappen);
        for (seen, tells_all) in [(Seen::Nothing, false), (Seen::Unsure, true)] {
            assert_eq!(answered(seen, tells_all), Probed::CannotTell);
        }
    }
}
