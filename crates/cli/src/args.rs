//! The command line: every command and flag, with the help a person learns from.

mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use onlyonce_core::limits::FOREVER;

use crate::commands::doctor::DoctorArgs;
use crate::commands::mail::MailCommand;
use crate::commands::provision::{ApplyArgs, ForecastArgs, ResourcesCommand};
use crate::commands::run::RunArgs;
use crate::demo::DemoArgs;
use crate::place::Place;
use crate::risk::Risk;

pub(crate) use store::StoreCommand;

/// An operation that was asked for once happens once, however often the request arrives.
#[derive(Parser)]
#[command(
    name = "onlyonce",
    version,
    after_help = "\
Begin here:
  onlyonce demo                                    see it work, with nothing to set up
  onlyonce store init --first                      make a journal where there was never one
  onlyonce proxy --upstream http://127.0.0.1:3000  put it in front of an API

What is stuck, and settling it:
  onlyonce keys list --state unknown
  onlyonce keys resolve ID --fence N --did-not-happen --why \"no charge at the bank\""
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Open stores also with this risk, which a doctor refuses else; may be said several times
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "ONLYONCE_ACCEPT_RISK",
        hide_env_values = true,
        value_delimiter = ',',
        help_heading = "Risks"
    )]
    pub(crate) accept_risk: Vec<Risk>,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "made once a process, boxing would cost more")]
pub(crate) enum Command {
    /// A ticket shop behind a bad connection, and a page to tap Purchase three times
    Demo(DemoArgs),
    /// Put onlyonce in front of an HTTP API
    Proxy(ProxyArgs),
    /// Keep records for programs that claim keys themselves, over HTTP and JSON
    Serve(ServeArgs),
    /// Make a store, move one, or put one back into use
    #[command(subcommand)]
    Store(StoreCommand),
    /// Look a store through: every check that is made when it is opened, with what to do
    Doctor(DoctorArgs),
    /// See which operations ran, are running or are in doubt, and settle them
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Run a command once: whoever asks again gets its output and its exit code
    Run(RunArgs),
    /// Send each e-mail to each recipient once: a spool folder, a sender, and what is in doubt
    #[command(subcommand)]
    Mail(MailCommand),
    /// Say what an apply of a plan would do, and why
    Plan(ForecastArgs),
    /// Make the resources of a plan, each once: what is there is found, what is not is made
    Apply(ApplyArgs),
    /// See how the resources of a plan stand, settle what is in doubt, forget or import one
    #[command(subcommand)]
    Resources(ResourcesCommand),
    /// Look a journal through, back it up, restore it, or save what can be read of a damaged one
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Look a configuration through
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What a store takes on disk and in memory, and what a late retry gets at each age
    Size(SizeArgs),
    /// Write the man page or shell completions
    #[command(subcommand)]
    Generate(GenerateCommand),
}

/// Where the store is.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// The store: journal:DIR is a log in this folder, for one process at a time; sqlite:FILE is
    /// for all processes on this machine, postgres://USER@HOST/DATABASE,
    /// mysql://USER@HOST/DATABASE, redis://HOST and etcd://HOST,HOST,HOST for those on any;
    /// spread:FILE is several databases of one kind, a line each
    #[arg(
        long,
        value_name = "URL",
        env = "ONLYONCE_STORE",
        hide_env_values = true,
        default_value = "journal:./onlyonce-data"
    )]
    pub(crate) store: Place,
    /// Encrypt kept answers with the first key in this file, 64 hexadecimal digits a line; the
    /// others read what was encrypted with them before
    #[arg(long, value_name = "FILE", env = "ONLYONCE_KEY_FILE", hide_env_values = true)]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
POST and PATCH requests with an Idempotency-Key run once; everything else passes through. More \
in a configuration file: docs/config.md.

  onlyonce proxy --upstream http://127.0.0.1:3000
  onlyonce proxy --config /etc/onlyonce.toml --store journal:/var/lib/onlyonce

SIGTERM and SIGINT let running operations end and be recorded; a second one ends at once.")]
pub(crate) struct ProxyArgs {
    /// The API: http://HOST:PORT, https://, h2c:// (HTTP/2 without TLS) or h2://
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    pub(crate) upstream: Option<String>,
    /// Where callers connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A configuration file in TOML; --upstream and --listen go before what it says
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// How much the journal may take on disk, in MiB [default: what there is]
    #[arg(long, value_name = "MIB")]
    pub(crate) disk_max: Option<u64>,
    /// The clock is right, although the store was last written more than a year ago
    #[arg(long)]
    pub(crate) clock_is_right: bool,
    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
    /// The least that is logged; info has a line for every request
    #[arg(long, value_enum, default_value_t = LogLevel::Warn)]
    pub(crate) log_level: LogLevel,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Programs claim a key, run the operation, and say how it ended: docs/service.md has a walk-through \
and the configuration, docs/openapi.json every endpoint.

