//! Whether everything that was promised was kept.

use std::collections::BTreeMap;
use std::fmt;

use onlyonce_testbed::MailRelay;

use super::server::{Kind, Mx};
use super::shop::{Shop, name};

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) messages: usize,
    pub(crate) kills: usize,
    /// Words, or answers to words, that were lost.
    pub(crate) cuts: usize,
    pub(crate) sent: usize,
    pub(crate) refused: usize,
    /// How many were in doubt when nothing went wrong any more.
    pub(crate) unknown: usize,
    /// How many of these are left when whoever can be asked was asked.
    pub(crate) unknown_in_the_end: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, messages, kills, cuts, sent, refused, unknown, unknown_in_the_end } = self;
        write!(
            f,
            "{kind:?}: {messages} messages, {kills} kills, {cuts} cuts: {sent} sent, {refused} \
             refused; {unknown} in doubt, and {unknown_in_the_end} once whoever knows was asked"
        )
    }
}

/// Everything, from the outside and from the inside, at one moment at which nothing is on its way.
pub(crate) struct Counts {
    /// Where each message is: `queue` (then it is in doubt), `sent` or `refused`.
    shelves: BTreeMap<String, &'static str>,
    /// How often its end was said, at a relay before the server.
    ends: BTreeMap<String, usize>,
    /// How often the server has taken it.
    taken: BTreeMap<String, usize>,
    /// How often the server has refused its end for now.
    again: BTreeMap<String, usize>,
}

impl Counts {
    pub(crate) fn taken(shop: &Shop, mx: &Mx, relay: &MailRelay) -> Result<Self, String> {
        let mut shelves = BTreeMap::new();
        for shelf in ["queue", "sent", "refused"] {
            for to in shop.recipients(shelf)? {
                if let Some(other) = shelves.insert(to.clone(), shelf) {
                    return Err(format!("{to} is on two shelves: {other} and {shelf}"));
                }
            }
        }
        let status = shop.status()?;
        let said = ["unknown", "sent", "refused"].map(|it| status[it]["messages"].as_u64());
        let counts =
            Self { shelves, ends: relay.all_ends(), taken: mx.taken(), again: mx.refused_ends() };
        let found = [counts.unknown(), counts.sent(), counts.refused()];
        if said != found.map(|it| Some(it as u64)) {
            return Err(format!("the status says {status}, and there are {found:?}"));
        }
        Ok(counts)
    }

    fn on(&self, shelf: &str) -> usize {
        self.shelves.values().filter(|it| **it == shelf).count()
    }

    pub(crate) fn unknown(&self) -> usize {
        self.on("queue")
    }

    pub(crate) fn sent(&self) -> usize {
        self.on("sent")
    }

    pub(crate) fn refused(&self) -> usize {
        self.on("refused")
    }

    /// Of one message: its shelf, its ends, how often it was taken and refused for now.
    fn of(&self, to: &str) -> Result<(&'static str, usize, usize, usize), String> {
        let shelf = self.shelves.get(to).ok_or_else(|| format!("{to} is lost"))?;
        let count = |all: &BTreeMap<String, usize>| all.get(to).copied().unwrap_or(0);
        Ok((shelf, count(&self.ends), count(&self.taken), count(&self.again)))
    }
}

/// Before anybody is asked: each end was said once, and once more after each refusal for now.
pub(crate) fn before(counts: &Counts, messages: usize) -> Result<(), String> {
    each(counts, messages, |_, ends, again| ends <= 1 + again)
}

/// In the end: once more too where it was found that the server did not have it.
pub(crate) fn after(before: &Counts, after: &Counts, messages: usize) -> Result<(), String> {
    each(after, messages, |to, ends, _| {
        let (shelf, ends_before, taken, _) = before.of(to).unwrap_or(("queue", 0, 0, 0));
        let may_again = shelf == "queue" && taken == 0;
        ends <= ends_before + usize::from(may_again)
    })
}

fn each(
    counts: &Counts,
    messages: usize,
    are_allowed: impl Fn(&str, usize, usize) -> bool,
) -> Result<(), String> {
    if counts.shelves.len() != messages {
        return Err(format!(
            "{} messages were taken in, and {messages} wanted",
            counts.shelves.len()
        ));
    }
    for to in (0..messages).map(name) {
        let (shelf, ends, taken, again) = counts.of(&to)?;
        let is_true = match shelf {
            "sent" => taken == 1,
            "refused" => taken == 0,
            // It may have been killed between the mark and the end.
            _ => taken <= 1,
        };
        if !is_true || !are_allowed(&to, ends, again) {
            let seen = format!("{ends} ends, {again} refused for now, taken {taken} times");
            return Err(format!("{to} is in {shelf}: {seen}"));
        }
    }
    Ok(())
}
