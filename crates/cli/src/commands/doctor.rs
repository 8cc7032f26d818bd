//! `onlyonce doctor`: everything that a store is looked at for when it is opened, as a table.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use onlyonce_store::{Check, Found, Need, OpenErrorKind};
use serde_json::json;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::place::Place;
use crate::vault;

/// What keeps the commands of `onlyonce` out, and no other program.
const MARK: Need = Need::new("mark", "none: neither moved nor half put back");

/// The keys that kept answers may need: one is not opened without them.
const KEYS: Need = Need::new("keys", "all of them in the key file");

#[derive(Args, Debug)]
#[command(after_help = "\
A store is looked at whenever it is opened, and refused by the first thing that would break a \
promise. This makes the same checks and shows all of them, with what to do about each; no record \
is changed. A verdict is one of

  ok               it is as it must be
  refused          the store is not opened with it
  risk accepted    the store is opened with it, and what may be lost is told
  cannot be asked  the server does not say, or what is before it was refused

It ends with 0 if nothing is refused, else with 3.

  onlyonce doctor --store postgres://app@db.example/shop
  onlyonce doctor --store etcd://a,b,c --json
  onlyonce doctor --store journal:/var/lib/onlyonce --key-file /etc/onlyonce.keys")]
pub(crate) struct DoctorArgs {
    /// The store, as for the other commands
    #[arg(
        long,
        value_name = "URL",
        env = "ONLYONCE_STORE",
        hide_env_values = true,
        default_value = "journal:./onlyonce-data"
    )]
    store: Place,
    /// Look whether the keys that kept answers may need are in this file
    #[arg(long, value_name = "FILE", env = "ONLYONCE_KEY_FILE", hide_env_values = true)]
    key_file: Option<PathBuf>,
    /// One JSON object a line for each check
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let DoctorArgs { store, key_file, json } = args;
    let mut checks = store.doctor().await;
    let own = [keys(&store, key_file.as_deref(), &checks).await?, mark(&store, &checks).await];
    checks.extend(own);
    if json {
        checks.iter().try_for_each(|check| output::line(&as_json(check)))?;
    } else {
        tables(&checks)?;
    }
    let refused = checks.iter().filter(|check| matches!(check.found, Found::Refused(_)));
    let mut names: Vec<&str> = refused.map(|check| check.need.name).collect();
    let count = names.len();
    if count == 0 {
        return Ok(());
    }
    names.dedup();
    let text =
        format!("{store} is refused: {count} of {} checks: {}", checks.len(), names.join(", "));
    Err(Failure::new(Exit::StoreUnavailable, text))
}

/// What the store says of itself that `store copy` and `store restored` leave in it.
async fn mark(store: &Place, checks: &[Check]) -> Check {
    let of_store = checks.last().map_or_else(|| store.to_string(), |check| check.place.clone());
    let check = |found, says: &str, why, fix| {
        let (place, says) = (of_store.clone(), says.to_owned());
        Check { need: MARK, place, says, found, why, fix, risk: None }
    };
    let none = String::new;
    if checks.iter().any(|check| check.error().is_some()) {
        return check(Found::Unasked, "", none(), none());
    }
    match store.mark().await {
        Ok(None) => check(Found::Good, "none", none(), none()),
        Ok(Some(mark)) => {
            let (why, fix) = mark.why(&store.to_string());
            let kind = OpenErrorKind::Refused;
            check(Found::Refused(kind), mark.role.name(), why, fix)
        }
        Err(failure) => check(Found::Unasked, "", failure.what, none()),
    }
}

/// The keys that the answers in it may need, and whether they are all in the key file.
async fn keys(store: &Place, file: Option<&Path>, checks: &[Check]) -> Result<Check, Failure> {
    let place = checks.last().map_or_else(|| store.to_string(), |check| check.place.clone());
    let (says, why, fix) = (String::new(), String::new(), String::new());
    let good = Check { need: KEYS, place, says, found: Found::Good, why, fix, risk: None };
    if checks.iter().any(|check| check.error().is_some()) {
        return Ok(Check { found: Found::Unasked, ..good });
    }
    let names = match vault::names_at(store).await {
        Ok(names) => names,
        Err(failure) => return Ok(Check { found: Found::Unasked, why: failure.what, ..good }),
    };
    if names.is_empty() {
        return Ok(Check { says: "none".to_owned(), ..good });
    }
    let good = Check { says: names.join(", "), ..good };
    let Some(file) = file else {
        let why = "answers are encrypted; name the file with their keys with --key-file".to_owned();
        return Ok(Check { found: Found::Unasked, why, ..good });
    };
    let missing = vault::missing(file, &names)?;
    if missing.is_empty() {
        return Ok(good);
    }
    let (file, missing) = (file.display(), missing.join(", "));
    let why = format!("{file}: key {missing} is not in it");
    let fix = format!("put {missing} into {file} again, below the newest key");
    Ok(Check { found: Found::Refused(OpenErrorKind::Refused), why, fix, ..good })
}

/// A table for each place.
fn tables(checks: &[Check]) -> io::Result<()> {
    for (at, checks) in checks.chunk_by(|one, other| one.place == other.place).enumerate() {
        if 0 < at {
            output::line("")?;
        }
        output::line(&printable(&checks[0].place))?;
        let rows: Vec<[String; 5]> = checks.iter().map(row).collect();
        output::line(&output::table(["CHECK", "SAYS", "NEEDED", "VERDICT", "FIX"], &rows))?;
    }
    Ok(())
}

fn row(check: &Check) -> [String; 5] {
    // What is wrong is told where nothing that helps is known.
    let fix = if check.fix.is_empty() { &check.why } else { &check.fix };
    [check.need.name, &check.says, check.need.needed, check.found.name(), fix].map(printable)
}

fn as_json(check: &Check) -> String {
    let Check { need, place, says, found, why, fix, risk } = check;
    json!({
        "check": need.name,
        "place": place,
        "says": says,
        "needed": need.needed,
        "verdict": found.name(),
        "why": why,
        "fix": fix,
        "risk": risk,
    })
    .to_string()
}