  (umask 077; openssl rand -hex 32 > token)
  onlyonce serve --token-file token --store journal:/var/lib/onlyonce
  onlyonce serve --unix /run/onlyonce/records.sock --store journal:/var/lib/onlyonce
  onlyonce serve --config /etc/onlyonce-serve.toml --store journal:/var/lib/onlyonce

SIGTERM and SIGINT let requests end and be recorded; a second one ends at once.")]
pub(crate) struct ServeArgs {
    /// Where callers connect [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", conflicts_with = "unix")]
    pub(crate) listen: Option<SocketAddr>,
    /// A unix socket instead of a port; without a configuration whoever may open it is let in
    #[arg(long, value_name = "PATH")]
    pub(crate) unix: Option<PathBuf>,
    /// A file with the bearer token of the one caller; not readable for others
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) token_file: Option<PathBuf>,
    /// A configuration file in TOML; --listen and --unix go before what it says
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// How much the journal may take on disk, in MiB [default: what there is]
    #[arg(long, value_name = "MIB")]
    pub(crate) disk_max: Option<u64>,
    /// The clock is right, although the store was last written more than a year ago
    #[arg(long)]
    pub(crate) clock_is_right: bool,
    /// How the log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
    /// The least that is logged; info has lines for every request
    #[arg(long, value_enum, default_value_t = LogLevel::Warn)]
    pub(crate) log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// List keys, a line for each
    List {
        #[command(flatten)]
        store: StoreArgs,
        /// Only keys in this state
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// Only keys that were answered twice, differently
        #[arg(long)]
        alarm: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show everything that is known of one key
    Get {
        #[command(flatten)]
        key: KeyArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Settle an outcome that nobody knows, once you have looked at the receiver
    #[command(after_help = "\
The fence is the one that `keys list` and `keys get` print. If the key has moved on since you \
looked, the fence is no longer right and nothing is changed.

  onlyonce keys resolve ID --fence N --happened reply.http --why \"seen at the bank\"
  onlyonce keys resolve ID --fence N --did-not-happen --why \"no such charge\"
  onlyonce keys resolve ID --fence N --run-again --why \"the receiver dedupes\"
  onlyonce keys resolve ID --fence N --exited 0 --why \"the backup is there\"

FILE holds the answer that retries get from then on, as HTTP writes it:

  HTTP/1.1 201 Created
  content-type: application/json

  {\"charge\": \"ch_1\"}")]
    Resolve(ResolveArgs),
    /// Say that a key must never run: cancel an operation before its request arrives
    #[command(after_help = "\
Done for keys that were never used and for those whose attempts certainly did not happen; whoever \
comes with the key later is told 410 key-sealed. A key that runs, was answered or is in doubt is \
left as it is.

  onlyonce keys seal --key order-7829 -H 'Authorization: Bearer anna' --why \"cancelled\"")]
    Seal(SealArgs),
    /// Erase what a key was answered; that it was answered stays
    #[command(after_help = "\
The answer's header fields and body are gone from the record, and so is what the operation noted; \
its status stays, and who had it erased, when and why. The key never runs again: whoever comes \
with it is told 410 reply-not-kept. A key that runs or is in doubt has no answer yet, and one that \
did not happen never had one.

On disk the old bytes lie in the journal's older segments until those are reclaimed, and in every \
backup that was taken before: docs/cli.md says more.

  onlyonce keys erase ID --why \"asked for by its owner, ticket 4711\" --by olga")]
    Erase(EraseArgs),
    /// Show which keys of the key file kept answers are encrypted with
    #[command(after_help = "\
To change the key, put a new one on the first line of the key file and start the proxy again. It \
encrypts from then on, and a proxy encrypts in the background what was kept before. Once all \
answers are, this says so, and the older keys can be taken out of the file.

  onlyonce keys encryption --store journal:/var/lib/onlyonce --key-file /etc/onlyonce.keys")]
    Encryption {
        #[command(flatten)]
        store: StoreArgs,
        /// Encrypt with the newest key what is not, now and not in the background
        #[arg(long)]
        renew: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StateArg {
    InFlight,
    Released,
    Completed,
    Unknown,
    Tombstone,
}

/// Which key.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// The id that lists and logs show: 32 hexadecimal digits
    #[arg(required_unless_present = "key")]
    pub(crate) id: Option<String>,
    /// The key as the client sent it, instead of the id
    #[arg(long, value_name = "KEY", conflicts_with = "id")]
    pub(crate) key: Option<String>,
    /// Whom the route's keys belong to: auto, shared, header:NAME or cookie:NAME; those of
    /// `onlyonce run`: command, or command:NAME with the name of its scope; with --key
    #[arg(long, value_name = "RULE", default_value = "auto")]
    pub(crate) scope: String,
    /// A header field that names the caller, as `Name: value`; with --key
    #[arg(short = 'H', long = "header", value_name = "FIELD", requires = "key")]
    pub(crate) headers: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SealArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Why it must not run; kept in the key's history
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
    /// Who you are; kept in the key's history
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "unnamed"
    )]
    pub(crate) by: String,
}

