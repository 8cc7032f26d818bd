//! `onlyonce mail status`

use onlyonce_core::{StateKind, Timestamp};
use onlyonce_mail::{Sender, Shelf, Spool};
use onlyonce_store::outbox::Counted;
use serde::Serialize;

use super::figures::Figures;
use super::{SpoolArgs, figures, journal, outbox, spool};
use crate::args::StoreArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::{Ask, Operator, Told, View, time};
use crate::output::{self, printable};

/// What there is of one kind.
#[derive(Default, Serialize)]
struct Count {
    messages: usize,
    /// When the oldest of them was taken in.
    oldest: Option<String>,
}

/// Everything: the counts add up to all files in the spool.
#[derive(Default, Serialize)]
struct Status {
    queued: Count,
    /// It has ended and waits for the next run to be moved; how it ended, its record says.
    answered: Count,
    sending: Count,
    unknown: Count,
    sent: Count,
    refused: Count,
    damaged: Count,
    all: usize,
    /// Those that nobody knows the outcome of.
    doubts: Vec<Doubt>,
    /// The files that are not as they were written.
    errors: Vec<String>,
    /// How long messages took with the last sender, if it has sent any.
    took: Option<Figures>,
    /// The rows of an outbox, if one is named. Those that were taken are in the spool too.
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox: Option<Vec<Rows>>,
}

/// Rows of an outbox, of one kind.
#[derive(Serialize)]
struct Rows {
    state: String,
    rows: u64,
    oldest: String,
    /// They were taken by a sender with another store, which knows what became of them.
    elsewhere: bool,
}

impl Rows {
    fn of(counted: Counted) -> Self {
        let Counted { state, is_ours, rows, oldest } = counted;
        let elsewhere = state != "waiting" && !is_ours;
        Self { state, rows, oldest: time(oldest), elsewhere }
    }
}

#[derive(Serialize)]
struct Doubt {
    key: String,
    id: String,
    fence: u64,
    since: String,
    about: String,
}

pub(super) async fn run(
    args: &SpoolArgs,
    store: &StoreArgs,
    outbox: Option<outbox::At>,
    json: bool,
) -> Result<(), Failure> {
    let spool = spool(args)?;
    // Before the spool: what is taken meanwhile may be counted twice, and is never missed.
    let rows = match outbox {
        Some(at) => Some(outbox::counts(at, &journal(store)?.1).await?),
        None => None,
    };
    let operator = Operator::at(store).await?;
    let counted = count(&spool, store, &operator).await;
    operator.close();
    let mut status = counted?;
    status.took = figures::read(&args.spool);
    status.outbox = rows.map(|rows| rows.into_iter().map(Rows::of).collect());
    if json {
        return Ok(output::line(&serde_json::to_string(&status).map_err(std::io::Error::from)?)?);
    }
    show(&status)
}

async fn count(spool: &Spool, store: &StoreArgs, operator: &Operator) -> Result<Status, Failure> {
    let (_, secret) = journal(store)?;
    let unreadable = |error| Failure::new(Exit::Unavailable, format!("{error}"));
    let mut status = Status::default();
    let mut oldest: [Option<Timestamp>; 4] = [None; 4];
    // The queue first: what moves meanwhile may be counted twice, and is never missed.
    for name in spool.names(Shelf::Queue).map_err(unreadable)? {
        let message = match spool.read(Shelf::Queue, &name) {
            Ok(message) => message,
            // It has ended meanwhile.
            Err(_) if spool.shelf(&name) != Some(Shelf::Queue) => continue,
            Err(error) => {
                status.damaged.messages += 1;
                status.errors.push(error.to_string());
                continue;
            }
        };
        let id = Sender::id(&secret, &message);
        let id = id.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
        let Told::Key(view) = operator.ask(Ask::Get { id: id.to_string() }).await? else {
            return Err(Failure::new(Exit::Unknown, "the answer is not understood"));
        };
        let state = view.as_ref().and_then(|it| StateKind::from_name(&it.state));
        let (at, count) = match state {
            None | Some(StateKind::Released) => (0, &mut status.queued),
            Some(StateKind::InFlight) => (1, &mut status.sending),
            Some(StateKind::Unknown) => (2, &mut status.unknown),
            Some(StateKind::Completed | StateKind::Tombstone) => (3, &mut status.answered),
        };
        count.messages += 1;
        let first = oldest[at].map_or(message.taken(), |it| it.min(message.taken()));
        oldest[at] = Some(first);
        count.oldest = Some(time(first));
        if let (2, Some(view)) = (at, view) {
            let View { id, fence, since, about, .. } = *view;
            let key = message.key().as_str().to_owned();
            status.doubts.push(Doubt { key, id, fence, since, about });
        }
    }
    status.sent.messages = spool.names(Shelf::Sent).map_err(unreadable)?.len();
    status.refused.messages = spool.names(Shelf::Refused).map_err(unreadable)?.len();
    let Status { queued, answered, sending, unknown, sent, refused, damaged, .. } = &status;
    let all = [queued, answered, sending, unknown, sent, refused, damaged];
    status.all = all.iter().map(|it| it.messages).sum();
    Ok(status)
}

fn show(status: &Status) -> Result<(), Failure> {
    let Status { queued, answered, sending, unknown, sent, refused, damaged, .. } = status;
    let row = |name: &str, count: &Count| {
        let oldest = count.oldest.clone().unwrap_or_default();
        [name.to_owned(), count.messages.to_string(), oldest]
    };
    let rows = [
        row("queued", queued),
        row("answered", answered),
        row("sending", sending),
        row("unknown", unknown),
        row("sent", sent),
        row("refused", refused),
        row("damaged", damaged),
        ["all".to_owned(), status.all.to_string(), String::new()],
    ];
    output::line(&output::table(["STATE", "MESSAGES", "OLDEST"], &rows))?;
    if let Some(rows) = &status.outbox {
        let row = |it: &Rows| {
            let elsewhere = if it.elsewhere { " elsewhere" } else { "" };
            [format!("{}{elsewhere}", it.state), it.rows.to_string(), it.oldest.clone()]
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        output::line(&output::table(["OUTBOX", "ROWS", "OLDEST"], &rows))?;
    }
    if let Some(Figures { in_doubt, session }) = &status.took {
        let (count, doubt) = (in_doubt.messages, in_doubt.shown());
        output::line(&format!("the last sender has sent {count}: nobody knew for {doubt}"))?;
        output::line(&format!("  of a session: {}", session.shown()))?;
    }
    for error in &status.errors {
        output::line(&format!("damaged: {}", printable(error)))?;
    }
    for Doubt { key, id, fence, since, about } in &status.doubts {
        output::line(&format!("unknown since {since}: {}: {about}", printable(key)))?;
        let then = format!("onlyonce keys resolve {id} --fence {fence} ...");
        output::line(&format!("  look at the mail server, then: {then}"))?;
    }
    Ok(())
}
