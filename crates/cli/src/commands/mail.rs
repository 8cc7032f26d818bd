//! `onlyonce mail add`, `outbox`, `run` and `status`

mod bound;
mod config;
mod doubt;
mod figures;
mod lines;
mod outbox;
mod run;
mod status;
mod way;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use onlyonce_core::Secret;
use onlyonce_journal::Journal;
use onlyonce_mail::{Added, Spool, frozen};
use onlyonce_smtp::Mailbox;

use crate::args::StoreArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::{Place, now};

/// The largest message, in bytes.
const MESSAGE_MAX: u64 = 64 << 20;

/// What `--store` may be here.
const STORE: &str =
    "The journal with the records, journal:DIR, for one sender; mail takes no other kind of store";

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "made once a command, boxing would cost more")]
pub(crate) enum MailCommand {
    /// Put a message into the spool folder, a copy for each recipient
    #[command(after_help = "\
The message comes as mail programs write it (RFC 5322): header fields, an empty line, the text. \
Once this has ended well it will be sent, once to each recipient. Adding the same again with the \
same key changes nothing, so repeat this if you do not know how it ended.

  onlyonce mail add --key welcome/7829 --from shop@shop.example --to ann@mail.example mail.eml
  onlyonce mail add --lines news.jsonl

With --lines each line is a JSON object: \
{\"key\": \"news/1\", \"from\": \"shop@shop.example\", \
\"to\": [\"ann@mail.example\"], \"subject\": \"News\", \"text\": \"Hello\"}, or \
with \"message\" in place of subject and text. It ends at the first \
line that it cannot take; repeat it once that is mended.")]
    Add(AddArgs),
    /// Send what is in the spool folder, through one mail server or one provider
    #[command(after_help = "\
For example:

  onlyonce mail run --server smtp.shop.example --user shop --password-file password
  onlyonce mail run --server 127.0.0.1:25 --tls none --once

Refusals for now are tried again, refusals for good are kept. Where the connection is lost after \
the end of a message nobody knows whether the server has it: it is not sent again by itself, and \
`onlyonce mail status` shows it.

  onlyonce mail run --server 127.0.0.1:25 --tls none --on-unknown probe --probe postfix
  onlyonce mail run --server SERVER --on-unknown probe --probe ./find --probe-absent 10

`postfix` and `exim` look for it in queue and log of the server on this host, \
imap://USER@HOST/MAILBOX in a mailbox that gets copies. A command is told \
ONLYONCE_MESSAGE_ID, ONLYONCE_RECIPIENT, ONLYONCE_KEY and ONLYONCE_FENCE. It exits with 0 if the \
server has the message, and what it prints first is kept as evidence.

  onlyonce mail run --config mail.toml

The file says all of this, with rules for kinds of messages and limits for domains: docs/mail.md.

  onlyonce mail run --provider resend.toml

A provider is asked over HTTP. The file says what its API is like, such as `like = \"resend\"`; \
docs/mail.md says what may stand there. What the file says that the provider offers settles \
doubts: a key that it remembers, or a look-up.

SIGTERM and SIGINT let what is on its way end; a second one ends \
at once.")]
    Run(RunArgs),
    /// Make a table that programs write messages into, in transactions of their own
    #[command(after_help = "\
A message that is written in a transaction is sent if that is committed, once, and never if it is \
rolled back. This makes the table, or its functions anew, and needs the right to make a schema:

  onlyonce mail outbox postgres://owner@db.example/shop
  onlyonce mail outbox mysql://owner@db.example/shop
  onlyonce mail outbox sqlite:shop.db
  onlyonce mail outbox --print > outbox.sql

A program then writes a message, a row for each recipient, in PostgreSQL, MariaDB and SQLite:

  SELECT onlyonce_mail.send('welcome/7829', 'shop@shop.example', 'ann@mail.example', \
E'From: shop@shop.example\\nSubject: Welcome\\n\\nHello\\n')

  CALL onlyonce_mail_send('welcome/7829', 'shop@shop.example', 'ann@mail.example', \
'From: shop@shop.example\\nSubject: Welcome\\n\\nHello\\n')

  INSERT INTO onlyonce_mail_send (key, sender, recipient, message) VALUES (?, ?, ?, ?)