#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Why it is erased; kept in the key's history
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
    /// Who you are; kept in the key's history
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "unnamed"
    )]
    pub(crate) by: String,
}

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("verdict").required(true)))]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The claim you have checked, as it was printed
    #[arg(long, value_name = "N")]
    pub(crate) fence: u64,
    /// It happened; FILE holds the answer that retries get
    #[arg(long, value_name = "FILE", group = "verdict")]
    pub(crate) happened: Option<PathBuf>,
    /// How long that answer is kept [default: as the running proxy's [policy] says, else 24h]
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["did_not_happen", "run_again"])]
    pub(crate) retention: Option<humantime::Duration>,
    /// It is a command of `onlyonce run` and happened: the exit code that repeats get
    #[arg(long, value_name = "CODE", group = "verdict")]
    pub(crate) exited: Option<u8>,
    /// What repeats get on standard output [default: nothing]
    #[arg(long, value_name = "FILE", requires = "exited")]
    pub(crate) stdout: Option<PathBuf>,
    /// It did not happen and no longer can: the key is free again
    #[arg(long, group = "verdict")]
    pub(crate) did_not_happen: bool,
    /// Nobody knows, and it may run again all the same
    #[arg(long, group = "verdict")]
    pub(crate) run_again: bool,
    /// Why you are sure; kept in the key's history
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
    /// Who you are; kept in the key's history
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "unnamed"
    )]
    pub(crate) by: String,
}

#[derive(Subcommand)]
pub(crate) enum JournalCommand {
    /// Read every entry and say what is not as it was written; changes nothing
    Check {
        /// The folder of the journal or backup
        dir: PathBuf,
    },
    /// Copy a journal to a new folder, also while a proxy has it
    #[command(after_help = "\
The copy holds all that was confirmed when it was begun, and the secret: keep it as safe as the \
journal. While a proxy has the journal it is the proxy that writes the copy, with its own rights. \
Nothing uses a backup as it is; `onlyonce journal restore` makes a journal of it.

  onlyonce journal backup /var/lib/onlyonce /backup/onlyonce-$(date +%F)")]
    Backup {
        /// The journal's folder
        dir: PathBuf,
        /// A folder that does not exist yet, in one that does
        to: PathBuf,
    },
    /// Make a new journal of a backup, or of the folder of a journal that is closed
    #[command(after_help = "\
Operations may have run after the backup was taken. So every open claim and every free key becomes \
unknown, and keys with a time from before now and five minutes that have no record are refused. \
Nobody knows which keys without a time ran since: they have no record, and would run again. The \
backup is left as it is.

  onlyonce journal restore /backup/onlyonce-2026-11-25 /var/lib/onlyonce")]
    Restore {
        /// The folder of the backup
        from: PathBuf,
        /// A folder that does not exist yet, in one that does
        to: PathBuf,
    },
    /// Make a new journal of what can still be read of a damaged one
    #[command(after_help = "\
What followed the damage may be lost, so every open claim and every free key becomes unknown, \
and keys with a time from before now and five minutes that have no record are refused. The old \
folder is left as it is.")]
    Salvage {
        /// The damaged journal's folder
        from: PathBuf,
        /// A folder that does not exist yet
        to: PathBuf,
    },
}

#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = "\
Of a journal it is worked out from its format. Of other stores it is the least that was measured \
for a key, and what their servers keep beside it for a while is not known here.

  onlyonce size --rate 50 --reply-size 2000 --retention 24h --remember 30d
  onlyonce size --kind postgres --rate 50")]
pub(crate) struct SizeArgs {
    /// The kind of store
    #[arg(long, value_enum, default_value_t = Kind::Journal)]
    pub(crate) kind: Kind,
    /// New keys a second, on average
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// The usual answer, head and body, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(..=16 << 20))]
    pub(crate) reply_size: u64,
    /// How long an answer is kept
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) retention: humantime::Duration,
    /// How long it is remembered that a key was used, or `forever`
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = remember)]
    pub(crate) remember: Duration,
}

/// A kind of store, as far as its size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Journal,
    Sqlite,
    Postgres,
    Redis,
    Etcd,
}

/// A duration, or for ever.
fn remember(text: &str) -> Result<Duration, humantime::DurationError> {
    if text == "forever" { Ok(FOREVER) } else { humantime::parse_duration(text) }
}

/// A number of keys a second.
fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    let fits = (0.0..=10_000_000.0).contains(&number);
    if fits { Ok(number) } else { Err("it must be between 0 and 10,000,000".to_owned()) }
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read a proxy's configuration, name its mistakes and what it would surprise you with
    Check {
        /// The file of `onlyonce proxy --config`; other commands look at theirs when they start
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum GenerateCommand {
    /// The man page, on standard output
    Man,
    /// Completions for a shell, on standard output
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}
