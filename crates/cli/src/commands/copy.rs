//! `onlyonce store copy`: all records of a store at rest, to a new store that takes its place.
//!
//! Both stores carry a mark while it goes on, and the old one for ever: see [`crate::moved`]. One
//! swap of the old store's mark decides that the new one takes over; whoever gives the copy up
//! swaps the same mark, so one of the two happens.

use std::sync::Arc;

use clap::Args;
use onlyonce_core::{Fence, Holder, KeyId, Record, State, Timestamp};
use onlyonce_journal::{Settings, Start};
use onlyonce_store::{Cursor, Filter, Page, Store, Swap};
use tokio::task::JoinSet;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved::{self, Mark, Role};
use crate::open;
use crate::operate::time;
use crate::output;
use crate::place::{Opened, Place, time_of};
use crate::progress::Bar;
use crate::set;
use crate::vault;

/// Writes that are on their way at once, so that they share a sync or a round trip.
const AT_ONCE: usize = 64;
/// Keys that are named when a copy is refused.
const NAMED_MAX: usize = 20;

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// The store whose records are copied
    #[arg(value_name = "FROM")]
    from: Place,
    /// Where the new store is made; there must be none
    #[arg(value_name = "TO")]
    to: Place,
    /// No process uses FROM, and none will: for stores that several processes can have open
    #[arg(long)]
    at_rest: bool,
    /// Do not go on with a copy that was cut off: FROM is used again, TO is not
    #[arg(long, conflicts_with = "at_rest")]
    give_up: bool,
}

pub(crate) async fn run(args: CopyArgs) -> Result<(), Failure> {
    let CopyArgs { from, to, at_rest, give_up } = args;
    let names = (from.to_string(), to.to_string());
    if names.0 == names.1 {
        return Err(Failure::new(Exit::Usage, "FROM and TO are the same store"));
    }
    let named = set::each(&to)?;
    if let Some(both) = set::each(&from)?.iter().find(|it| named.contains(it)) {
        return Err(Failure::new(Exit::Usage, format!("{both} is in FROM and in TO")));
    }
    let opened = from.open_marked(Settings::default()).await?;
    if let Opened::Spread(set) = &opened {
        set.refuse_moving(&from)?;
    }
    let done = if give_up {
        self::give_up(&*opened.store(), &names).await
    } else {
        let copying = Copying { from: opened.store(), place: from, names, at_rest };
        copying.to(&to, &opened).await
    };
    opened.close();
    done
}

async fn give_up(from: &dyn Store, (from_name, to_name): &(String, String)) -> Result<(), Failure> {
    let refused = |text: &str| Failure::new(Exit::Refused, format!("{from_name}: {text}"));
    let mark = match Mark::read(from).await? {
        Some(mark) if mark.role == Role::Leaving && mark.names(to_name) => mark,
        Some(mark) => return Err(mark.refusal(from_name)),
        None => return Err(refused("no copy of it was begun")),
    };
    if !mark.remove(from).await? {
        return Err(refused("the copy has gone on meanwhile"));
    }
    output::line(&format!(
        "{from_name} may be used again. What was made in {to_name} cannot be used: delete it, or \
         copy again"
    ))
    .map_err(Failure::from)
}

/// What there is to copy.
#[derive(Default)]
struct Seen {
    records: usize,
    /// The length of the largest answer, in bytes, and whose it is.
    largest: Option<(usize, KeyId)>,
}

/// A copy on its way.
struct Copying {
    from: Arc<dyn Store>,
    place: Place,
    /// As they are shown.
    names: (String, String),
    at_rest: bool,
}

