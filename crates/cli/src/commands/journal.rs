//! `onlyonce journal check`, `backup`, `restore` and `salvage`

use std::path::Path;

use onlyonce_journal::{Backup, Journal, JournalErrorKind, Restored, Settings};

use crate::args::JournalCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::socket::Client;
use crate::operate::{Ask, Told, time};
use crate::output;
use crate::place::{KEY_AHEAD_MAX, now};
use crate::progress::Bar;

pub(crate) async fn run(command: JournalCommand) -> Result<(), Failure> {
    match command {
        JournalCommand::Check { dir } => check(&dir),
        JournalCommand::Backup { dir, to } => backup(&dir, &to).await,
        JournalCommand::Restore { from, to } => restore(&from, &to),
        JournalCommand::Salvage { from, to } => salvage(&from, &to),
    }
}

fn check(dir: &Path) -> Result<(), Failure> {
    let bar = Bar::reading("reading");
    let report = onlyonce_journal::check_with(dir, &|at, of| bar.at(at, of));
    drop(bar);
    let report = report?;
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

async fn backup(dir: &Path, to: &Path) -> Result<(), Failure> {
    let bar = Bar::waiting("copying");
    let Backup { segments, shelves, bytes } = match Journal::open(dir, Settings::default()) {
        Ok(journal) => {
            let made = journal.backup(to, now());
            journal.close();
            made?
        }
        Err(error) if error.kind() == JournalErrorKind::Locked => by_holder(dir, to).await?,
        Err(error) => return Err(error.into()),
    };
    drop(bar);
    let (to, dir) = (to.display(), dir.display());
    let what = format!("{segments} segments, {shelves} shelves, {bytes} bytes");
    output::line(&format!("a backup of {dir} is in {to}: {what}"))?;
    output::line(
        "it holds the secret and all replies: keep it as safe as the journal, and make a journal \
         of it with `onlyonce journal restore`",
    )
    .map_err(Failure::from)
}

/// Has the process that has the journal make the backup.
async fn by_holder(dir: &Path, to: &Path) -> Result<Backup, Failure> {
    // It may have been started in another folder.
    let to = std::path::absolute(to)?;
    let to = to.to_str().ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{}: the name must be UTF-8", to.display()))
    })?;
    let told = Client::new(dir).ask(&Ask::Backup { to: to.to_owned() }).await?.done()?;
    let Told::BackedUp { segments, shelves, bytes } = told else {
        return Err(Failure::new(Exit::Unknown, "the answer is not understood"));
    };
    Ok(Backup { segments, shelves, bytes })
}

fn restore(from: &Path, to: &Path) -> Result<(), Failure> {
    let bar = Bar::reading("restoring");
    let progress = |at, of| bar.at(at, of);
    let restored = onlyonce_journal::restore_with(from, to, now(), KEY_AHEAD_MAX, &progress);
    drop(bar);
    let restored = restored?;
    let Restored { records, made_unknown, taken, floor } = restored;
    let (to, floor) = (to.display(), time(floor));
    let taken = match taken {
        Some(taken) => format!("after the backup was taken at {}", time(taken)),
        None => format!("after {} was last written to", from.display()),
    };
    output::line(&format!(
        "{records} records are in {to}; {made_unknown} of them are unknown now, see `onlyonce keys \
         list --state unknown`",
    ))?;
    output::line(&format!("keys with a time from before {floor} that have no record are refused"))?;
    output::line(&format!(
        "beware: keys without a time that first ran {taken} have no record, and would run again"
    ))
    .map_err(Failure::from)
}

fn salvage(from: &Path, to: &Path) -> Result<(), Failure> {
    let bar = Bar::reading("saving");
    let progress = |at, of| bar.at(at, of);
    let salvaged = onlyonce_journal::salvage_with(from, to, now(), KEY_AHEAD_MAX, &progress);
    drop(bar);
    let salvaged = salvaged?;
    for finding in &salvaged.lost {
        output::line(&format!("lost: {finding}"))?;
    }
    output::line(&format!(
        "{} records are in {}; {} of them are unknown now, see `onlyonce keys list --state \
         unknown`",
        salvaged.records,
        to.display(),
        salvaged.made_unknown,
    ))
    .map_err(Failure::from)
}
