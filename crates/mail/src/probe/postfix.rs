//! Postfix: its queue, and what its log says of a queue id.
//!
//! A line with the Message-ID proves nothing: Postfix writes it as soon as it has read the head,
//! also of messages that it throws away. What was under the same queue id in the queue, or was
//! handed to a delivery agent, it has taken.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use serde::Deserialize;

use super::log::{Log, Span};
use super::{Place, Seen, Wanted, program};

/// A message in the queue: a line of `postqueue -j`.
#[derive(Deserialize)]
pub(super) struct Queued {
    queue_id: String,
    recipients: Vec<Recipient>,
}

#[derive(Deserialize)]
struct Recipient {
    address: String,
}

/// What the log says of a queue id.
#[derive(Debug, Default)]
struct Told {
    /// The queue manager has had it.
    active: bool,
    /// Whom it was delivered to, or was tried to.
    to: BTreeSet<String>,
}

fn arguments(place: &Place, more: &[&str]) -> Vec<OsString> {
    let config = place.config.iter().flat_map(|it| ["-c".into(), it.clone().into_os_string()]);
    config.chain(more.iter().map(Into::into)).collect()
}

/// What is in its queue.
pub(super) async fn queue(place: &Place) -> Result<Vec<Queued>, String> {
    let said = program::said("postqueue", &arguments(place, &["-j"])).await?;
    let read = |line: &str| {
        serde_json::from_str(line).map_err(|error| format!("postqueue is not understood: {error}"))
    };
    said.lines().map(read).collect()
}

/// Where its log is.
pub(super) async fn log(place: &Place) -> Result<PathBuf, String> {
    if let Some(log) = &place.log {
        return Ok(log.clone());
    }
    let said = program::line("postconf", &arguments(place, &["-h", "maillog_file"])).await?;
    // It may also be told to write to its standard output.
    if said.is_empty() || said.starts_with("/dev/") {
        return Err("this Postfix writes no log of its own: say where the system's is".to_owned());
    }
    Ok(said.into())
}

/// Looks for a message.
pub(super) async fn look(place: &Place, wanted: &Wanted<'_>) -> Result<(Seen, Span), String> {
    // The queue first: what leaves it meanwhile is in the log by then.
    let queue = queue(place).await?;
    let log = Log::open(&log(place).await?)?;
    let id = format!("<{}>", wanted.id);
    let each = move |told: &mut BTreeMap<String, Told>, line: &str| note(told, line, &id);
    let is_ours = |line: &str| line.contains("/smtpd[");
    let (told, span) = log.read(BTreeMap::new(), each, is_ours).await?;
    Ok((judged(&queue, &told, wanted), span))
}

/// Notes what a line says of a message with this id.
fn note(told: &mut BTreeMap<String, Told>, line: &str, id: &str) {
    // As in `... host postfix/cleanup[123]: 4F8A31C2E7: message-id=<...>`.
    let Some((program, text)) = line.split_once("]: ") else { return };
    let Some((queue_id, text)) = text.split_once(": ") else { return };
    if !queue_id.bytes().all(|it| it.is_ascii_alphanumeric()) {
        return;
    }
    let is_by = |name: &str| program.contains(name);
    if is_by("/cleanup[") && text.strip_prefix("message-id=") == Some(id) {
        told.entry(queue_id.to_owned()).or_default();
        return;
    }
    let Some(told) = told.get_mut(queue_id) else { return };
    if is_by("/qmgr[") && (text.ends_with("(queue active)") || text == "removed") {
        told.active = true;
    }
    if !text.starts_with("to=<") || !text.contains(" status=") {
        return;
    }
    // As in `to=<ann@mail.example>, orig_to=<ann@shop.example>, relay=..., status=sent (...)`.
    for field in text.split(", ") {
        let address = field.strip_prefix("to=<").or_else(|| field.strip_prefix("orig_to=<"));
        let Some(address) = address.and_then(|it| it.strip_suffix('>')) else { break };
        told.to.insert(address.to_owned());
    }
}