impl Copying {
    async fn to(&self, place: &Place, opened: &Opened) -> Result<(), Failure> {
        let (from_name, to_name) = &self.names;
        if !self.from.is_exclusive() && !self.at_rest {
            let text = format!("{from_name}: other processes may have it open, and run keys");
            return Err(Failure::new(Exit::Usage, text)
                .with_hint("stop all of them, see to it that none starts, and say --at-rest"));
        }
        let mark = Mark::read(&*self.from).await?;
        if let Some(mark) = &mark
            && (mark.role == Role::Arriving || !mark.names(to_name))
        {
            return Err(mark.refusal(from_name));
        }
        if let Some(mark) = mark.as_ref().filter(|mark| mark.role == Role::Left) {
            let target = place.open_marked(Settings::default()).await?;
            let done = self.take_over(&*target.store(), mark).await;
            target.close();
            return done;
        }
        open::refuse(&self.place).await?;
        let seen = self.survey().await?;
        let start = Start::Strict { floor: self.from.floor().await? };
        match place.make(start, Some(opened.secret())).await {
            Ok(()) => {}
            // What an earlier attempt has made goes on.
            Err(failure) if failure.exit == Exit::Refused => {}
            Err(failure) => return Err(failure),
        }
        let target = place.open_marked(Settings::default()).await?;
        let done = self.fill(&target, opened, mark, &seen).await;
        target.close();
        done
    }

    /// Puts marks on both stores, copies, compares, and lets the new one take over.
    async fn fill(
        &self,
        target: &Opened,
        opened: &Opened,
        mark: Option<Mark>,
        seen: &Seen,
    ) -> Result<(), Failure> {
        let (from_name, to_name) = &self.names;
        let (from, to) = (&*self.from, target.store());
        if target.secret() != opened.secret() {
            let text = format!("{to_name}: there is a store already; it is left as it is");
            return Err(Failure::new(Exit::Refused, text)
                .with_hint("a copy makes a new store, with the secret of the old one"));
        }
        let arriving = self.arriving(&*to, mark.as_ref().map(|mark| mark.copy)).await?;
        if let Some((_, id)) = seen.largest.filter(|(length, _)| to.reply_max() < *length) {
            let text = format!("key {id}: its answer is too large for {to_name}");
            return Err(Failure::new(Exit::Partly, text).with_hint(format!(
                "{from_name} is as it was; what was made in {to_name} is empty and cannot be used. \
                 `onlyonce keys erase` takes an answer away"
            )));
        }
        let records = seen.records;
        let least = from.revision_max().await?.max(arriving.copy.get());
        let role = (Role::Leaving, to_name.as_str(), Some(arriving.copy));
        let leaving = match mark {
            Some(mark) => mark,
            None => {
                let written = Mark::write(from, None, role, least).await?;
                written.ok_or_else(|| self.disturbed(from_name))?
            }
        };
        // One that claimed before the mark was there is open now, or was seen before.
        open::refuse(&self.place).await.map_err(|failure| self.midway(failure))?;
        let largest = from.revision_max().await?;
        // They are copied as they are, and may need the same keys there.
        let carried = vault::carry(&vault::names(opened).await?, target).await;
        carried.map_err(|failure| self.midway(failure))?;
        let copied = self.copy(&to, arriving, (records, largest)).await;
        copied.map_err(|failure| self.midway(failure))?;
        // From here on the new store has taken over.
        let role = (Role::Left, to_name.as_str(), Some(leaving.copy));
        let written = Mark::write(from, Some(&leaving), role, 0).await;
        let left = written.map_err(|failure| self.midway(failure))?;
        let left = left.ok_or_else(|| self.midway(self.disturbed(from_name)))?;
        self.take_over(&*to, &left).await.map_err(|failure| self.midway(failure))?;
        output::line(&format!("{records} records of {from_name} are in {to_name}"))?;
        output::line(&format!(
            "{from_name} has given them up: no command uses it any more. Start with `--store \
             {to_name}` from now on, and keep or delete the old store as you like"
        ))
        .map_err(Failure::from)
    }