and `onlyonce mail run --outbox postgres://sender@db.example/shop` sends it.")]
    Outbox {
        /// The database: postgres://OWNER@HOST/DATABASE, mysql://OWNER@HOST/DATABASE or sqlite:FILE
        #[arg(
            value_name = "URL",
            env = "ONLYONCE_OUTBOX",
            hide_env_values = true,
            required_unless_present = "print"
        )]
        database: Option<outbox::At>,
        /// Print the statements, and change nothing
        #[arg(
            long,
            value_name = "KIND",
            value_enum,
            num_args = 0..=1,
            default_missing_value = "postgres",
            conflicts_with = "database"
        )]
        print: Option<outbox::Kind>,
    },
    /// Count what waits, was sent, was refused or is in doubt, and name what is in doubt
    #[command(mut_arg("store", |arg| arg.help(STORE)))]
    Status {
        #[command(flatten)]
        spool: SpoolArgs,
        #[command(flatten)]
        store: StoreArgs,
        /// Count the rows of this outbox too: postgres://USER@HOST/DATABASE,
        /// mysql://USER@HOST/DATABASE or sqlite:FILE
        #[arg(long, value_name = "URL", env = "ONLYONCE_OUTBOX", hide_env_values = true)]
        outbox: Option<outbox::At>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct SpoolArgs {
    /// The folder where messages wait, and stay once they have ended
    #[arg(
        long,
        value_name = "DIR",
        env = "ONLYONCE_SPOOL",
        hide_env_values = true,
        default_value = "./onlyonce-mail"
    )]
    spool: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// The message; standard input if it is not named
    file: Option<PathBuf>,
    /// What names this message; each copy has the key KEY/RECIPIENT
    #[arg(long, value_name = "KEY", required_unless_present = "lines")]
    key: Option<String>,
    /// Who is told if it cannot be delivered
    #[arg(long, value_name = "ADDRESS", required_unless_present = "lines")]
    from: Option<String>,
    /// Who gets it; once for each recipient
    #[arg(long, value_name = "ADDRESS", required_unless_present = "lines")]
    to: Vec<String>,
    /// The file has a message in each line, as JSON
    #[arg(long, conflicts_with_all = ["key", "from", "to"])]
    lines: bool,
    #[command(flatten)]
    spool: SpoolArgs,
}

