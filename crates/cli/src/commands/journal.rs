//! `onlyonce journal check` and `onlyonce journal salvage`

use crate::args::JournalCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::{KEY_AHEAD_MAX, now};

pub(crate) fn run(command: JournalCommand) -> Result<(), Failure> {
    match command {
        JournalCommand::Check { dir } => {
            let report = onlyonce_journal::check(&dir)?;
            for finding in &report.findings {
                output::line(&finding.to_string())?;
            }
            let (segments, entries) = (report.segments, report.entries);
            output::line(&format!("{segments} segments, {entries} entries about keys read"))?;
            if report.is_damaged() {
                let text = format!("{}: the journal is damaged", dir.display());
                let hint = "`onlyonce journal salvage DIR NEW` saves what can be read";
                return Err(Failure::new(Exit::Refused, text).with_hint(hint));
            }
            Ok(())
        }
        JournalCommand::Salvage { from, to } => {
            let salvaged = onlyonce_journal::salvage(&from, &to, now(), KEY_AHEAD_MAX)?;
            for finding in &salvaged.lost {
                output::line(&format!("lost: {finding}"))?;
            }
            output::line(&format!(
                "{} records are in {}; {} of them are unknown now, see `onlyonce keys list --state \
                 unknown`",
                salvaged.records,
                to.display(),
                salvaged.made_unknown,
            ))?;
            Ok(())
        }
    }
}
