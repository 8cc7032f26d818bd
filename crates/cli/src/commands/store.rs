//! `onlyonce store init`

use crate::args::StoreCommand;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(command: StoreCommand) -> Result<(), Failure> {
    let StoreCommand::Init { store, first } = command;
    output::line(&store.store.init(first).await?)?;
    if !first {
        output::line(
            "it is strict: keys with a time from before now and five minutes are refused, since a \
             lost store may have known them",
        )?;
    }
    Ok(())
}