#[derive(Args, Debug)]
#[command(mut_arg("store", |arg| arg.help(STORE)))]
pub(crate) struct RunArgs {
    #[command(flatten)]
    server: way::ServerArgs,
    /// A file about a mail provider that is asked over HTTP, in place of a mail server
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["server", "tls", "user", "auth", "hello"])]
    provider: Option<PathBuf>,
    /// A file that says what these flags say, and more: rules for kinds of messages, and limits for
    /// domains (docs/mail.md); a flag counts before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many messages are on their way at once [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    workers: Option<u16>,
    /// How many of these go to one domain at most [default: all of them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    per_domain: Option<u16>,
    /// How many are sent at most in a time, evenly: N/s, N/m or N/h [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = apart)]
    rate: Option<Duration>,
    /// The same of what is sent to one domain
    #[arg(long, value_name = "RATE", value_parser = apart)]
    rate_per_domain: Option<Duration>,
    /// Try each message that waits now once, then end
    #[arg(long)]
    once: bool,
    /// A table that messages come from too, made by `onlyonce mail outbox`:
    /// postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or sqlite:FILE
    #[arg(long, value_name = "URL", env = "ONLYONCE_OUTBOX", hide_env_values = true)]
    outbox: Option<outbox::At>,
    #[command(flatten)]
    policy: doubt::PolicyArgs,
    #[command(flatten)]
    probe: doubt::ProbeArgs,
    #[command(flatten)]
    spool: SpoolArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(command: MailCommand) -> Result<(), Failure> {
    match command {
        MailCommand::Add(args) => add(&args),
        MailCommand::Outbox { database, print } => match (print, database) {
            (Some(kind), _) => outbox::print(kind),
            (None, Some(at)) => outbox::make(at).await,
            (None, None) => Err(Failure::new(Exit::Usage, "no database is named")),
        },
        MailCommand::Run(args) => run::run(args).await,
        MailCommand::Status { spool, store, outbox, json } => {
            status::run(&spool, &store, outbox, json).await
        }
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let spool = spool(&args.spool)?;
    let mut others = Vec::new();
    if args.lines {
        let name = name(args.file.as_deref());
        let opened = args.file.as_deref().map(std::fs::File::open).transpose();
        let opened =
            opened.map_err(|error| Failure::new(Exit::Usage, format!("{name}: {error}")))?;
        let input: Box<dyn std::io::Read> = match opened {
            Some(file) => Box::new(file),
            None => Box::new(std::io::stdin().lock()),
        };
        lines::each(&name, input, |line, place| {
            let text = line.message();
            let text = text.map_err(|it| Failure::new(Exit::Usage, format!("{place}: {it}")))?;
            let from = &line.from;
            taken(&spool, place, (&line.key, from, &line.to), &text, &mut others)
        })?;
    } else {
        let (name, text) = text(args.file.as_deref())?;
        let (key, from) = (args.key.as_deref(), args.from.as_deref());
        let named = (key.unwrap_or_default(), from.unwrap_or_default(), &args.to[..]);
        taken(&spool, &name, named, &text, &mut others)?;
    }
    if others.is_empty() {
        return Ok(());
    }
    let text = format!("another message was added with the key {}", others.join(", "));
    Err(Failure::new(Exit::Refused, text).with_hint("a new message needs a new key"))
}

/// Takes a message in, a copy for each recipient; `others` are keys that other messages have.
fn taken(
    spool: &Spool,
    place: &str,
    (key, from, to): (&str, &str, &[String]),
    text: &[u8],
    others: &mut Vec<String>,
) -> Result<(), Failure> {
    let wrong = |text: String| Failure::new(Exit::Usage, format!("{place}: {text}"));
    let mailbox = |what: &str, text: &str| {
        Mailbox::new(text).map_err(|error| wrong(format!("{what} {text:?}: {error}")))
    };
    let from = mailbox("from", from)?;
    let to = to.iter().map(|it| mailbox("to", it)).collect::<Result<Vec<_>, _>>()?;
    let messages = frozen(key, Some(&from), &to, text, now());
    for message in &messages.map_err(|error| wrong(error.to_string()))? {
        let key = message.key().as_str();
        // It may have been written before it failed; and to repeat it does no harm.
        let added = spool.add(message);
        match added.map_err(|error| Failure::new(Exit::Unknown, error.to_string()))? {
            Added::New => output::line(&format!("added {key}"))?,
            Added::There => output::line(&format!("there already {key}"))?,
            Added::Other => others.push(key.to_owned()),
        }
    }
    Ok(())
}

/// Where a message comes from, for a person.
fn name(file: Option<&Path>) -> String {
    file.map_or_else(|| "standard input".to_owned(), |it| it.display().to_string())
}

/// The message, and where it came from.
fn text(file: Option<&Path>) -> Result<(String, Vec<u8>), Failure> {
    let name = name(file);
    let wrong = |text: &str| Failure::new(Exit::Usage, format!("{name}: {text}"));
    let mut text = Vec::new();
    let read = match file {
        Some(file) => std::fs::File::open(file)
            .and_then(|file| file.take(MESSAGE_MAX + 1).read_to_end(&mut text)),
        None => std::io::stdin().lock().take(MESSAGE_MAX + 1).read_to_end(&mut text),
    };
    let bytes = read.map_err(|error| wrong(&error.to_string()))?;
    if MESSAGE_MAX < bytes as u64 {
        return Err(wrong(&format!("it has more than {MESSAGE_MAX} bytes")));
    }
    Ok((name, text))
}

fn spool(args: &SpoolArgs) -> Result<Spool, Failure> {
    let opened = Spool::open(&args.spool);
    opened.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))
}

/// The time from one message to the next at such a rate, in whole milliseconds.
fn apart(rate: &str) -> Result<Duration, String> {
    let wrong = || "a rate is N/s, N/m or N/h, such as 10/s, and at most 1000/s".to_owned();
    let (count, unit) = rate.split_once('/').ok_or_else(wrong)?;
    let unit: u64 = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    // Never more than was asked for.
    match count.parse::<u64>() {
        Ok(count) if 0 < count && count <= unit => Ok(Duration::from_millis(unit.div_ceil(count))),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

/// The folder of the journal, and its secret, whoever has it open.
fn journal(args: &StoreArgs) -> Result<(&Path, Secret), Failure> {
    #[allow(irrefutable_let_patterns, reason = "true of as many kinds of store as there are")]
    let Place::Journal(dir) = &args.store else {
        let text = "--store: mail is recorded in a journal, journal:DIR, and in no other store yet";
        return Err(Failure::new(Exit::Usage, text));
    };
    Ok((dir, Journal::read_secret(dir)?))
}
