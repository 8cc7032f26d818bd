//! Exim: its queue, and what its log says of a message.
//!
//! Exim writes a line with `<=` once it has a message in its spool, before it says so. One whose
//! client has gone by then it throws away, and writes no such line.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use super::log::{Log, Span};
use super::{Place, Seen, Wanted, program};

/// The recipients in the queue, by Exim's id of their message.
type Queue = BTreeMap<String, Vec<String>>;
/// The recipients that the log names, by Exim's id of a message that it has taken.
type Told = BTreeMap<String, BTreeSet<String>>;

/// What stands behind the id of a message that was delivered, was tried to or has failed.
const TRIED: [&str; 7] = ["=>", "->", "*>", ">>", "*=", "**", "=="];

async fn asked(place: &Place, more: &[&str]) -> Result<String, String> {
    let config = place.config.iter().flat_map(|it| ["-C".into(), it.clone().into_os_string()]);
    let arguments: Vec<OsString> = config.chain(more.iter().map(Into::into)).collect();
    // Debian has it under both names.
    let first = program::said("exim4", &arguments).await;
    match first {
        Ok(said) => Ok(said),
        Err(error) => program::said("exim", &arguments).await.map_err(|_| error),
    }
}

/// What is in its queue.
pub(super) async fn queue(place: &Place) -> Result<Queue, String> {
    Ok(queued(&asked(place, &["-bp"]).await?))
}

/// Reads what `exim -bp` prints: a line with the id of each message, and one for each recipient.
fn queued(said: &str) -> Queue {
    let mut queue = Queue::new();
    let mut current = None;
    for line in said.lines() {
        let mut words = line.split_whitespace();
        if let Some(id) = line.split_whitespace().find(|it| is_id(it)) {
            current = Some(queue.entry(id.to_owned()).or_default());
        } else if let (Some(recipients), Some(word)) = (&mut current, words.next_back()) {
            recipients.push(word.to_owned());
        }
    }
    queue
}

/// Where its log is.
pub(super) async fn log(place: &Place) -> Result<PathBuf, String> {
    if let Some(log) = &place.log {
        return Ok(log.clone());
    }
    let path = asked(place, &["-bP", "-n", "log_file_path"]).await?;
    let path = path.trim();
    let spool = match path {
        // It is below the spool then.
        "" => asked(place, &["-bP", "-n", "spool_directory"]).await?,
        _ => String::new(),
    };
    match path.split(':').map(str::trim).find(|it| it.starts_with('/')) {
        Some(path) => Ok(path.replace("%s", "main").into()),
        None if path.is_empty() => Ok(PathBuf::from(spool.trim()).join("log/mainlog")),
        None => Err("this Exim writes no log of its own: say where the system's is".to_owned()),
    }
}

/// Looks for a message.
pub(super) async fn look(place: &Place, wanted: &Wanted<'_>) -> Result<(Seen, Span), String> {
    // The queue first: what leaves it meanwhile is in the log by then.
    let queue = queue(place).await?;
    let log = Log::open(&log(place).await?)?;
    let id = format!("id={}", wanted.id);
    let each = move |told: &mut Told, line: &str| note(told, line, &id);
    let (told, span) = log.read(Told::new(), each, |_| true).await?;
    Ok((judged(&queue, &told, wanted), span))
}

/// As in `1rXYZa-0001Kd-2B`; newer versions have more digits.
fn is_id(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|it| it.len()).collect();
    let is_plain = parts.iter().all(|it| it.bytes().all(|it| it.is_ascii_alphanumeric()));
    is_plain && matches!(lengths[..], [6, 6, 2] | [6, 11, 4])
}

/// Notes what a line says of a message with this id.
fn note(told: &mut Told, line: &str, id: &str) {
    let mut words = line.split(' ');
    let Some(exim) = words.by_ref().take(5).find(|it| is_id(it)) else { return };
    let Some(flag) = words.next() else { return };
    if flag == "<=" {
        let mut words = words.skip(1);
        // What stands behind the subject its sender has chosen.
        let is_it = words.by_ref().take_while(|it| !it.starts_with("T=")).any(|it| it == id);
        if is_it {
            let rest: Vec<&str> = words.collect();
            let recipients = told.entry(exim.to_owned()).or_default();
            recipients.extend(named(&rest.join(" ")).map(ToOwned::to_owned));
        }
    } else if TRIED.contains(&flag)
        && let Some(recipients) = told.get_mut(exim)
    {
        // As in `ann <ann@mail.example> R=local`, also with addresses on the way in parentheses.
        let addresses = words.take_while(|it| !it.contains('='));
        let bare = |it: &str| it.trim_matches(['<', '>', '(', ')', ',', ':']).to_owned();
        recipients.extend(addresses.map(bare));
    }
}

