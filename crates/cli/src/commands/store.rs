//! `onlyonce store init`

use onlyonce_journal::{Journal, Settings, Start};

use crate::args::StoreCommand;
use crate::failure::Failure;
use crate::output;
use crate::place::strict;

pub(crate) fn run(command: StoreCommand) -> Result<(), Failure> {
    let StoreCommand::Init { store, first } = command;
    let start = if first { Start::First } else { strict() };
    let dir = store.store.dir();
    Journal::init(dir, Settings::default(), start)?;
    output::line(&format!("made a journal in {}", dir.display()))?;
    if !first {
        output::line(
            "it is strict: keys with a time from before now and five minutes are refused, since a \
             lost store may have known them",
        )?;
    }
    output::line("keep its file `secret` with your backups: without it no record can be found")
        .map_err(Failure::from)
}