    /// Marks the new store, which must be empty or be what this copy has made of it.
    async fn arriving(&self, to: &dyn Store, copy: Option<Fence>) -> Result<Mark, Failure> {
        let (from_name, to_name) = &self.names;
        let refused = |text: &str| Failure::new(Exit::Refused, format!("{to_name}: {text}"));
        match Mark::read(to).await? {
            Some(mark) if mark.role != Role::Arriving || !mark.names(from_name) => {
                Err(mark.refusal(to_name))
            }
            Some(mark) if copy.is_some_and(|copy| copy != mark.copy) => {
                Err(refused("it was begun by another copy"))
            }
            Some(mark) => Ok(mark),
            None => {
                let page = to.list(Filter { limit: 1, ..Filter::default() }, None).await?;
                if !(page.records.is_empty() && page.damaged.is_empty()) {
                    return Err(refused("it has records already; it is left as it is"));
                }
                let role = (Role::Arriving, from_name.as_str(), copy);
                let least = self.from.revision_max().await?;
                let written = Mark::write(to, None, role, least).await?;
                written.ok_or_else(|| self.disturbed(to_name))
            }
        }
    }

    /// Looks at every record before anything is changed.
    async fn survey(&self) -> Result<Seen, Failure> {
        let from_name = &self.names.0;
        let bar = Bar::counting("records read");
        let (mut seen, mut bad, mut after) = (Seen::default(), Vec::new(), None);
        loop {
            let page = self.page(&*self.from, &mut after).await?;
            let present = time_of(&*self.from).await?;
            bad.extend(page.damaged.iter().map(|(id, error)| format!("{id}: {error}")));
            for (id, record) in page.records.iter().filter(|(id, _)| moved::is_of_key(*id)) {
                seen.records += 1;
                seen.largest = seen.largest.max(Some((answer_length(record), *id)));
                bar.more(1);
                if let Some(until) = self.is_run(record, present) {
                    let until = time(until);
                    bad.push(format!("{id}: a process has a claim of it until {until}"));
                }
            }
            if after.is_none() {
                break;
            }
        }
        drop(bar);
        if bad.is_empty() {
            return Ok(seen);
        }
        let more = bad.len().saturating_sub(NAMED_MAX);
        bad.truncate(NAMED_MAX);
        let more = if 0 < more { format!("\nand {more} more") } else { String::new() };
        let text = format!("{from_name} cannot be copied:\n{}{more}", bad.join("\n"));
        let hint = "stop its process, or wait: a claim whose process is gone ends with its time";
        Err(Failure::new(Exit::Refused, text).with_hint(hint))
    }

    /// Until when, if the process that has the claim would have the store open. Claims that were
    /// made through the record service name no process: their holders may go on at the new place.
    fn is_run(&self, record: &Record, present: Timestamp) -> Option<Timestamp> {
        let State::InFlight(flight) = &record.state else { return None };
        let process = flight.holder != Holder::default() && !self.from.is_exclusive();
        (process && present < flight.lease_until).then_some(flight.lease_until)
    }

    /// Copies what is not there yet, and reads both stores again to compare them.
    async fn copy(
        &self,
        to: &Arc<dyn Store>,
        arriving: Mark,
        (records, largest): (usize, u64),
    ) -> Result<(), Failure> {
        let (from_name, to_name) = &self.names;
        // Before the first record: what keeps its key when the record is gone.
        to.raise_floor(self.from.floor().await?).await?;
        if to.revision_max().await? < largest {
            let role = (Role::Arriving, from_name.as_str(), Some(arriving.copy));
            let written = Mark::write(&**to, Some(&arriving), role, largest).await?;
            written.ok_or_else(|| self.disturbed(to_name))?;
        }
        let bar = Bar::reading("copying");
        let (mut done, mut after) = (0, None);
        let mut writes = JoinSet::new();
        loop {
            let page = self.page(&*self.from, &mut after).await?;
            self.refuse_damaged(from_name, &page)?;
            for (id, record) in page.records.into_iter().filter(|(id, _)| moved::is_of_key(*id)) {
                if AT_ONCE <= writes.len() {
                    joined(writes.join_next().await)?;
                }
                writes.spawn(put(Arc::clone(to), id, record));
                done += 1;
                bar.at(done, 2 * records.max(1));
            }
            if after.is_none() {
                break;
            }
        }
        while !writes.is_empty() {
            joined(writes.join_next().await)?;
        }
        self.compare(&**to, records, &bar).await?;
        let same = done == records
            && self.from.revision_max().await? == largest
            && largest <= to.revision_max().await?
            && self.from.floor().await? <= to.floor().await?;
        if same { Ok(()) } else { Err(self.disturbed(from_name)) }
    }

