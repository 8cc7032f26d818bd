//! Takes the disk from under `onlyonce apply` and `onlyonce resources destroy`, whose records are
//! on it. What they make and destroy is counted on another one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::disk::Disk;
use crate::random::Random;

/// The small disk.
const DISK_MIB: u64 = 8;
/// How many plans, each with a store of its own.
const PLANS: u64 = 40;
/// How often each is called until it is quiet.
const CALLS_MAX: u32 = 100;

/// When the disk is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// By the script, before it makes or destroys something,
    Before,
    /// or after it has.
    After,
    /// By others, before anything begins,
    AtFirst,
    /// or after so many milliseconds.
    Meanwhile(u64),
}

/// Applies each plan on a disk that is filled, and then until it is quiet; then the same to destroy
/// what was made. `Err` says which promise was broken.
pub(crate) fn run(binary: &Path, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut codes = [Vec::new(), Vec::new()];
    for number in 0..PLANS {
        let filled = match number % 4 {
            0 => Filled::Before,
            1 => Filled::After,
            2 => Filled::AtFirst,
            _ => Filled::Meanwhile(random.below(60)),
        };
        let played = Site::open(binary, filled).and_then(|site| site.played(filled));
        let [made, ended] = played.map_err(|it| format!("{filled:?}: {it}"))?;
        codes[0].push(made);
        codes[1].push(ended);
    }
    // Else it was not tried.
    let was_full = |codes: &Vec<Option<i32>>| {
        codes.contains(&Some(5)) && codes.iter().any(|it| *it != Some(0) && *it != Some(5))
    };
    match codes.iter().all(was_full) {
        true => Ok(()),
        false => Err(format!("the disk was not full where it matters: {codes:?}")),
    }
}

fn said(error: &std::io::Error) -> String {
    error.to_string()
}

/// A plan with its records on a small disk.
struct Site<'a> {
    binary: &'a Path,
    disk: Disk,
    other: tempfile::TempDir,
    plan: PathBuf,
}

impl<'a> Site<'a> {
    fn open(binary: &'a Path, filled: Filled) -> Result<Self, String> {
        let disk = Disk::mount(DISK_MIB)?;
        let other = tempfile::tempdir().map_err(|it| said(&it))?;
        let (place, full) = (other.path().display(), disk.path().join("others"));
        let full = full.display();
        // Once each: `WHAT-full` says that it was.
        let fill = |what: &str| {
            let once = format!("[ ! -e {place}/{what}-full ]");
            let fill = format!("{once} && cat /dev/zero >> {full} 2> /dev/null");
            match filled {
                Filled::Before => (fill, ":".to_owned()),
                Filled::After => (":".to_owned(), fill),
                Filled::AtFirst | Filled::Meanwhile(_) => (":".to_owned(), ":".to_owned()),
            }
        };
        let ((before, after), (before_end, after_end)) = (fill("made"), fill("ended"));
        let text = format!(
            "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"command\"\n\
             check = \"test -s {place}/there || exit 10; echo web-id\"\n\
             create = \"{before}; echo web | tee -a {place}/there >> {place}/made; {after}; \
             echo web-id\"\n\
             destroy = \"{before_end}; echo web >> {place}/ended; : > {place}/there; \
             {after_end}; exit 0\"\n\
             receiver = {{ settle = \"10ms\", late = \"0s\" }}\n"
        );
        let plan = disk.path().join("shop.toml");
        std::fs::write(&plan, text).map_err(|it| said(&it))?;
        Ok(Self { binary, disk, other, plan })
    }

    fn count(&self, name: &str) -> usize {
        let text = std::fs::read_to_string(self.other.path().join(name)).unwrap_or_default();
        text.lines().count()
    }

    /// How the apply ended that had no room, and the destroying.
    fn played(&self, filled: Filled) -> Result<[Option<i32>; 2], String> {
        let mut apply = self.command(&["apply"]);
        let made = self.once("made", &mut apply, filled)?;
        let mut destroy = self.command(&["resources", "destroy"]);
        destroy.args(["web", "--id", "web-id", "--why", "full", "--by", "ann"]);
        let ended = self.once("ended", &mut destroy, filled)?;
        let last = apply.output().map_err(|it| said(&it))?;
        match (last.status.code(), self.count("made"), self.count("there")) {
            (Some(7), 1, 0) => Ok([made, ended]),
            other => Err(format!("after it was destroyed: {other:?}")),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        // Scripts print into files, and those have room.
        command.args(words).arg(&self.plan).env("TMPDIR", self.other.path());
        command.stdin(Stdio::null());
        command
    }

    /// Lets the store end its log, in which a process that ended may have left room for more.
    fn emptied(&self) -> Result<(), String> {
        let store = self.disk.path().join("shop.onlyonce/records.db");
        if !store.exists() {
            return Ok(());
        }
        let sqlite = rusqlite::Connection::open(store).map_err(|it| it.to_string())?;
        sqlite
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
            .map_err(|it| it.to_string())
    }

    /// Calls it while the disk is filled, and then until it is quiet: how it ended first. What it
    /// does is counted in the file `what`.
    fn once(
        &self,
        what: &str,
        command: &mut Command,
        filled: Filled,
    ) -> Result<Option<i32>, String> {
        if filled == Filled::AtFirst {
            self.emptied()?;
            self.disk.fill();
        }
        let Output { status, stdout, stderr } = std::thread::scope(|threads| {
            let calling = threads.spawn(|| command.output());
            if let Filled::Meanwhile(after) = filled {
                std::thread::sleep(Duration::from_millis(after));
                self.disk.fill();
            }
            calling.join()
        })
        .map_err(|_| "it was not begun")?
        .map_err(|it| said(&it))?;
        let told = [stdout, stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        let code = status.code();
        // What is said of it holds, whatever was full.
        match (code, self.count(what)) {
            (Some(0), 1) | (Some(1..=3 | 6), 0) | (Some(5), 0 | 1) => {}
            // Nothing could be looked for: that is said, and nothing was made.
            (Some(7), 0) => {}
            (code, count) => return Err(format!("{code:?} with {count} {what}: {told}")),
        }
        let full = self.other.path().join(format!("{what}-full"));
        std::fs::write(full, "").map_err(|it| said(&it))?;
        self.disk.free()?;
        for _ in 0..CALLS_MAX {
            let again = command.output().map_err(|it| said(&it))?;
            if again.status.success() {
                return match self.count(what) {
                    1 => Ok(code),
                    count => Err(format!("there are {count} {what} in the end: {told}")),
                };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("it does not become quiet: {told}"))
    }
}
