//! Asks for every key once more, and holds everything that was ever said against the world.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::load::{History, Told, World, ask};

/// Keys that are asked for at once.
const AT_ONCE: usize = 64;
/// How often a key is asked for until it has a last word: for longer than two leases.
const ASKS_MAX: u32 = 3_500;
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) rounds: u32,
    pub(crate) keys: u64,
    /// Keys whose answer some caller had read before the last check.
    pub(crate) answered: u64,
    /// Keys that replayed in the last check.
    pub(crate) replayed: u64,
    /// Keys that ran in the last check, for the first time.
    pub(crate) ran: u64,
    /// Keys whose outcome nobody knows.
    pub(crate) unknown: u64,
    /// Keys that were answered, for whose answer there was no room on a full disk.
    pub(crate) not_kept: u64,
    /// Answers that their callers were told are not recorded.
    pub(crate) unrecorded: u64,
    /// Requests that the store refused, with nothing run.
    pub(crate) refused: u64,
    /// Proxies that ended by themselves because of a failed write or sync.
    pub(crate) poisoned: u32,
    /// Servers that were killed, stood still or were cut off, and proxies that were killed.
    pub(crate) faults: u32,
}

impl AddAssign for Report {
    fn add_assign(&mut self, more: Self) {
        self.rounds += more.rounds;
        self.keys += more.keys;
        self.answered += more.answered;
        self.replayed += more.replayed;
        self.ran += more.ran;
        self.unknown += more.unknown;
        self.not_kept += more.not_kept;
        self.unrecorded += more.unrecorded;
        self.refused += more.refused;
        self.poisoned += more.poisoned;
        self.faults += more.faults;
    }
}

/// Checks all keys at a proxy whose store has room. `Err` says which promise was broken.
pub(crate) async fn check(
    address: SocketAddr,
    history: &History,
    world: &World,
) -> Result<Report, String> {
    let mut report = Report { keys: history.len() as u64, ..Report::default() };
    let before = world.effects.lock().unwrap().clone();
    let mut last_words = BTreeMap::new();
    let keys: Vec<&String> = history.keys().collect();
    for some in keys.chunks(AT_ONCE) {
        let mut asking = JoinSet::new();
        for key in some {
            let key = (*key).clone();
            asking.spawn(async move { (last_word(address, &key).await, key) });
        }
        while let Some(asked) = asking.join_next().await {
            let (word, key) = asked.map_err(|error| error.to_string())?;
            last_words.insert(key, word?);
        }
    }
    let after = world.effects.lock().unwrap().clone();
    for (key, told) in history {
        let of = |effects: &BTreeMap<String, Vec<String>>| effects.get(key).cloned();
        let (before, after) = (of(&before).unwrap_or_default(), of(&after).unwrap_or_default());
        let last = &last_words[key];
        judge(told, &before, &after, last, &mut report).map_err(|wrong| {
            format!("{key}: {wrong}\nanswers {told:#?}\nlast {last:?}\n{before:?}\n{after:?}")
        })?;
    }
    Ok(report)
}

/// Holds one key against its effects before and after it was asked for the last time.
fn judge(
    told: &[Told],
    before: &[String],
    after: &[String],
    last: &Told,
    report: &mut Report,
) -> Result<(), &'static str> {
    if 1 < after.len() {
        return Err("it ran twice");
    }
    let promised = told.iter().any(Told::is_promised);
    report.answered += u64::from(promised);
    report.refused += told.iter().filter(|told| told.is_refused()).count() as u64;
    report.unrecorded += told.iter().filter(|told| told.says == "unrecorded").count() as u64;
    let mut answers = told.iter().filter(|told| told.is_answer());
    if answers.any(|told| before.first() != Some(&told.body)) {
        return Err("an answer is not what happened");
    }
    match last.says.as_str() {
        "replayed" if after == before && before.first() == Some(&last.body) => {
            report.replayed += 1;
        }
        "executed" if before.is_empty() && after.first() == Some(&last.body) => report.ran += 1,
        "unknown" if after == before && !promised => report.unknown += 1,
        "gone" if after == before && before.len() == 1 => report.not_kept += 1,
        _ => return Err("the last word does not fit"),
    }
    Ok(())
}

/// What a key is answered once nothing is in progress and the upstream takes it.
async fn last_word(address: SocketAddr, key: &str) -> Result<Told, String> {
    for _ in 0..ASKS_MAX {
        match ask(address, key).await {
            Some(told) if !["in-progress", "not-executed"].contains(&told.says.as_str()) => {
                return Ok(told);
            }
            Some(_) | None => sleep(ASK_EVERY).await,
        }
    }
    Err(format!("{key}: no last word"))
}
