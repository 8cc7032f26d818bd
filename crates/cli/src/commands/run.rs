//! `onlyonce run`

mod told;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use onlyonce::{Engine, Settings};
use onlyonce_core::{Always, Key, OnUnknown, Policy, Receiver};
use onlyonce_run::{Asking, Codes, Locks, Order, Runner, scope};
use onlyonce_tokio::TokioRuntime;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::place::{Opened, Place};
use crate::vault;
use told::{Code, say};

/// The largest first code of `--codes-from`: all of them fit below 256.
const CODES_FROM_MAX: i64 = 255 - Code::ALL.len() as i64 + 1;

#[derive(Args, Debug)]
#[command(after_help = told::help())]
pub(crate) struct RunArgs {
    /// What names the operation; the same for each time that it is asked for
    #[arg(long, value_name = "KEY")]
    key: String,
    /// Whom the key belongs to; the same key in another scope is another operation
    #[arg(long, value_name = "NAME", default_value = "")]
    scope: String,
    /// How long its output is kept; that it has run is known for 30 days, or as long if longer
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    retention: humantime::Duration,
    /// How long a run of somebody else is waited for
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    wait: humantime::Duration,
    /// How much output is kept, in bytes; all of it is passed on
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    output_max: usize,
    /// Exit codes that say that it did not happen and no longer can: it may run again
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    retry_exit: Vec<u8>,
    /// Exit codes that say that nobody can tell whether it happened
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    unknown_exit: Vec<u8>,
    /// What is done if nobody knows whether an earlier run happened
    #[arg(long, value_enum, default_value_t = Unknown::Hold, requires_if("probe", "probe"))]
    on_unknown: Unknown,
    /// A command for `sh -c` that knows: it exits with 0 if the operation happened
    #[arg(long, value_name = "COMMAND")]
    probe: Option<OsString>,
    /// Exit codes of the probe that say that it did not happen; all others say nothing
    #[arg(long, value_name = "CODES", value_delimiter = ',', requires = "probe")]
    probe_absent: Vec<u8>,
    /// How long what a run has sent may take to arrive, or to be seen by the probe: only then
    /// counts that it did not happen
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    late: humantime::Duration,
    /// Environment variables whose values belong to the operation, as its arguments do
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    env_key: Vec<OsString>,
    /// The folder that it is called in does not belong to the operation
    #[arg(long)]
    any_dir: bool,
    /// The first of the codes that say that it was not run now
    #[arg(long, value_name = "CODE", default_value_t = 190,
          value_parser = clap::value_parser!(u8).range(1..=CODES_FROM_MAX))]
    codes_from: u8,
    /// Say on standard error if the output is that of an earlier run
    #[arg(long)]
    mark_replay: bool,
    /// The store: sqlite:FILE, postgres://.., mysql://.., redis://HOST or
    /// etcd://HOST,HOST,HOST [default: sqlite:run.db in the folder of --state]
    #[arg(long, value_name = "URL", env = "ONLYONCE_STORE", hide_env_values = true)]
    store: Option<Place>,
    /// Encrypt kept output with the first key in this file, 64 hexadecimal digits a line; the
    /// others read what was encrypted with them before
    #[arg(long, value_name = "FILE", env = "ONLYONCE_KEY_FILE", hide_env_values = true)]
    key_file: Option<PathBuf>,
    /// The folder for the store and for locks [default: $XDG_STATE_HOME/onlyonce, or
    /// $HOME/.local/state/onlyonce]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The clock is right, although the store was last written more than a year ago
    #[arg(long)]
    clock_is_right: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unknown {
    /// It is not run; a person settles it with `onlyonce keys resolve`
    Hold,
    /// It runs again: only for commands that may run twice
    Retry,
    /// The command of --probe is asked
    Probe,
}

/// Runs it, and ends with the command's exit code or one of our own.
pub(crate) async fn run(args: RunArgs) -> ExitCode {
    let codes_from = args.codes_from;
    match ran(&args).await {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say(&format!("nothing was run: {}", failure.what.replace('\n', "; ")));
            if let Some(hint) = failure.hint {
                say(&format!("hint: {hint}"));
            }
            let is_usage = failure.exit == Exit::Usage;
            let code = if is_usage { Exit::Usage as u8 } else { Code::Store.number(codes_from) };
            ExitCode::from(code)
        }
    }
}

async fn ran(args: &RunArgs) -> Result<u8, Failure> {
    let order = order(args)?;
    let store = Store::open(args).await?;
    let runtime = Arc::new(TokioRuntime::new());
    let settings = Settings { clock_is_right: args.clock_is_right, ..Settings::default() };
    let wrapped = vault::open(&store.opened, args.key_file.as_deref()).await?;
    let (records, _) = wrapped.watched();
    let engine = Engine::start(records, runtime, settings, None).await?;
    let runner = Runner::new(engine, store.opened.secret().clone(), store.locks);
    // Others may remember longer in a store that was named: they sweep it.
    let runner = if store.is_ours { runner.sweeping(order.policy) } else { runner };
    let became = runner.run(&order).await;
    let told = told::told(args, &store.place, runner.id(&order), became);
    // Once everything is written.
    store.opened.close();
    Ok(told)
}

