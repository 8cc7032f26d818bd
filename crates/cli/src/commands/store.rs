//! `onlyonce store init`, `migrate`, `copy`, `spread`, `rebalance`, `choose`, `restored` and
//! `functions`

use crate::args::StoreCommand;
use crate::commands::{choose, copy, functions, migrate, restored, spread};
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(command: StoreCommand) -> Result<(), Failure> {
    let (store, first) = match command {
        StoreCommand::Init { store, first } => (store, first),
        StoreCommand::Migrate(args) => return migrate::run(args).await,
        StoreCommand::Spread(args) => return spread::join(args).await,
        StoreCommand::Rebalance(args) => return spread::rebalance(args).await,
        StoreCommand::Choose(args) => return choose::run(args).await,
        StoreCommand::Copy(args) => return copy::run(args).await,
        StoreCommand::Restored(args) => return restored::run(args).await,
        StoreCommand::Functions { store } => return functions::run(store).await,
    };
    output::line(&store.store.init(first).await?)?;
    if !first {
        output::line(
            "it is strict: keys with a time from before now and five minutes are refused, since a \
             lost store may have known them",
        )?;
    }
    Ok(())
}
