//! `onlyonce store restored`: a shared store that was put back from an older copy is made safe to
//! use.
//!
//! While it goes on the store carries a mark, so that no command uses it by half: see
//! [`crate::moved`]. What becomes of records is the engine's business.

use std::sync::Arc;

use clap::Args;
use onlyonce::{Engine, Restored, Runtime as _, Settings};
use onlyonce_core::{Holder, KeyId, Record, State, StateKind, Timestamp};
use onlyonce_failpoint::failpoint;
use onlyonce_store::transaction::SWEPT;
use onlyonce_store::{Filter, Store};
use onlyonce_tokio::TokioRuntime;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved::{self, Mark, Role};
use crate::operate::time;
use crate::output;
use crate::place::{KEY_AHEAD_MAX, Opened, Place, now, time_of};
use crate::progress::Bar;
use crate::vault;

/// Keys that are named when something is wrong with them.
const NAMED_MAX: usize = 20;

#[derive(Args, Debug)]
pub(crate) struct RestoredArgs {
    /// The store that was put back: sqlite:FILE, postgres://.., mysql://.., redis://.., etcd://..,
    /// or spread:FILE if a member was
    #[arg(long, value_name = "URL", env = "ONLYONCE_STORE", hide_env_values = true)]
    store: Place,
    /// No process uses it, and none will before this has ended
    #[arg(long)]
    at_rest: bool,
    /// The clock is right, although the store was last written more than a year ago
    #[arg(long)]
    clock_is_right: bool,
    /// Why it was put back; kept in the history of each key that becomes unknown
    #[arg(long, value_name = "TEXT", default_value = "put back from an older copy")]
    why: String,
    /// Who you are; kept there too
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "unnamed"
    )]
    by: String,
}

pub(crate) async fn run(args: RestoredArgs) -> Result<(), Failure> {
    let RestoredArgs { store: place, at_rest, clock_is_right, why, by } = args;
    if let Place::Journal(dir) = &place {
        let dir = dir.display();
        let text = format!("{place}: a journal is put back by another command, into a new folder");
        return Err(Failure::new(Exit::Usage, text)
            .with_hint(format!("`onlyonce journal restore {dir} NEW`")));
    }
    if !at_rest {
        let text = format!("{place}: other processes may have it open, and run keys");
        return Err(Failure::new(Exit::Usage, text)
            .with_hint("stop all of them, see to it that none starts, and say --at-rest"));
    }
    let opened = place.open_restored().await?;
    if let Opened::Spread(set) = &opened {
        set.refuse_moving(&place)?;
    }
    let restoring = Restoring { name: place.to_string(), clock_is_right, why, by };
    let done = restoring.run(&opened).await;
    opened.close();
    done
}

/// What is being done.
struct Restoring {
    /// The store, as it is shown.
    name: String,
    clock_is_right: bool,
    why: String,
    by: String,
}

impl Restoring {
    async fn run(&self, opened: &Opened) -> Result<(), Failure> {
        let store = opened.store();
        let mark = match Mark::read(&*store).await? {
            Some(mark) if mark.role != Role::Restoring => return Err(mark.refusal(&self.name)),
            mark => mark,
        };
        let runtime = Arc::new(TokioRuntime::new());
        let settings = Settings { clock_is_right: self.clock_is_right, ..Settings::default() };
        // Before anything is changed: this is where a clock that cannot be right is found.
        let engine = Engine::start(Arc::clone(&store), runtime.clone(), settings, None).await?;
        self.refuse_use(&*store, &runtime).await?;
        let mark = match mark {
            Some(mark) => mark,
            None => {
                let written = Mark::write(&*store, None, (Role::Restoring, "", None), 0).await?;
                written.ok_or_else(|| self.disturbed())?
            }
        };
        let behind = match opened {
            Opened::Spread(set) => set.behind().await?,
            Opened::Journal { .. }
            | Opened::Sqlite(_)
            | Opened::Postgres(_)
            | Opened::Mysql(_)
            | Opened::Redis(_)
            | Opened::Etcd(_) => Vec::new(),
        };
        for member in behind {
            output::line(&format!(
                "beware: {member} knows an older map: if it was put back from before keys moved \
                 to or from it, those that had moved there and carry no time have no record, and \
                 would run again"
            ))?;
        }
        let (restored, records) =
            self.make_safe(opened, &engine, mark).await.map_err(|failure| self.midway(failure))?;
        self.tell(&restored, records)
    }

