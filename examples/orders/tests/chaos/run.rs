//! Chaos for a while, then peace, then the check.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::check::{Tally, check};
use crate::customers::{Customers, book};
use crate::faults::strike;
use crate::random::Random;
use crate::world::{World, await_shop};

/// How long everything may take to settle once nothing goes wrong any more.
const PEACE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(crate) struct Options {
    /// The program; `onlyonce` lies beside it.
    pub(crate) warehouse: PathBuf,
    pub(crate) seed: u64,
    /// How long things go wrong.
    pub(crate) limit: Duration,
}

/// What has happened.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    pub(crate) faults: Vec<&'static str>,
}

/// Runs it; an error says what was not kept.
#[allow(clippy::disallowed_methods, reason = "how long it lasts is no assertion")]
pub(crate) fn run(options: &Options) -> Result<Report, String> {
    let mut world = World::start(&options.warehouse, options.seed);
    await_shop(&world);
    let customers = Customers::start(world.shop(), options.seed);
    let mut random = Random::new(options.seed);
    let mut faults = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < options.limit {
        thread::sleep(Duration::from_millis(300 + random.below(2_000)));
        faults.push(strike(&mut world, &mut random));
    }
    let wishes = customers.go_home();
    let settled = settled(&world)?;
    let tally = check(&world, &wishes, &settled).map_err(|why| {
        let logs = world.programs.iter().map(|it| format!("{}:\n{}", it.name, tail(&it.said())));
        format!("seed {}: {why}\nafter {faults:?}\n{}", options.seed, logs.collect::<String>())
    })?;
    Ok(Report { tally, faults })
}

/// What the shop knows once every order is answered, every label is printed or in doubt, and no
/// more answers come.
#[allow(clippy::disallowed_methods, reason = "how long it lasts is no assertion")]
fn settled(world: &World) -> Result<Value, String> {
    let begun = Instant::now();
    let mut last = Value::Null;
    let mut quiet = 0;
    while begun.elapsed() < PEACE {
        let now = book(world.shop()).unwrap_or(Value::Null);
        quiet = if now == last && is_settled(&now) { quiet + 1 } else { 0 };
        if quiet == 8 {
            return Ok(now);
        }
        last = now;
        thread::sleep(LOOK_EVERY);
    }
    let logs = world.programs.iter().map(|it| format!("{}:\n{}", it.name, tail(&it.said())));
    let open = last["orders"].as_array().into_iter().flatten().filter(|it| !is_over(it));
    let open: Vec<_> = open.take(5).collect();
    Err(format!("never settled: {open:?}\n{}", logs.collect::<String>()))
}

fn is_settled(book: &Value) -> bool {
    book["orders"].as_array().is_some_and(|all| all.iter().all(is_over))
}

fn is_over(order: &Value) -> bool {
    let labelled = order["status"] != 201 || order["label"].is_string();
    !order["status"].is_null() && order["cancel"] != "wanted" && labelled
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(15);
    lines[from..].iter().map(|line| format!("    {line}\n")).collect()
}
