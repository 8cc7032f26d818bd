//! Notices by `LISTEN` and `NOTIFY`, on a connection of their own.
//!
//! `NOTIFY` takes a lock of the whole server at its commit, so it is in no transaction that writes
//! records: it would make the processes of all databases sync one after the other. Who waits says
//! what for, and only of that it is said that it has ended, once it was committed, in a transaction
//! that syncs nothing.
//!
//! A pooler that hands out connections by the transaction lets nobody listen. That is noticed.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use onlyonce_core::KeyId;
use onlyonce_store::{Teller, Want};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{interval, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Notification};

use crate::error::text;
use crate::others::Others;
use crate::session::Way;

/// How long the server may take for anything here.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often the connection is tried out, and said again what is waited for.
const TURN: Duration = Duration::from_secs(20);
/// After a connection that was lost or could not be made: at first, and at last.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// After one that leads through a pooler: somebody may change that.
const PAUSE_POOLED: Duration = Duration::from_secs(600);
/// What has come and was not looked at yet; what comes more is lost.
const HEARD_MAX: usize = 1_024;
/// Key ids in one payload, which has to be below 8,000 bytes.
const IDS_MAX: usize = 240;

/// Says something, without a sync and without waiting for a standby.
const SAY: &str = "
SELECT pg_catalog.set_config('synchronous_commit', 'off', true),
  pg_catalog.pg_notify('onlyonce', payload) FROM pg_catalog.unnest($1::text[]) AS payload";
const LISTEN: &str = "LISTEN onlyonce";
const PROCESS: &str = "SELECT pg_catalog.pg_backend_pid()";

const POOLED: &str = "a pooler hands out connections by the transaction, so nothing can be heard";

/// The first letter of what is said; ids follow, or a word that the sender knows again.
const WANTED: char = 'w';
const ENDED: char = 'e';
const HELLO: char = 'h';
const TRIAL: char = 't';

/// Why nothing is told, and when to try again.
struct Lost {
    why: String,
    pause: Option<Duration>,
}

impl From<String> for Lost {
    fn from(why: String) -> Self {
        Self { why, pause: None }
    }
}

