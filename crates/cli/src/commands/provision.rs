//! `onlyonce plan`, `apply` and `resources`: what they have in common.

mod apply;
mod destroy;
mod figures;
mod plan;
mod resources;
mod words;

use std::fs::DirBuilder;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use onlyonce::{Engine, Observer, Settings};
use onlyonce_core::Secret;
use onlyonce_provision::{Plan, ProvisionError, Provisioner};
use onlyonce_store::{MemoryStore, Store};
use onlyonce_tokio::TokioRuntime;
use tokio::signal::unix::{SignalKind, signal};

use crate::alarms::Alarms;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::place::{Opened, Place};
use crate::vault;

pub(crate) use apply::run as apply;
pub(crate) use plan::run as plan;
pub(crate) use resources::run as resources;

/// A plan, and where its records are.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The plan, in TOML: docs/provision.md
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The store: sqlite:FILE, postgres://.., mysql://.., redis://HOST or
    /// etcd://HOST,HOST,HOST [default: sqlite:records.db in the folder FILE.onlyonce beside FILE]
    #[arg(long, value_name = "URL")]
    store: Option<Place>,
    /// Encrypt what scripts and services said with the first key in this file, 64 hexadecimal
    /// digits a line; the others read what was encrypted with them before
    #[arg(long, value_name = "FILE", env = "ONLYONCE_KEY_FILE", hide_env_values = true)]
    key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Everything is looked at and nothing is made. The exit code is 0 if an apply would do nothing, and \
1 if it would do something or something is in its way.

  onlyonce plan shop.toml")]
pub(crate) struct ForecastArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
What is there and ours is left as it is; what is not is made, once what it waits for is ready. Cut \
it off wherever you like, and run it again until it ends with 0. It never deletes anything.

The exit code is 0 if all is ready, 7 if something is not and it is known why, 5 if nobody knows \
whether something was made: `onlyonce resources status` shows what settles that.

  onlyonce apply shop.toml

SIGTERM and SIGINT let what was begun end, and begin nothing more; a second one ends at once.")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// One JSON object a line, for each step
    #[arg(long)]
    json: bool,
    /// Write what became of the resources into this file, for Prometheus
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// How many resources are made at once
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    parallel: u16,
    /// How long another apply that is at a resource is waited for
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    wait: humantime::Duration,
}

#[derive(Subcommand)]
pub(crate) enum ResourcesCommand {
    /// Show how each resource of a plan stands by its record; what is there now is not asked
    Status {
        #[command(flatten)]
        plan: PlanArgs,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Settle whether a resource was made or destroyed, once you have looked where it would be
    #[command(after_help = "\
The fence is the one that `status` prints. If the resource has moved on since you looked, the \
fence is no longer right and nothing is changed.

  onlyonce resources resolve shop.toml web --fence N --made i-7 --why \"in the console\"
  onlyonce resources resolve shop.toml web --fence N --not-made --why \"no such balancer\"
  onlyonce resources resolve shop.toml web --fence N --run-again --why \"two would do no harm\"
  onlyonce resources resolve shop.toml web --fence N --destroyed --why \"it is gone\"
  onlyonce resources resolve shop.toml web --fence N --not-destroyed --why \"it is still there\"")]
    Resolve(ResolveArgs),
    /// Forget what is recorded of a resource, so that it is looked for and made anew
    #[command(after_help = "\
What is there is left as it is: if it carries the marker of its key, the next apply finds it. \
Without a `check` nothing does, and the next apply makes another. For a resource that somebody has \
deleted, or whose inputs have changed.

  onlyonce resources forget shop.toml web --why \"deleted by hand\"")]
    Forget {
        #[command(flatten)]
        which: WhichArgs,
        #[command(flatten)]
        who: WhoArgs,
    },
    /// Destroy a resource as its plan says, once; no apply makes it again
    #[command(after_help = "\
The id is the one that `status` prints: with it you confirm that it is this one. Where its plan \
has a `check`, and if it is a file, it is looked for first, but not what scripts destroy and was \
imported. A file that somebody has written into stays. Before anything is sent it is made durable \
that it may be gone from now on. If nobody can know whether it is gone (exit code 5) and it was \
looked for, run this again: it looks before it does anything; else a person has to look. What \
waits for it is destroyed before it.

  onlyonce resources destroy shop.toml web --id i-7 --why \"the shop has closed\"
  onlyonce resources forget shop.toml web --why \"it opens again\"   # the next apply makes it")]
    Destroy(DestroyArgs),
    /// Record that a resource is there already, although it carries no marker of ours
    #[command(after_help = "\
You confirm that it is this one: nothing is asked, and nothing is made. Also for one whose record \
does not say which it is (no-id).

  onlyonce resources import shop.toml web --id i-7")]
    Import {
        #[command(flatten)]
        which: WhichArgs,
        /// What it is known by where it is
        #[arg(long, value_name = "ID")]
        id: String,
    },
}

