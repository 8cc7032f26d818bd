//! `onlyonce apply`

use std::collections::BTreeMap;

use onlyonce_provision::{Applied, Became, Step};
use tokio::sync::oneshot;

use super::figures::{Figures, Page};
use super::words::{self, Line};
use super::{ApplyArgs, Site, until_ended};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::progress::Board;

pub(crate) async fn run(args: ApplyArgs) -> Result<(), Failure> {
    let page = args.metrics.as_deref().map(Page::open).transpose()?;
    let site = Site::open(&args.plan, true).await?;
    let (first, stop) = oneshot::channel::<()>();
    let (mut first, mut failed) = (Some(first), None);
    let stop = async {
        // It also ends when nobody is left who could stop it.
        let _ = stop.await;
    };
    let mut teller = Teller { json: args.json, board: Board::new(), attempts: BTreeMap::new() };
    let mut figures = Figures::default();
    let tell = |key: &str, step: &Step| {
        figures.step(key, step);
        failed = teller.tell(key, step).err().or(failed.take());
    };
    let applying = site.provisioner.apply(args.parallel.into(), args.wait.into(), stop, tell);
    // Nobody is there to hear it if it has ended meanwhile.
    let ended = until_ended(applying, || _ = first.take().map(|it| it.send(()))).await;
    site.close();
    let all = ended?;
    let plan = site.provisioner.plan().name();
    let page = page.map_or(Ok(()), |page| page.put(&figures.render(plan, &all, &site.alarms)));
    failed.map_or(Ok(()), Err)?;
    summary(&args, &all)?;
    page
}

/// Tells each step where it is heard.
struct Teller {
    json: bool,
    board: Board,
    /// Which attempt made it, if one did in this apply.
    attempts: BTreeMap<String, u32>,
}

impl Teller {
    fn tell(&mut self, key: &str, step: &Step) -> Result<(), Failure> {
        let line = Line { key, ..Line::default() };
        let (line, shown) = match step {
            Step::Looking => (Line { step: Some("looking"), ..line }, "looking".to_owned()),
            Step::Creating { attempt } => {
                self.attempts.insert(key.to_owned(), *attempt);
                let line = Line { step: Some("creating"), attempt: Some(*attempt), ..line };
                (line, format!("creating, attempt {attempt}"))
            }
            Step::There(receipt) => {
                let line = Line { step: Some("there"), id: Some(&receipt.id), ..line };
                (line, format!("there as {}", receipt.id))
            }
            Step::Waiting(why) => {
                let line = Line { step: Some("waiting"), about: why.clone(), ..line };
                (line, format!("not ready: {why}"))
            }
            Step::Ended(became) => return self.ended(key, became),
        };
        self.board.at(key, &printable(&shown));
        if self.json {
            output::line(&line.json()?)?;
        }
        Ok(())
    }

    fn ended(&self, key: &str, became: &Became) -> Result<(), Failure> {
        let (about, id) = (words::about(became), became.id());
        let line = if self.json {
            let fence = match became {
                Became::Unknown(doubt) => Some(doubt.fence.get()),
                Became::Ready(_)
                | Became::NotReady { .. }
                | Became::Refused(_)
                | Became::Conflict(_)
                | Became::Duplicate(_)
                | Became::CannotTell(_)
                | Became::NoId(_)
                | Became::Changed { .. }
                | Became::Missing { .. }
                | Became::Destroyed(_)
                | Became::Unrecorded { .. }
                | Became::NoStore(_)
                | Became::Busy(_)
                | Became::Destroying(_)
                | Became::Waits(_)
                | Became::Stopped => None,
            };
            let (step, state) = (Some("ended"), Some(became.word()));
            let attempt = self.attempts.get(key).copied();
            Line { key, step, state, id, fence, attempt, about, ..Line::default() }.json()?
        } else {
            let id = id.map(|id| format!(" {}", printable(id))).unwrap_or_default();
            format!("{} {key}{id}: {}", became.word(), printable(&about))
        };
        self.board.ended(key);
        Ok(self.board.above(|| output::line(&line))?)
    }
}

/// How the whole of it ended.
fn summary(args: &ApplyArgs, all: &[Applied]) -> Result<(), Failure> {
    let count = |is: fn(&Became) -> bool| all.iter().filter(|it| is(&it.became)).count();
    let ready = count(|it| matches!(it, Became::Ready(_)));
    let unknown = count(|it| matches!(it, Became::Unknown(_) | Became::Unrecorded { .. }));
    if ready == all.len() {
        return Ok(());
    }
    let file = args.plan.file.display().to_string();
    let hints = all.iter().filter_map(|it| words::hint(&file, &it.key, &it.became));
    let hints: Vec<String> = hints.collect();
    let text = format!("{ready} of {} resources are ready", all.len());
    for Applied { became, .. } in all {
        let Became::NoStore(error) = became else { continue };
        let failure = Failure::from(error.clone());
        let what = format!("{}; {text}", failure.what);
        // Its code says that nothing was changed.
        let exit = match (unknown, count(|it| it.id().is_some())) {
            (0, 0) => failure.exit,
            (0, _) => Exit::Partly,
            _ => Exit::Unknown,
        };
        return Err(Failure { exit, what, ..failure });
    }
    let failure = if 0 < unknown {
        let text = format!("{text}, and of {unknown} nobody knows whether they are there");
        Failure::new(Exit::Unknown, text)
    } else {
        Failure::new(Exit::Partly, text)
    };
    Err(if hints.is_empty() { failure } else { failure.with_hint(hints.join("\n      ")) })
}
