//! The warehouse: takes orders from a queue, reserves stock, and confirms each order once.
//!
//! Its stock, its reservations and its records are in one PostgreSQL. An order is run at most once
//! at a time; what is reserved is committed with the record that says so, by the latest claim
//! alone. So one of which nobody knows how it ended is run again without harm: its record is there,
//! or nothing of it is, and nothing can come any more. Whoever sent the order is answered from the
//! record, as often as the order comes.

#![allow(clippy::print_stderr, reason = "a program of the terminal")]

mod counter;
mod stock;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use onlyonce::{Attempt, Engine, direct};
use onlyonce_consume::{Consumption, Inbox, Message, Queues, Rabbit, Settings, Told, policy};
use onlyonce_core::{Always, OnUnknown, Policy, Receiver};
use onlyonce_postgres::{Address, Postgres};
use onlyonce_tokio::TokioRuntime;
use tokio::signal::unix::{SignalKind, signal};

use crate::stock::Stock;

/// The queue that orders come from.
const ORDERS: &str = "orders";
/// The pause before what is away is asked again at the start.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes orders from a queue, reserves stock, and confirms each order once.
#[derive(Parser)]
struct Arguments {
    /// The broker: amqp://user:password@host:port/vhost
    #[arg(long)]
    amqp: String,
    /// The database: postgres://user@host:port/name; the store in it was made by `store init`
    #[arg(long)]
    database: String,
    /// Where the shop calls orders off
    #[arg(long)]
    listen: SocketAddr,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warehouse: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Records outlive every order; an outcome that nobody knows is run again, which is harmless where
/// effect and record are one transaction.
fn settings() -> Settings {
    let receiver = Receiver::always(Always::Transactional);
    let (on_unknown, lease) = (OnUnknown::Retry, Duration::from_secs(5));
    let policy = Policy { on_unknown, receiver, lease, ..policy() };
    Settings { policy, attempts_max: 1_000, ..Settings::default() }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let address: Address = arguments.database.parse()?;
    let store = opened(&address).await;
    let (secret, runtime) = (store.secret().clone(), Arc::new(TokioRuntime::new()));
    let engine = loop {
        let (store, runtime) = (Arc::new(store.clone()), Arc::clone(&runtime));
        match Engine::start(store, runtime, onlyonce::Settings::default(), None).await {
            Ok(engine) => break engine,
            Err(error) if error.is_transient() => wait(&error).await,
            Err(error) => return Err(error.into()),
        }
    };
    let inbox = Inbox::new(engine, secret, "warehouse", settings())?;
    let (once, policy) = (store.transactions(), settings().policy);
    let stock = Arc::new(Stock::new(&arguments.database, once, inbox.clone(), policy)?);
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    let counter = tokio::spawn(counter::serve(listener, inbox.clone()));

    let handler = Arc::new(move |message: &Arc<Message>| {
        let (stock, message) = (Arc::clone(&stock), Arc::clone(message));
        direct(move |attempt: Attempt| async move { stock.reserve(&message, attempt).await })
    });
    let pauses = [200, 1_000, 3_000].map(Duration::from_millis).to_vec();
    let queues = Queues { pauses, ..Queues::of(ORDERS) };
    let rabbit = Rabbit::new(&arguments.amqp, queues, Consumption::default())?;
    let mut ends = signal(SignalKind::terminate())?;
    let stop = async move {
        ends.recv().await;
    };
    let ended = rabbit.run(&inbox, &handler, stop, tell).await;
    counter.abort();
    Ok(ended?)
}

/// The store; a database that is away is waited for.
async fn opened(address: &Address) -> Postgres {
    loop {
        match Postgres::open(address.clone()).await {
            Ok(store) => return store,
            Err(error) => wait(&error).await,
        }
    }
}

async fn wait(why: &dyn std::fmt::Display) {
    eprintln!("warehouse: waiting: {why}");
    tokio::time::sleep(PAUSE).await;
}

fn tell(told: Told) {
    match told {
        Told::Done | Told::Duplicate => {}
        Told::Connected => eprintln!("warehouse: takes orders"),
        Told::Lost(why) => eprintln!("warehouse: the broker is lost: {why}"),
        Told::Later(why) => eprintln!("warehouse: later: {why}"),
        Told::Unanswered(to) => eprintln!("warehouse: nobody is at {to}"),
        Told::Aside(why, text) => eprintln!("warehouse: ALARM: put aside: {why}: {text}"),
    }
}