/// One resource.
#[derive(Args, Debug)]
pub(crate) struct WhichArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// The resource
    #[arg(value_name = "KEY")]
    key: String,
}

/// Who says so.
#[derive(Args, Debug)]
pub(crate) struct WhoArgs {
    /// Why; kept in the record's history
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Who you are; kept in the record's history
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "unnamed"
    )]
    by: String,
}

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("finding").required(true)))]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The attempt you have looked after, as it was printed
    #[arg(long, value_name = "N")]
    fence: u64,
    /// It is there, and known by this
    #[arg(long, value_name = "ID", group = "finding")]
    made: Option<String>,
    /// It was not made and no longer will be
    #[arg(long, group = "finding")]
    not_made: bool,
    /// It was destroyed
    #[arg(long, group = "finding")]
    destroyed: bool,
    /// It was not destroyed and no longer will be
    #[arg(long, group = "finding")]
    not_destroyed: bool,
    /// Nobody knows, and it may be made or destroyed again all the same
    #[arg(long, group = "finding")]
    run_again: bool,
    #[command(flatten)]
    who: WhoArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DestroyArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// What it is known by where it is, as `status` prints it
    #[arg(long, value_name = "ID")]
    id: String,
    /// How long another one that is at it is waited for
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    wait: humantime::Duration,
    #[command(flatten)]
    who: WhoArgs,
}

/// What a command works with: a plan on its store.
struct Site {
    provisioner: Provisioner,
    /// `None` where there are no records yet.
    opened: Option<Opened>,
    alarms: Arc<Alarms>,
}

impl Site {
    /// Opens the plan and its store. The one beside the plan is made first if `make`; else a plan
    /// without a store is one of which nothing was made.
    async fn open(args: &PlanArgs, make: bool) -> Result<Self, Failure> {
        let plan = Plan::read(&args.file);
        let plan = plan.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        let folder = args.file.with_extension("onlyonce");
        let opened = match &args.store {
            Some(place) => Some(place.open(onlyonce_journal::Settings::default()).await?),
            None => beside(&folder, make).await?,
        };
        let (store, secret): (Arc<dyn Store>, Secret) = match &opened {
            // Nothing is found in it, with whatever secret.
            None => (Arc::new(MemoryStore::new()), Secret::from_bytes([0; 32])),
            Some(opened) if opened.journal().is_some() => {
                let text = "--store: a journal is for one process at a time, and applies may be \
                            several: use sqlite:FILE";
                return Err(Failure::new(Exit::Usage, text));
            }
            Some(opened) => {
                let wrapped = vault::open(opened, args.key_file.as_deref()).await?;
                (wrapped.watched().0, opened.secret().clone())
            }
        };
        let runtime = Arc::new(TokioRuntime::new());
        let alarms = Arc::new(Alarms::default());
        let observer: Arc<dyn Observer> = Arc::clone(&alarms) as _;
        let engine = Engine::start(store, runtime, Settings::default(), Some(observer)).await?;
        let provisioner = Provisioner::new(engine, secret, plan, folder.join("scripts"))?;
        Ok(Self { provisioner, opened, alarms })
    }

    /// Lets the store go.
    fn close(&self) {
        self.opened.iter().for_each(Opened::close);
    }
}

/// Lets `work` end that makes or destroys something. The first SIGTERM or SIGINT asks it to begin
/// nothing more; the second ends it at once.
async fn until_ended<T>(
    work: impl Future<Output = T>,
    mut ask_to_stop: impl FnMut(),
) -> Result<T, Failure> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut work, mut asked) = (Box::pin(work), 0);
    loop {
        tokio::select! {
            ended = &mut work => return Ok(ended),
            _ = interrupt.recv() => asked += 1,
            _ = terminate.recv() => asked += 1,
        }
        ask_to_stop();
        if 1 < asked {
            return Err(Failure::new(Exit::Unknown, "ended at once by a second signal"));
        }
    }
}

/// The store beside the plan. Its keys carry no time, so it needs no floor.
async fn beside(folder: &Path, make: bool) -> Result<Option<Opened>, Failure> {
    let file = folder.join("records.db");
    let place = Place::Sqlite(file.clone());
    if make {
        // Ids, and what scripts say, may be nobody else's business.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| {
            Failure::new(Exit::StoreUnavailable, format!("{}: {error}", folder.display()))
        })?;
        match place.init(true).await {
            Err(failure) if failure.exit != Exit::Refused => return Err(failure),
            // There is one, perhaps only since just now.
            Ok(_) | Err(_) => {}
        }
    } else if !file.exists() {
        return Ok(None);
    }
    place.open(onlyonce_journal::Settings::default()).await.map(Some)
}

impl From<ProvisionError> for Failure {
    fn from(error: ProvisionError) -> Self {
        match error {
            ProvisionError::Store(error) => error.into(),
            error @ (ProvisionError::NoSuchKey(_)
            | ProvisionError::Name(_)
            | ProvisionError::Waits { .. }
            | _) => Self::new(Exit::Usage, error.to_string()),
        }
    }
}
