//! `cargo xtask torture kill --seed 1 --rounds 200 --minutes 10` kills the real proxy under load,
//! and `torture disk` takes the disk from under it, and from under `onlyonce apply` and `onlyonce
//! mail run`; both check the history. `torture mail --seed 1 --messages 10000` kills the sender of
//! mail, `torture stores --seed 1 --minutes 10` servers of shared stores. It takes the binary that
//! was built beside it.

#![allow(clippy::unwrap_used, reason = "a program of the terminal")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of the terminal")]

#[path = "../tests/torture/backend.rs"]
mod backend;
#[path = "../tests/torture/check.rs"]
mod check;
#[path = "../tests/torture/disk.rs"]
mod disk;
#[path = "../tests/torture/kill.rs"]
mod kill;
#[path = "../tests/torture/letters.rs"]
mod letters;
#[path = "../tests/torture/load.rs"]
mod load;
#[path = "../tests/torture/mail/mod.rs"]
mod mail;
#[path = "../tests/torture/proxy.rs"]
mod proxy;
#[path = "../tests/torture/random.rs"]
mod random;
#[path = "../tests/torture/resources.rs"]
mod resources;
#[path = "../tests/torture/stores.rs"]
mod stores;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Kill the proxy at random moments and restart it on its journal
    Kill {
        #[command(flatten)]
        how: How,
        /// How often it is killed
        #[arg(long, default_value_t = 200)]
        rounds: u32,
    },
    /// Fill its disk and free it, and let writes and syncs fail
    Disk {
        #[command(flatten)]
        how: How,
        /// How many full and failing disks: one and four in each round
        #[arg(long, default_value_t = 10_000)]
        rounds: u32,
    },
    /// Kill and cut off the server of a store that four proxies share, and kill a proxy
    Stores {
        #[command(flatten)]
        how: How,
        /// How often it is begun anew, with a server of each kind
        #[arg(long, default_value_t = 10_000)]
        rounds: u32,
        /// How many faults in a round of a kind
        #[arg(long, default_value_t = 12)]
        faults: u32,
        /// Only these kinds of stores
        #[arg(long, value_delimiter = ',')]
        store: Vec<backend::Kind>,
    },
    /// Kill the sender of mail and cut its connections, before Postfix, Exim and one that refuses
    Mail {
        /// Where the random numbers begin
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many messages each server is sent
        #[arg(long, default_value_t = 10_000)]
        messages: usize,
    },
}

#[derive(Clone, Copy, Args)]
struct How {
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End earlier after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
}

impl How {
    fn limit(self) -> Option<Duration> {
        self.minutes.map(|minutes| Duration::from_secs(60 * minutes))
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let here = std::env::current_exe().unwrap();
    let binary = here.parent().unwrap().parent().unwrap().join("onlyonce");
    let (ended, again) = match Arguments::parse().what {
        What::Kill { how, rounds } => {
            let options = kill::Options { binary, seed: how.seed, rounds, limit: how.limit() };
            (kill::run(&options).await, format!("kill --seed {} --rounds {rounds}", how.seed))
        }
        What::Disk { how, rounds } => {
            let options = disk::Options { binary, seed: how.seed, rounds, limit: how.limit() };
            (disk::run(&options).await, format!("disk --seed {} --rounds {rounds}", how.seed))
        }
        What::Stores { how, rounds, faults, store } => {
            let kinds = if store.is_empty() { backend::Kind::ALL.to_vec() } else { store };
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let again = format!(
                "stores --seed {} --rounds {rounds} --faults {faults} --store {}",
                how.seed,
                names.join(",")
            );
            let (seed, limit) = (how.seed, how.limit());
            let options = stores::Options { binary, seed, kinds, rounds, faults, limit };
            (stores::run(&options).await, again)
        }
        What::Mail { seed, messages } => return mail(&binary, seed, messages),
    };
    match ended {
        Ok(report) => {
            println!("{report:#?}");
            println!("nothing ran twice, every answer stayed the same");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            eprintln!("again: cargo xtask torture {again}");
            ExitCode::FAILURE
        }
    }
}

fn mail(binary: &Path, seed: u64, messages: usize) -> ExitCode {
    let stop = mail::Stop::default();
    let asked = stop.clone();
    tokio::spawn(async move {
        let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [mut terminate, mut interrupt] = signals.map(Result::unwrap);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.ask();
    });
    for kind in mail::Kind::ALL {
        let (binary, stop) = (binary.to_owned(), stop.clone());
        match mail::run(&mail::Options { binary, seed, messages, kind, stop }) {
            Ok(report) => println!("{report}"),
            Err(wrong) => {
                eprintln!("{kind:?}: {wrong}");
                eprintln!("again: cargo xtask torture mail --seed {seed} --messages {messages}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "no end was said twice without leave, and every message was sent, refused or in doubt"
    );
    ExitCode::SUCCESS
}
