//! `onlyonce store spread` and `onlyonce store rebalance`: stores join a set, and keys move to the
//! members that they are to live in.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use onlyonce_spread::{Number, SETTLE_WAIT, Spread};

use crate::commands::restored::named;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved::refuse;
use crate::output;
use crate::place::{Opened, Place, now};
use crate::progress::Bar;
use crate::set::{self, Set};

#[derive(Args, Debug)]
pub(crate) struct SpreadArgs {
    /// The stores: spread:FILE
    #[arg(long, value_name = "URL", env = "ONLYONCE_STORE", hide_env_values = true)]
    store: Place,
    /// No process uses the store that becomes the first member, and none will before this has
    /// ended; not asked for where there is a set
    #[arg(long)]
    at_rest: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RebalanceArgs {
    /// The set: spread:FILE
    #[arg(long, value_name = "URL", env = "ONLYONCE_STORE", hide_env_values = true)]
    store: Place,
    /// A store of the file that keys move away from, so that it can leave the set
    #[arg(long, value_name = "URL")]
    without: Vec<Place>,
    /// No process uses the set, and none will before this has ended: then nobody is waited for
    #[arg(long)]
    at_rest: bool,
}

pub(crate) async fn join(args: SpreadArgs) -> Result<(), Failure> {
    let SpreadArgs { store, at_rest } = args;
    let joined = set::join(file(&store)?, at_rest).await?;
    let opened = Set::open(file(&store)?).await?;
    let map = set::said(&opened.spread.map());
    opened.opened().for_each(Opened::close);
    output::line(&format!("{joined} stores are to join {store}; {map}"))?;
    if 0 < joined {
        output::line(&format!(
            "start every process with `--store {store}` and all lines of the file; then `onlyonce \
             store rebalance --store {store}` moves keys there"
        ))?;
    }
    Ok(())
}

pub(crate) async fn rebalance(args: RebalanceArgs) -> Result<(), Failure> {
    let set = Set::open(file(&args.store)?).await?;
    let done = match refuse(Arc::new(set.spread.clone()), &args.store.to_string()).await {
        Ok(()) => match wanted(&set, &args) {
            Ok(wanted) => move_all(&set.spread, &args, &wanted).await,
            Err(failure) => Err(failure),
        },
        Err(failure) => Err(failure),
    };
    set.opened().for_each(Opened::close);
    done
}

/// The members that keys are to live in.
fn wanted(set: &Set, args: &RebalanceArgs) -> Result<Vec<Number>, Failure> {
    let is_named = |place: &&Place| !set.members.iter().any(|(it, ..)| it == *place);
    if let Some(place) = args.without.iter().find(is_named) {
        let text = format!("--without {place}: {} does not name it", args.store);
        return Err(Failure::new(Exit::Usage, text));
    }
    let stays = set.members.iter().filter(|(place, ..)| !args.without.contains(place));
    let mut wanted: Vec<Number> = stays.map(|(_, number, _)| *number).collect();
    wanted.sort_unstable();
    if wanted.is_empty() {
        return Err(Failure::new(Exit::Usage, "--without: keys must live somewhere"));
    }
    Ok(wanted)
}

async fn move_all(spread: &Spread, args: &RebalanceArgs, wanted: &[Number]) -> Result<(), Failure> {
    let store = &args.store;
    let mut map = spread.map();
    if !map.is_moving() {
        // Of a move that was ended and not told everywhere.
        let told = spread.republish(now()).await;
        map = told.map_err(|error| midway(store, error.into()))?;
    }
    if map.is_moving() || map.members() != wanted {
        if map.has_moved() {
            wait(args, "until no process goes by the map of the move before").await;
        }
        let begun = spread.begin(map.version(), wanted, now()).await;
        let version = begun.map_err(|error| midway(store, error.into()))?.version();
        wait(args, "until no process goes by the map from before").await;
        let moved = pass_all(spread, version).await;
        let moved = moved.map_err(|failure| midway(store, failure))?;
        output::line(&format!("{moved} keys were moved"))?;
    }
    let bar = Bar::counting("forwards taken away");
    let cleaned = spread.clean(&|count| bar.at_count(count)).await;
    drop(bar);
    let cleaned = cleaned.map_err(|error| midway(store, error.into()))?;
    if 0 < cleaned.strays {
        output::line(&format!(
            "note: {} records lie where no key is looked for, and are left as they are",
            cleaned.strays
        ))?;
    }
    let map = set::said(&spread.map());
    output::line(&format!("{store}: every key lives where it is looked for; {map}"))?;
    args.without.iter().try_for_each(|place| {
        output::line(&format!("{place} has no key any more: take its line out of the file"))
    })?;
    Ok(())
}

/// Waits until no map counts any more but the newest.
async fn wait(args: &RebalanceArgs, until: &'static str) {
    if !args.at_rest {
        let bar = Bar::waiting(until);
        tokio::time::sleep(SETTLE_WAIT).await;
        drop(bar);
    }
}

/// Passes until one finds nothing, and ends the move of the map of this version.
async fn pass_all(spread: &Spread, version: u64) -> Result<u64, Failure> {
    let bar = Bar::counting("keys moved");
    let mut moved = 0;
    loop {
        let pass = spread.pass(version, &|count| bar.at_count(moved + count)).await?;
        moved += pass.moved;
        if !pass.damaged.is_empty() {
            let all = pass.damaged.iter().map(|(id, error)| format!("{id}: {error}"));
            let text = format!(
                "{} keys cannot be read, and so not be moved:\n{}",
                pass.damaged.len(),
                named(all.collect())
            );
            return Err(Failure::new(Exit::Partly, text));
        }
        if !pass.twice.is_empty() {
            let text = format!(
                "{} keys have two records: a member may have been put back, or a process was \
                 stopped in the middle of a claim that it was not granted; no claim of them is \
                 granted:\n{}",
                pass.twice.len(),
                named(pass.twice.iter().map(ToString::to_string).collect())
            );
            return Err(Failure::new(Exit::Partly, text).with_hint(
                "`onlyonce store choose` shows both of one and lets you say which counts; then \
                 the same command goes on",
            ));
        }
        if pass.moved == 0 {
            spread.settle(&pass, now()).await?;
            return Ok(moved);
        }
    }
}

/// A failure after the move was begun.
fn midway(store: &Place, failure: Failure) -> Failure {
    if failure.hint.is_some() {
        return failure;
    }
    let text = format!(
        "the move has not ended: `onlyonce store rebalance --store {store}` with the same members \
         goes on"
    );
    failure.with_hint(text)
}

fn file(store: &Place) -> Result<&Path, Failure> {
    let Place::Spread(file) = store else {
        let text = format!("--store {store}: it must be spread:FILE, a file with a line for each");
        return Err(Failure::new(Exit::Usage, text));
    };
    Ok(file)
}