fn judged(queue: &[Queued], told: &BTreeMap<String, Told>, wanted: &Wanted<'_>) -> Seen {
    let mut seen = Seen::Nothing;
    for (id, told) in told {
        let queued = queue.iter().filter(|it| it.queue_id == *id).flat_map(|it| &it.recipients);
        let queued: Vec<&str> = queued.map(|it| it.address.as_str()).collect();
        let all = || queued.iter().copied().chain(told.to.iter().map(String::as_str));
        if all().any(|it| wanted.is_for(it)) {
            return Seen::There(id.clone());
        }
        // Each copy has a recipient of its own. Whose this one is, is not known yet.
        if told.active && all().next().is_none() {
            seen = Seen::Unsure;
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "Nov 27 20:26:37 mx postfix";
    const ID: &str = "<7@shop.example>";

    fn seen(queue: &[&str], lines: &[String], to: &str) -> Seen {
        let queue: Vec<_> = queue.iter().map(|it| serde_json::from_str(it).unwrap()).collect();
        let mut told = BTreeMap::new();
        lines.iter().for_each(|line| note(&mut told, line, ID));
        judged(&queue, &told, &Wanted { id: "7@shop.example", to })
    }

    fn cleanup(id: &str) -> String {
        format!("{HOST}/cleanup[12]: {id}: message-id={ID}")
    }

    fn active(id: &str) -> String {
        let from = "from=<shop@shop.example>, size=300, nrcpt=1";
        format!("{HOST}/qmgr[9]: {id}: {from} (queue active)")
    }

    fn tried(id: &str, to: &str, status: &str) -> String {
        format!(
            "{HOST}/smtp[31]: {id}: to=<{to}>, relay=127.0.0.1[127.0.0.1]:25, delay=0.1, \
             dsn=2.0.0, status={status} (250 ok)"
        )
    }

    #[test]
    fn a_message_id_in_the_log_proves_nothing_by_itself() {
        assert_eq!(seen(&[], &[cleanup("4F8A")], "ann@a.example"), Seen::Nothing);
        assert_eq!(seen(&[], &[], "ann@a.example"), Seen::Nothing);
        let other = format!("{HOST}/cleanup[12]: 4F8A: message-id=<77@shop.example>");
        let lines = [other, tried("4F8A", "ann@a.example", "sent")];
        assert_eq!(seen(&[], &lines, "ann@a.example"), Seen::Nothing);
    }

    #[test]
    fn what_was_tried_under_its_queue_id_was_taken() {
        for status in ["sent", "deferred", "bounced"] {
            let lines = [cleanup("4F8A"), active("4F8A"), tried("4F8A", "ann@a.example", status)];
            let there = Seen::There("4F8A".to_owned());
            assert_eq!(seen(&[], &lines, "ann@a.example"), there);
            assert_eq!(seen(&[], &lines, "Ann@A.example"), there);
            // All recipients of a key have one Message-ID: this is another one's copy.
            assert_eq!(seen(&[], &lines, "bob@a.example"), Seen::Nothing);
        }
        let alias = tried("4F8A", "ann@inner.example>, orig_to=<ann@a.example", "sent");
        let lines = [cleanup("4F8A"), active("4F8A"), alias];
        assert_eq!(seen(&[], &lines, "ann@a.example"), Seen::There("4F8A".to_owned()));
    }

    #[test]
    fn what_is_in_the_queue_under_its_queue_id_was_taken() {
        let queued = r#"{"queue_name":"deferred","queue_id":"4F8A","arrival_time":1,
            "message_size":300,"sender":"shop@shop.example",
            "recipients":[{"address":"ann@a.example","delay_reason":"later"}]}"#;
        let there = Seen::There("4F8A".to_owned());
        assert_eq!(seen(&[queued], &[cleanup("4F8A")], "ann@a.example"), there);
        assert_eq!(seen(&[queued], &[cleanup("4F8A")], "bob@a.example"), Seen::Nothing);
        assert_eq!(seen(&[queued], &[cleanup("5A")], "ann@a.example"), Seen::Nothing);
    }

    #[test]
    fn a_copy_that_was_taken_for_nobody_knows_whom_says_nothing() {
        let lines = [cleanup("4F8A"), active("4F8A")];
        assert_eq!(seen(&[], &lines, "ann@a.example"), Seen::Unsure);
        let removed = format!("{HOST}/qmgr[9]: 4F8A: removed");
        assert_eq!(seen(&[], &[cleanup("4F8A"), removed], "ann@a.example"), Seen::Unsure);
    }
}
