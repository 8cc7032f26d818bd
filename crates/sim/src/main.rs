//! `onlyonce-sim`: runs seeds until one breaks a promise, or the time is over.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of the terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures how fast it is")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use onlyonce_sim::bug::Bug;
use onlyonce_sim::invariants::Violation;
use onlyonce_sim::trace::shrunk;
use onlyonce_sim::{Run, run};

/// How many lines about the key of a broken promise are printed.
const LINES: usize = 60;

#[derive(Parser)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds; without it, as many as there is time for
    #[arg(long)]
    seeds: Option<u64>,
    /// Ends after so many seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Steps of each seed
    #[arg(long, default_value_t = 400)]
    steps: u32,
    /// Print every step
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { seed, seconds, threads, steps, trace, .. } = arguments;
    let seeds = arguments.seeds.unwrap_or(u64::MAX - seed);
    let begun = Instant::now();
    let (next, effects) = (AtomicU64::new(0), AtomicU64::new(0));
    let broken = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !broken.load(Ordering::Relaxed)
                    && begun.elapsed() < Duration::from_secs(seconds)
                {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if seeds <= at {
                        next.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                    let seed = seed + at;
                    let one = Run { seed, steps, bug: Bug::None, trace };
                    let done = run(one);
                    effects.fetch_add(done.effects as u64, Ordering::Relaxed);
                    if trace {
                        done.trace.iter().for_each(|line| println!("{line}"));
                    }
                    if let Some(violation) = done.violation {
                        broken.store(true, Ordering::Relaxed);
                        tell(one, &violation);
                    }
                }
            });
        }
    });
    let (ran, took) = (next.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    let per_core_hour = ran as f64 / took / threads.max(1) as f64 * 3_600.0;
    println!(
        "{ran} seeds of {steps} steps in {took:.1} s, {} effects: {per_core_hour:.0} seeds a \
         core-hour",
        effects.load(Ordering::Relaxed),
    );
    if broken.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What was broken, how it came to that, and how to see it again.
fn tell(one: Run, violation: &Violation) {
    let Run { seed, steps, .. } = one;
    let again = run(Run { trace: true, ..one });
    for line in shrunk(&again.trace, violation.key, LINES) {
        eprintln!("{line}");
    }
    eprintln!("seed {seed} breaks `{}`: {}", violation.invariant, violation.what);
    eprintln!("again: cargo xtask sim --seed {seed} --seeds 1 --steps {steps} --trace");
}