    /// Refuses a store that a process is seen to use: one that has a claim, and may be alive.
    async fn refuse_use(&self, store: &dyn Store, runtime: &TokioRuntime) -> Result<(), Failure> {
        let (mut used, mut after) = (Vec::new(), None);
        loop {
            let filter = Filter { state: Some(StateKind::InFlight), limit: 0 };
            let page = store.list(filter, after).await?;
            let present = time_of(store).await?;
            let runs = page.records.iter().filter_map(|(id, record)| {
                let until = held_until(record, runtime, present)?;
                Some(format!("{id}: a process has a claim of it until {}", time(until)))
            });
            used.extend(runs);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if used.is_empty() {
            return Ok(());
        }
        let text = format!("{} may be in use:\n{}", self.name, named(used));
        let hint = "stop its process, or wait: a claim whose process is gone ends with its time";
        Err(Failure::new(Exit::Refused, text).with_hint(hint))
    }

    /// Everything that is done while the store carries the mark, and how many records there are.
    async fn make_safe(
        &self,
        opened: &Opened,
        engine: &Engine,
        mark: Mark,
    ) -> Result<(Restored, u64), Failure> {
        let store = opened.store();
        let bar = Bar::counting("open records looked at");
        let progress = |seen| bar.at_count(seen);
        let done = engine.restored(KEY_AHEAD_MAX, &self.by, &self.why, &progress).await;
        drop(bar);
        let restored = done?;
        if let Opened::Spread(set) = opened {
            // A member that was put back may know an older map.
            set.spread.republish(now()).await?;
        }
        let records = self.count(opened).await?;
        failpoint!("restored.mark.before", records);
        if !mark.remove(&*store).await? {
            return Err(self.disturbed());
        }
        failpoint!("restored.mark.after", records);
        // The last step: a store of another cluster is refused until then.
        opened.settle_in().await?;
        Ok((restored, records))
    }

    /// How many keys have a record.
    async fn count(&self, opened: &Opened) -> Result<u64, Failure> {
        let Opened::Spread(set) = opened else {
            // Without the mark, the names of keys that answers may need, and word of sweepers.
            let named = u64::from(!vault::names(opened).await?.is_empty());
            let swept = u64::from(opened.store().get(SWEPT).await?.is_some());
            return Ok(opened.records().await?.saturating_sub(1 + named + swept));
        };
        // A member that was put back may have some that live elsewhere by now.
        let (mut count, mut after) = (0, None);
        loop {
            let page = set.spread.list(Filter::default(), after).await?;
            count += page.records.iter().filter(|(id, _)| moved::is_of_key(*id)).count() as u64;
            after = page.next;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    fn tell(&self, restored: &Restored, records: u64) -> Result<(), Failure> {
        let Restored { made_unknown, floor, damaged } = restored;
        let (name, floor) = (&self.name, time(floor.time()));
        output::line(&format!(
            "{records} records are in {name}; {made_unknown} of them were running or free and are \
             unknown now, see `onlyonce keys list --state unknown`"
        ))?;
        output::line(&format!(
            "keys with a time from before {floor} that have no record are refused"
        ))?;
        output::line(
            "beware: keys without a time that first ran after the copy was made have no record, \
             and would run again; answers that were erased since are there again",
        )?;
        if damaged.is_empty() {
            return Ok(());
        }
        let all = damaged.iter().map(|(id, error): &(KeyId, _)| format!("{id}: {error}"));
        let text = format!(
            "{name} can be used, and nothing runs under these keys, whose records cannot be \
             read:\n{}",
            named(all.collect())
        );
        Err(Failure::new(Exit::Partly, text))
    }

    fn disturbed(&self) -> Failure {
        let text = format!("{}: somebody else has changed it meanwhile", self.name);
        Failure::new(Exit::Refused, text)
    }

    /// A failure after the store was marked.
    fn midway(&self, failure: Failure) -> Failure {
        let exit = match failure.exit {
            Exit::Unknown | Exit::Poisoned => failure.exit,
            Exit::Done
            | Exit::Refused
            | Exit::Usage
            | Exit::StoreUnavailable
            | Exit::Unavailable
            | Exit::Partly => Exit::Partly,
        };
        let hint = format!("{} cannot be used now: the same command goes on", self.name);
        Failure { exit, ..failure }.with_hint(hint)
    }
}

/// Until when a process has this claim that would have the store open and is not known to be gone.
/// Claims that were made through the record service name no process.
fn held_until(record: &Record, runtime: &TokioRuntime, present: Timestamp) -> Option<Timestamp> {
    let State::InFlight(flight) = &record.state else { return None };
    let is_alive = flight.holder != Holder::default() && !runtime.is_gone(&flight.holder);
    (is_alive && present < flight.lease_until).then_some(flight.lease_until)
}

/// The first of them, a line each.
pub(crate) fn named(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(NAMED_MAX);
    lines.truncate(NAMED_MAX);
    let more = if 0 < more { format!("\nand {more} more") } else { String::new() };
    lines.join("\n") + &more
}
