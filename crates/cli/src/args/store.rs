//! `onlyonce store`: a new store, several as one, and what is done to one as a whole.

use clap::Subcommand;

use super::StoreArgs;
use crate::commands::choose::ChooseArgs;
use crate::commands::copy::CopyArgs;
use crate::commands::migrate::MigrateArgs;
use crate::commands::restored::RestoredArgs;
use crate::commands::spread::{RebalanceArgs, SpreadArgs};
use crate::place::Place;

#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Make a new, empty store with a secret of its own
    #[command(after_help = "\
A new store does not know what ran before it was made. So it is strict: keys that carry a time, \
such as UUIDv7, from before now and five minutes are refused, because one of them may have run \
already. Where there has never been a store there is nothing to lose: say --first.")]
    Init {
        #[command(flatten)]
        store: StoreArgs,
        /// There has never been a store for these operations
        #[arg(long)]
        first: bool,
    },
    /// Bring the tables and functions of a store to what this onlyonce makes
    #[command(after_help = "\
Say it after an update of onlyonce, as the owner of the store. If its tables are of the newest \
format, it says so; only functions in PostgreSQL or procedures in MariaDB of another onlyonce are \
made anew then. Else stop every process that uses the store and say --at-rest: an older onlyonce \
refuses the tables from then on, and a newer one those from before. A newer format is never taken \
back.

Cut off, it has changed nothing, or in MariaDB some of it; the same command goes on. Say the \
GRANTs of the store's users again after it: what is new is its owner's. A journal, Redis and etcd \
have no tables.

  onlyonce store migrate --store postgres://owner@db.example/shop
  onlyonce store migrate --at-rest --store sqlite:/var/lib/once.db")]
    Migrate(MigrateArgs),
    /// Let databases join several that are used as one, with a line for each in a file
    #[command(after_help = "\
FILE has a line for each store, all of one kind and none of them a journal; each key lives in one \
of them. Where a line names none, a store is made, with the secret and the floor of the others: it \
is to join, and has no key yet. Once every process was started with the new file, `onlyonce store \
rebalance` moves its share there.

If none is a member yet, the first line that names a store becomes the first one: stop every \
process that uses it, and say --at-rest. From then on no command opens a member alone. A set of \
new stores is made by `onlyonce store init`. docs/spread.md says more.

  onlyonce store init --first --store spread:/etc/onlyonce.stores
  onlyonce store spread --store spread:/etc/onlyonce.stores")]
    Spread(SpreadArgs),
    /// Move keys to the databases of a file that they are to live in, while processes go on
    #[command(after_help = "\
Keys move to all stores of FILE but those that --without names; each moves alone, and none runs \
twice meanwhile. Start every process with the whole file before: one that does not name a store \
that has joined is refused the keys that go there. If it is cut off, the same command goes on.

It waits 45 seconds, until no process goes by the map from before, and where keys have moved \
before as long again; with --at-rest it does not.

  onlyonce store rebalance --store spread:/etc/onlyonce.stores
  onlyonce store rebalance --store spread:/etc/onlyonce.stores --without postgres://app@old/shop")]
    Rebalance(RebalanceArgs),
    /// Say which of two records of a key counts, in a set whose keys move
    #[command(after_help = "\
While keys move, a key lives in one member until it has moved to another. If a member is put back \
from an older copy in the middle of that, or a process was stopped in the middle of a claim that \
it was not granted, a key may have a record in both, and nobody can know which counts: no claim \
of it is granted, and `onlyonce store rebalance` does not end. This shows both; with --keep one \
of them takes the place of both, and the key has moved. --of names the two that you have seen: \
others are refused, and so is a key that a process may still run.

What was answered there is the answer. What was running or free there becomes unknown, since it \
may have run by the other one: `onlyonce keys resolve` settles it. Whoever reports later what was \
granted by either is heard as ever; another answer raises an alarm, and so do two that differ.

  onlyonce store choose 5f9c0d… --store spread:/etc/our.stores
  onlyonce store choose 5f9c0d… --keep new --of 1764064800000,1764064801000 \\
    --why 'it was paid' --store spread:/etc/our.stores")]
    Choose(ChooseArgs),
    /// Move all records to a new store of any kind
    #[command(after_help = "\
FROM must be at rest: stop every process that uses it. TO is made with FROM's secret, and gets \
every record as it is, with fences, revisions and answers, and FROM's floor. Then FROM has given \
its records up: no command uses it any more, since a key that both knew could run twice.

A transaction of a program's own that is open and has used FROM is refused, since it could \
commit a claim afterwards; where the user of FROM may not look (LOCK TABLES in MariaDB), that is \
said. One that has not used it yet cannot be seen: end those too.

A copy that was cut off leaves two stores that cannot be used: the same command goes on, and \
--give-up lets FROM be used again. docs/stores-sql.md says more.

  onlyonce store copy journal:/var/lib/onlyonce postgres://owner@db.example/shop
  onlyonce store copy --at-rest sqlite:/var/lib/once.db etcd://a,b,c")]
    Copy(CopyArgs),
    /// Make a store safe to use that was put back from an older copy, such as a dump or a snapshot
    #[command(after_help = "\
An older copy does not know what ran after it was made. First keys with a time from before now and \
five minutes that have no record are refused; then every claim that was open in the copy, and \
every key that was free, becomes unknown, for `onlyonce keys resolve` to settle. What had been \
answered is answered as before. Nobody knows which keys without a time ran since: they have no \
record, and would run again.

Nothing tells a store that was put back from one that was not, but etcd where its snapshot makes \
another cluster: say this before any process opens it. If it is cut off, the store cannot be used, \
and the same command goes on. A journal is put back by `onlyonce journal restore`.

  pg_restore --clean -h db.example -d shop onlyonce.dump
  onlyonce store restored --at-rest --store postgres://app@db.example/shop")]
    Restored(RestoredArgs),
    /// Make the functions by which a program of any language claims in its own transaction
    #[command(after_help = "\
A new store in PostgreSQL has them, and one in MariaDB (10.10 or newer) has procedures, if whoever
made it may make some. This makes them in an older one, or anew after an update of onlyonce, and
needs the rights of the store's owner. docs/transaction.md says how they are called.

  onlyonce store functions --store postgres://owner@db.example/shop")]
    Functions {
        /// The store: postgres://OWNER@HOST/DATABASE or mysql://OWNER@HOST/DATABASE
        #[arg(long, value_name = "URL", env = "ONLYONCE_STORE", hide_env_values = true)]
        store: Place,
    },
}
