//! Takes the disk from under `onlyonce apply`, whose records are on it. What it makes is counted on
//! another one.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::disk::Disk;
use crate::random::Random;

/// The small disk.
const DISK_MIB: u64 = 8;
/// How many plans, each with a store of its own.
const PLANS: u64 = 40;
/// How often each is applied until it is quiet.
const APPLIES_MAX: u32 = 100;

/// When the disk is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// By the script, before it makes something,
    BeforeMade,
    /// or after it has.
    AfterMade,
    /// By others, after so many milliseconds.
    Meanwhile(u64),
}

/// Applies each plan on a disk that is filled, and then until it is quiet. `Err` says which promise
/// was broken.
pub(crate) fn run(binary: &Path, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut codes = Vec::new();
    for number in 0..PLANS {
        let filled = match number % 4 {
            0 => Filled::BeforeMade,
            1 => Filled::AfterMade,
            _ => Filled::Meanwhile(random.below(60)),
        };
        let code = played(binary, filled).map_err(|it| format!("{filled:?}: {it}"))?;
        codes.push(code);
    }
    // Else it was not tried.
    match codes.contains(&Some(5)) && codes.iter().any(|it| *it != Some(0) && *it != Some(5)) {
        true => Ok(()),
        false => Err(format!("the disk was not full where it matters: {codes:?}")),
    }
}

fn said(error: &std::io::Error) -> String {
    error.to_string()
}

/// How the apply ended that had no room.
fn played(binary: &Path, filled: Filled) -> Result<Option<i32>, String> {
    let disk = Disk::mount(DISK_MIB)?;
    let other = tempfile::tempdir().map_err(|it| said(&it))?;
    let made = || {
        let text = std::fs::read_to_string(other.path().join("made")).unwrap_or_default();
        text.lines().count()
    };
    let (place, full) = (other.path().display(), disk.path().join("others"));
    let full = full.display();
    let fill = format!("[ ! -e {place}/is-full ] && cat /dev/zero >> {full} 2> /dev/null");
    let (before, after) = match filled {
        Filled::BeforeMade => (fill.as_str(), ":"),
        Filled::AfterMade => (":", fill.as_str()),
        Filled::Meanwhile(_) => (":", ":"),
    };
    let plan = format!(
        "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"command\"\n\
         check = \"test -e {place}/made || exit 10; echo web-id\"\n\
         create = \"{before}; echo web >> {place}/made; {after}; echo web-id\"\n\
         receiver = {{ settle = \"10ms\", late = \"0s\" }}\n"
    );
    std::fs::write(disk.path().join("shop.toml"), plan).map_err(|it| said(&it))?;
    let mut apply = Command::new(binary);
    // Scripts print into files, and those have room.
    apply.arg("apply").arg(disk.path().join("shop.toml")).env("TMPDIR", other.path());
    apply.stdin(Stdio::null());
    let Output { status, stdout, stderr } = std::thread::scope(|threads| {
        let applying = threads.spawn(|| apply.output());
        if let Filled::Meanwhile(after) = filled {
            std::thread::sleep(Duration::from_millis(after));
            disk.fill();
        }
        applying.join()
    })
    .map_err(|_| "it was not begun")?
    .map_err(|it| said(&it))?;
    let told = [stdout, stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
    let code = status.code();
    // What is said of it holds, whatever was full.
    match (code, made()) {
        (Some(0), 1) | (Some(1..=3 | 6), 0) | (Some(5), 0 | 1) => {}
        // Nothing could be looked for: that is said, and nothing was made.
        (Some(7), 0) => {}
        (code, made) => return Err(format!("{code:?} with {made} made: {told}")),
    }
    std::fs::write(other.path().join("is-full"), "").map_err(|it| said(&it))?;
    disk.free()?;
    for _ in 0..APPLIES_MAX {
        let again = apply.output().map_err(|it| said(&it))?;
        if again.status.success() {
            return match made() {
                1 => Ok(code),
                made => Err(format!("there are {made} in the end: {told}")),
            };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("it does not become quiet: {told}"))
}
