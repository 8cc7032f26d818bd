//! `onlyonce resources status`, `resolve`, `forget` and `import`; and which of them is asked for

use onlyonce_core::Fence;
use onlyonce_provision::{Changed, Finding, Known, Status};

use super::words::{self, Line};
use super::{PlanArgs, ResolveArgs, ResourcesCommand, Site, WhichArgs, WhoArgs, destroy};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::time;
use crate::output::{self, printable};

pub(crate) async fn run(command: ResourcesCommand) -> Result<(), Failure> {
    match command {
        ResourcesCommand::Status { plan, json } => status(&plan, json).await,
        ResourcesCommand::Resolve(args) => resolve(args).await,
        ResourcesCommand::Forget { which, who } => forget(&which, &who).await,
        ResourcesCommand::Destroy(args) => destroy::run(args).await,
        ResourcesCommand::Import { which, id } => import(&which, &id).await,
    }
}

async fn status(args: &PlanArgs, json: bool) -> Result<(), Failure> {
    let site = Site::open(args, false).await?;
    let all = site.provisioner.status().await;
    site.close();
    let mut rows = Vec::new();
    for Status { key, kind, known, marker, generation } in all? {
        let Told { id, since, fence, about } = told(&known);
        if json {
            let line = Line {
                key: &key,
                kind: Some(kind),
                state: Some(known.word()),
                id: id.as_deref(),
                fence,
                since,
                marker: Some(&marker),
                generation: Some(generation),
                about,
                ..Line::default()
            };
            output::line(&line.json()?)?;
            continue;
        }
        let id = printable(&id.unwrap_or_default());
        let fence = fence.map(|it| it.to_string()).unwrap_or_default();
        rows.push([key, known.word().to_owned(), id, fence, printable(&about)]);
    }
    if !json {
        output::line(&output::table(["KEY", "STATE", "ID", "FENCE", "ABOUT"], &rows))?;
    }
    Ok(())
}

/// A state in the columns of the table.
#[derive(Default)]
struct Told {
    id: Option<String>,
    since: Option<String>,
    fence: Option<u64>,
    about: String,
}

fn told(known: &Known) -> Told {
    match known {
        Known::Planned => Told { about: "nothing was made".to_owned(), ..Told::default() },
        Known::Creating { attempt, process, may_be_there } => {
            let phase = if *may_be_there { "it may be there" } else { "nothing was sent yet" };
            let about = format!("process {process} is at it, attempt {attempt}: {phase}");
            Told { about, ..Told::default() }
        }
        Known::Created { at, receipt: Some(receipt) } => {
            let (id, since) = (Some(receipt.id.clone()), Some(time(*at)));
            let about = format!("{} at {}", words::how(receipt), time(*at));
            Told { id, since, about, ..Told::default() }
        }
        Known::Created { at, receipt: None } => {
            let about = "recorded without an id".to_owned();
            Told { since: Some(time(*at)), about, ..Told::default() }
        }
        Known::Destroying { attempt, process, may_be_gone } => {
            let phase = if *may_be_gone { "it may be gone" } else { "nothing was sent yet" };
            let about = format!("process {process} destroys it, attempt {attempt}: {phase}");
            Told { about, ..Told::default() }
        }
        Known::Destroyed { at, departure } => {
            let (id, since) = (Some(departure.id.clone()), Some(time(*at)));
            let about = format!("{}, at {}", words::departed(departure), time(*at));
            Told { id, since, about, ..Told::default() }
        }
        Known::Unknown(doubt) => {
            let (since, fence) = (Some(time(doubt.since)), Some(doubt.fence.get()));
            Told { since, fence, about: words::in_doubt(doubt), ..Told::default() }
        }
    }
}

async fn resolve(args: ResolveArgs) -> Result<(), Failure> {
    let Some(fence) = Fence::new(args.fence) else {
        return Err(Failure::new(Exit::Usage, "--fence: no attempt has the fence 0"));
    };
    let finding = match args.made {
        Some(id) => Finding::Made(visible(id)?),
        None if args.run_again => Finding::RunAgain,
        None if args.destroyed => Finding::Destroyed,
        None if args.not_destroyed => Finding::NotDestroyed,
        None => Finding::NotMade,
    };
    let site = Site::open(&args.which.plan, false).await?;
    let WhoArgs { why, by } = &args.who;
    let changed = site.provisioner.resolve(&args.which.key, fence, finding, by, why).await;
    site.close();
    ended(&args.which.key, &changed?)
}

async fn forget(which: &WhichArgs, who: &WhoArgs) -> Result<(), Failure> {
    let site = Site::open(&which.plan, false).await?;
    let changed = site.provisioner.forget(&which.key, &who.by, &who.why).await;
    site.close();
    ended(&which.key, &changed?)
}

async fn import(which: &WhichArgs, id: &str) -> Result<(), Failure> {
    let id = visible(id.to_owned())?;
    let site = Site::open(&which.plan, true).await?;
    let changed = site.provisioner.import(&which.key, &id).await;
    site.close();
    ended(&which.key, &changed?)
}

/// It is given to others and shown in one line.
fn visible(id: String) -> Result<String, Failure> {
    if id.trim().is_empty() || id.chars().any(char::is_control) {
        return Err(Failure::new(Exit::Usage, "an id is one line of visible text"));
    }
    Ok(id)
}

fn ended(key: &str, changed: &Changed) -> Result<(), Failure> {
    match changed {
        Changed::Done => Ok(output::line(&format!("done: {key}"))?),
        Changed::Refused(text) => Err(Failure::new(Exit::Refused, format!("{key}: {text}"))),
    }
}