    /// That both stores hold the same records.
    async fn compare(&self, to: &dyn Store, records: usize, bar: &Bar) -> Result<(), Failure> {
        let (from_name, to_name) = &self.names;
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.page(to, &mut after).await?;
            self.refuse_damaged(to_name, &page)?;
            for (id, record) in page.records.iter().filter(|(id, _)| moved::is_of_key(*id)) {
                count += 1;
                bar.at(records + count, 2 * records.max(1));
                if self.from.get(*id).await?.as_ref() != Some(record) {
                    let text = format!("key {id} is not the same in {from_name} and {to_name}");
                    return Err(Failure::new(Exit::Refused, text));
                }
            }
            if after.is_none() {
                break;
            }
        }
        if count == records { Ok(()) } else { Err(self.disturbed(from_name)) }
    }

    /// Lets the new store be used, once the old one has given its records up.
    async fn take_over(&self, to: &dyn Store, left: &Mark) -> Result<(), Failure> {
        let (from_name, to_name) = &self.names;
        match Mark::read(to).await? {
            Some(mark) if mark.role == Role::Arriving && mark.copy == left.copy => {
                // If it does not stand any more, somebody else has done the same.
                mark.remove(to).await?;
                Ok(())
            }
            Some(mark) => Err(mark.refusal(to_name)),
            None => Ok(output::line(&format!("{from_name} was moved to {to_name} before"))?),
        }
    }

    /// The next page, and where the one after it begins.
    async fn page(&self, store: &dyn Store, after: &mut Option<Cursor>) -> Result<Page, Failure> {
        let mut page = store.list(Filter::default(), after.take()).await?;
        *after = page.next.take();
        Ok(page)
    }

    fn refuse_damaged(&self, name: &str, page: &Page) -> Result<(), Failure> {
        let Some((id, error)) = page.damaged.first() else { return Ok(()) };
        Err(Failure::new(Exit::Refused, format!("{name}: {id}: {error}")))
    }

    fn disturbed(&self, name: &str) -> Failure {
        let text = format!("{name}: somebody else has changed it meanwhile: it is not at rest");
        Failure::new(Exit::Refused, text)
    }

    /// A failure after the old store was marked.
    fn midway(&self, failure: Failure) -> Failure {
        let (from, to) = &self.names;
        let exit = match failure.exit {
            Exit::Unknown | Exit::Poisoned => failure.exit,
            Exit::Done
            | Exit::Refused
            | Exit::Usage
            | Exit::StoreUnavailable
            | Exit::Unavailable
            | Exit::Partly => Exit::Partly,
        };
        let hint = format!(
            "neither store can be used now: the same command goes on, and `onlyonce store copy \
             {from} {to} --give-up` lets {from} be used again"
        );
        Failure { exit, ..failure }.with_hint(hint)
    }
}

/// How many bytes of an answer are kept.
fn answer_length(record: &Record) -> usize {
    match &record.state {
        State::Completed { reply, .. } => reply.content().map_or(0, |content| content.len()),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => 0,
    }
}

/// Puts a record as it is, in the place of nothing or of an older one.
async fn put(to: Arc<dyn Store>, id: KeyId, record: Record) -> Result<(), Failure> {
    let mut expected = None;
    loop {
        match to.swap(id, expected, Some(record.clone())).await? {
            Swap::Done => return Ok(()),
            Swap::Conflict(Some(found)) if found == record => return Ok(()),
            // Left by an attempt that was given up.
            Swap::Conflict(Some(found))
                if expected.is_none() && found.revision < record.revision =>
            {
                expected = Some(found.revision);
            }
            Swap::Conflict(_) => {
                let text = format!("key {id} has another record there");
                return Err(Failure::new(Exit::Refused, text));
            }
        }
    }
}

fn joined(
    ended: Option<Result<Result<(), Failure>, tokio::task::JoinError>>,
) -> Result<(), Failure> {
    match ended {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(Failure::new(Exit::Unknown, error.to_string())),
        None => Ok(()),
    }
}