const JOURNAL: &str = "--store: a journal is for one process at a time, and commands are several: \
                       use sqlite:FILE";

/// The store of a command, and its locks.
struct Store {
    opened: Opened,
    place: Place,
    locks: Locks,
    /// Whether nothing but commands uses it.
    is_ours: bool,
}

impl Store {
    async fn open(args: &RunArgs) -> Result<Self, Failure> {
        let locks =
            |folder: PathBuf| Locks::in_folder(&folder).map_err(|error| no_locks(&folder, &error));
        if let Some(place) = &args.store {
            let locks = match place {
                Place::Journal(_) => return Err(Failure::new(Exit::Usage, JOURNAL)),
                // Beside it, so that all who use it have the same.
                Place::Sqlite(file) => locks(beside(file))?,
                Place::Postgres(_)
                | Place::Mysql(_)
                | Place::Redis(_)
                | Place::Etcd(_)
                | Place::Spread(_) => locks(state(args)?.join("locks"))?,
            };
            let opened = place.open(onlyonce_journal::Settings::default()).await?;
            return Ok(Self { opened, place: place.clone(), locks, is_ours: false });
        }
        let file = state(args)?.join("run.db");
        let locks = locks(beside(&file))?;
        let place = Place::Sqlite(file);
        let opened = open_or_make(&place, &locks).await?;
        Ok(Self { opened, place, locks, is_ours: true })
    }
}

/// Opens the store, or makes it first; of several that make it at once one does.
async fn open_or_make(place: &Place, locks: &Locks) -> Result<Opened, Failure> {
    let open = || place.open(onlyonce_journal::Settings::default());
    let missing = match open().await {
        Ok(opened) => return Ok(opened),
        Err(failure) => failure,
    };
    let _alone = locks.alone().map_err(|error| no_locks(locks.folder(), &error))?;
    match place.init(false).await {
        Ok(_) => say(&format!(
            "made a store in {place}. It is strict: keys with a time from before now and five \
             minutes are refused, since a lost store may have known them"
        )),
        // Somebody else was faster, or it is there and no use.
        Err(failure) if failure.exit == Exit::Refused => {}
        Err(_) => return Err(missing),
    }
    open().await
}

fn no_locks(folder: &Path, error: &std::io::Error) -> Failure {
    let text = format!("the folder for locks {}: {error}", folder.display());
    Failure::new(Exit::StoreUnavailable, text)
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".locks");
    name.into()
}

/// The folder of this user for what programs keep (XDG Base Directory Specification, which has
/// paths that are not absolute ignored).
fn state(args: &RunArgs) -> Result<PathBuf, Failure> {
    if let Some(dir) = &args.state {
        return Ok(dir.clone());
    }
    let dir = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let state = dir("XDG_STATE_HOME").or_else(|| Some(dir("HOME")?.join(".local/state")));
    state.map(|it| it.join("onlyonce")).ok_or_else(|| {
        let text = "there is no folder for the store: neither XDG_STATE_HOME nor HOME is set";
        Failure::new(Exit::StoreUnavailable, text).with_hint("say --state DIR, or --store URL")
    })
}

fn order(args: &RunArgs) -> Result<Order, Failure> {
    let wrong = |text: String| Failure::new(Exit::Usage, text);
    let key = Key::new(args.key.clone()).map_err(|error| wrong(format!("--key: {error}")))?;
    let scope = scope(&args.scope).map_err(|error| wrong(format!("--scope: {error}")))?;
    if let Some(code) = args.retry_exit.iter().find(|it| args.unknown_exit.contains(it)) {
        let text = format!("exit code {code} stands in both --retry-exit and --unknown-exit");
        return Err(wrong(text));
    }
    let folder = match args.any_dir {
        true => None,
        false => Some(std::env::current_dir().map_err(|error| {
            wrong(format!("the folder that this was called in: {error}; --any-dir leaves it out"))
        })?),
    };
    let asking = args.probe.clone().filter(|_| args.on_unknown == Unknown::Probe);
    Ok(Order {
        key,
        scope,
        command: args.command.clone(),
        folder,
        env: args.env_key.clone(),
        policy: policy(args)?,
        wait: args.wait.into(),
        output_max: args.output_max,
        codes: Codes { not_executed: args.retry_exit.clone(), unknown: args.unknown_exit.clone() },
        asking: asking.map(|command| Asking { command, absent: args.probe_absent.clone() }),
    })
}

fn policy(args: &RunArgs) -> Result<Policy, Failure> {
    let (retention, usual) = (Duration::from(args.retention), Policy::default());
    let (on_unknown, receiver) = match args.on_unknown {
        Unknown::Hold => (OnUnknown::Hold, Receiver::BARE),
        // That is what whoever says so promises.
        Unknown::Retry => (OnUnknown::Retry, Receiver::always(Always::UniqueName)),
        Unknown::Probe => (OnUnknown::Probe, Receiver::queryable(Duration::ZERO, args.late.into())),
    };
    let remember = usual.remember.max(retention);
    let policy = Policy { retention, remember, on_unknown, receiver, ..usual };
    policy.check().map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}