/// Tells for as long as somebody listens.
pub(crate) async fn run(way: Way, others: Arc<Others>, teller: Teller) {
    let mut pause = PAUSE;
    loop {
        let lost = match Line::open(&way).await {
            Ok(mut line) => {
                pause = PAUSE;
                others.turn(true);
                teller.flows();
                let served = line.serve(&others, &teller).await;
                others.turn(false);
                match served {
                    Ok(()) => return,
                    Err(lost) => lost,
                }
            }
            Err(lost) => lost,
        };
        teller.lost(&format!("{}: {}", way.place, lost.why));
        let over = async { while teller.wants().await.is_some() {} };
        if timeout(lost.pause.unwrap_or(pause), over).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether notices come by this way, or why not.
pub(crate) async fn check(way: &Way) -> Result<(), String> {
    Line::open(way).await.map(drop).map_err(|lost| lost.why)
}

/// A connection that listens.
struct Line {
    client: Client,
    /// The server's process for it.
    process: i32,
    heard: Receiver<Notification>,
    /// Whether the last trial did not come back yet.
    is_tried: bool,
}

impl Line {
    /// Listens, and makes sure that what is said elsewhere is heard.
    async fn open(way: &Way) -> Result<Self, Lost> {
        let failed = |error: onlyonce_store::OpenError| Lost::from(error.text().to_owned());
        let (client, mut connection) = way.reach().await.map_err(failed)?;
        let (sender, heard) = channel(HEARD_MAX);
        drop(tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(said) = message {
                    // Always read on: a server keeps for all what one does not read.
                    let _ = sender.try_send(said);
                }
            }
        }));
        let other = way.connect().await.map_err(failed)?;
        let pooled = || Lost { why: POOLED.to_owned(), pause: Some(PAUSE_POOLED) };
        if is_pooled(&client, &other).await? {
            return Err(pooled());
        }
        answer(client.batch_execute(LISTEN)).await?;
        let process = process(&client).await?;
        let mut line = Self { client, process, heard, is_tried: false };
        let mut word = [0; 8];
        getrandom::fill(&mut word).map_err(|error| format!("no random numbers: {error}"))?;
        let hello = format!("{HELLO}{:016x}", u64::from_be_bytes(word));
        say(&other, std::slice::from_ref(&hello)).await?;
        let hearing = async {
            while let Some(said) = line.heard.recv().await {
                if said.payload() == hello {
                    return true;
                }
            }
            false
        };
        match timeout(ANSWER_MAX, hearing).await {
            Ok(true) => Ok(line),
            Ok(false) => Err("the connection was lost".to_owned().into()),
            // Not for a server that is slow, since that has answered.
            Err(_) => Err(pooled()),
        }
    }

    /// Until nobody listens any more, or the connection is lost.
    async fn serve(&mut self, others: &Others, teller: &Teller) -> Result<(), Lost> {
        let mut turn = interval(TURN);
        loop {
            tokio::select! {
                wants = teller.wants() => {
                    let Some(wants) = wants else { return Ok(()) };
                    let begun = |want| match want {
                        Want::Begin(id) => Some(id),
                        Want::End(_) => None,
                    };
                    let begun: Vec<KeyId> = wants.into_iter().filter_map(begun).collect();
                    say(&self.client, &payloads(WANTED, &begun)).await?;
                }
                ended = others.to_tell() => {
                    say(&self.client, &payloads(ENDED, &ended)).await?;
                }
                heard = self.heard.recv() => {
                    let Some(said) = heard else {
                        return Err("the connection was lost".to_owned().into());
                    };
                    self.heed(&said, others, teller).await?;
                }
                _ = turn.tick() => {
                    if std::mem::replace(&mut self.is_tried, true) {
                        return Err("what is said is not heard".to_owned().into());
                    }
                    others.forget();
                    let mut said = payloads(WANTED, &teller.wanted());
                    said.push(TRIAL.to_string());
                    say(&self.client, &said).await?;
                }
            }
        }
    }

    async fn heed(
        &mut self,
        said: &Notification,
        others: &Others,
        teller: &Teller,
    ) -> Result<(), String> {
        let is_ours = said.process_id() == self.process;
        let mut letters = said.payload().chars();
        let kind = letters.next();
        let rest = letters.as_str();
        match kind {
            Some(WANTED) if !is_ours => others.wanted(&ids(rest)),
            Some(ENDED) if !is_ours => ids(rest).into_iter().for_each(|id| teller.tell(id)),
            Some(TRIAL) if is_ours => self.is_tried = false,
            // Somebody has just begun to listen and knows of nothing.
            Some(HELLO) => {
                say(&self.client, &payloads(WANTED, &teller.wanted())).await?;
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}

async fn say(client: &Client, payloads: &[String]) -> Result<(), String> {
    if payloads.is_empty() {
        return Ok(());
    }
    answer(client.query_typed(SAY, &[(&payloads, Type::TEXT_ARRAY)])).await.map(drop)
}

/// Whether two connections of ours are not two of the server, or one of ours is several.
async fn is_pooled(one: &Client, other: &Client) -> Result<bool, String> {
    let before = process(one).await?;
    answer(other.batch_execute("BEGIN")).await?;
    let (held, after) = (process(other).await?, process(one).await?);
    answer(other.batch_execute("ROLLBACK")).await?;
    Ok(before == held || before != after)
}

/// Which process of the server serves it now.
async fn process(client: &Client) -> Result<i32, String> {
    let rows = answer(client.query_typed(PROCESS, &[])).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

async fn answer<T>(
    asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, String> {
    match timeout(ANSWER_MAX, asking).await {
        Ok(answered) => answered.map_err(|error| text(&error)),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

fn payloads(kind: char, ids: &[KeyId]) -> Vec<String> {
    let payload = |ids: &[KeyId]| {
        let ids = ids.iter().map(ToString::to_string);
        std::iter::once(kind.to_string()).chain(ids).collect()
    };
    ids.chunks(IDS_MAX).map(payload).collect()
}

fn ids(text: &str) -> Vec<KeyId> {
    let parts = text.as_bytes().chunks(32).map(str::from_utf8);
    parts.filter_map(|part| KeyId::from_hex(part.ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_are_said_in_payloads_that_the_server_takes() {
        let all: Vec<_> = (0..=255).map(|number| KeyId::from_bytes([number; 16])).collect();
        let said = payloads(ENDED, &all);
        assert_eq!(said.len(), 2);
        assert!(said.iter().all(|payload| payload.len() < 8_000));
        let read: Vec<_> = said.iter().flat_map(|it| ids(&it[1..])).collect();
        assert_eq!(read, all);
        assert_eq!(payloads(ENDED, &[]), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_key_id_is_nothing() {
        assert_eq!(ids("zz"), []);
        assert_eq!(ids(&"ü".repeat(40)), []);
        assert_eq!(ids(&format!("{}77", "07".repeat(16))), [KeyId::from_bytes([7; 16])]);
    }
}