/// The recipients that a line names at its end (`received_recipients`), behind the subject if that
/// stands there too.
fn named(rest: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    let closes = |it: char| {
        let is_end = it == '"' && !escaped;
        escaped = it == '\\' && !escaped;
        is_end
    };
    let rest = match rest.split_once("T=\"") {
        Some((_, subject)) => subject.split_once(closes).map_or("", |(_, rest)| rest),
        None => rest,
    };
    let words = rest.split(' ');
    words.skip_while(|it| *it != "for").skip(1).filter(|it| !it.is_empty())
}

fn judged(queue: &Queue, told: &Told, wanted: &Wanted<'_>) -> Seen {
    let mut seen = Seen::Nothing;
    for (id, told) in told {
        let queued = queue.get(id).into_iter().flatten();
        let all = || queued.clone().chain(told);
        if all().any(|it| wanted.is_for(it)) {
            return Seen::There(id.clone());
        }
        // Each copy has a recipient of its own. Whose this one is, is not known yet.
        if all().next().is_none() {
            seen = Seen::Unsure;
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-27 20:26:37";
    const ID: &str = "1rXYZa-0001Kd-2B";
    const TAKEN: &str = "<= shop@shop.example H=localhost (shop) [127.0.0.1] P=esmtp K S=412";

    fn seen(queue: &str, lines: &[String], to: &str) -> Seen {
        let mut told = Told::new();
        lines.iter().for_each(|line| note(&mut told, line, "id=7@shop.example"));
        judged(&queued(queue), &told, &Wanted { id: "7@shop.example", to })
    }

    fn taken(more: &str) -> String {
        format!("{AT} {ID} {TAKEN} id=7@shop.example{more}")
    }

    #[test]
    fn what_was_taken_is_found_by_its_recipient() {
        let there = Seen::There(ID.to_owned());
        let queue = format!(" 0m   412 {ID} <shop@shop.example>\n          ann@a.example\n\n");
        assert_eq!(seen(&queue, &[taken("")], "ann@a.example"), there);
        assert_eq!(seen(&queue, &[taken("")], "bob@a.example"), Seen::Nothing);
        assert_eq!(seen("", &[taken(" for ann@a.example")], "ann@a.example"), there);
        for tried in [
            "=> ann@a.example R=sink T=sink H=127.0.0.1",
            "=> ann <ann@a.example> R=local T=spool",
            "== ann@a.example R=sink T=sink defer (111): Connection refused",
            "** ann@a.example: Unrouteable address",
            "=> final@inner.example (mid@a.example) <ann@a.example> R=sink",
        ] {
            let lines = [taken(""), format!("{AT} {ID} {tried}")];
            assert_eq!(seen("", &lines, "ann@a.example"), there, "{tried}");
            assert_eq!(seen("", &lines, "bob@a.example"), Seen::Nothing, "{tried}");
        }
    }

    #[test]
    fn what_was_thrown_away_or_is_another_message_is_nothing() {
        let lost = format!("{AT} {ID} SMTP connection lost after final dot H=localhost P=esmtp");
        assert_eq!(seen("", &[lost], "ann@a.example"), Seen::Nothing);
        let other = format!("{AT} {ID} {TAKEN} id=77@shop.example for ann@a.example");
        assert_eq!(seen("", &[other], "ann@a.example"), Seen::Nothing);
        let said = format!("{AT} {ID} {TAKEN} id=1@b.example T=\"x id=7@shop.example y\"");
        assert_eq!(seen("", &[said], "ann@a.example"), Seen::Nothing);
    }

    #[test]
    fn whom_the_subject_names_is_not_whom_it_is_for() {
        let subject = " T=\"\\\"hello\\\" for bob@a.example \\\"\"";
        let lines = [taken(&format!("{subject} for ann@a.example"))];
        assert_eq!(seen("", &lines, "ann@a.example"), Seen::There(ID.to_owned()));
        assert_eq!(seen("", &lines, "bob@a.example"), Seen::Nothing);
        assert_eq!(seen("", &[taken(subject)], "bob@a.example"), Seen::Unsure);
    }

    #[test]
    fn a_copy_that_was_taken_for_nobody_knows_whom_says_nothing() {
        assert_eq!(seen("", &[taken("")], "ann@a.example"), Seen::Unsure);
    }
}
