//! Several processes on one file, some of which are killed. The test program starts itself again
//! for each of them: `child` does nothing unless it is told what.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_executor::block_on;
use onlyonce_conformance::{answered, claimed, id};
use onlyonce_core::Floor;
use onlyonce_sqlite::Sqlite;
use onlyonce_store::{Store as _, Swap};

const ROLE: &str = "ONLYONCE_TEST_CHILD";
const FILE: &str = "ONLYONCE_TEST_FILE";

/// A process that uses the file, ended when it is dropped.
struct Process(Child);

impl Process {
    fn start(role: &str, file: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(ROLE, role).env(FILE, file);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self(command.spawn().unwrap())
    }

    /// The numbers that it says it has, until its output ends or there are so many.
    fn numbers(&mut self, enough: usize) -> Vec<u64> {
        let out = BufReader::new(self.0.stdout.take().unwrap());
        let lines = out.lines().map(Result::unwrap);
        // The harness prints beside it, in front of the first one too.
        let said = lines.filter_map(|line| line.rsplit_once("has ")?.1.parse().ok());
        said.take(enough).collect()
    }

    fn go(&mut self) {
        self.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nhas {number}").and_then(|()| out.flush()).unwrap();
}

/// Not a test of its own: what the processes of the others do.
#[test]
fn child() {
    let (Ok(role), Ok(file)) = (std::env::var(ROLE), std::env::var(FILE)) else { return };
    let store = Sqlite::open(Path::new(&file)).unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match role.as_str() {
        // Pairs without end, each told once it is confirmed.
        "pairs" => {
            for number in 0.. {
                let one = claimed(number);
                let two = answered(&one, number + 1, "order");
                let (key, revision) = (id(number), one.revision);
                assert_eq!(block_on(store.swap(key, None, Some(one))).unwrap(), Swap::Done);
                let swap = store.swap(key, Some(revision), Some(two));
                assert_eq!(block_on(swap).unwrap(), Swap::Done);
                say(number);
            }
        }
        // Every key that the others want too.
        seed => {
            let seed: u64 = seed.parse().unwrap();
            for number in 0..RACES {
                let mine = claimed(1_000 * (seed + 1) + number);
                match block_on(store.swap(id(number), None, Some(mine.clone()))).unwrap() {
                    Swap::Done => say(number),
                    Swap::Conflict(found) => assert_ne!(found.unwrap(), mine),
                }
            }
        }
    }
}

const RACES: u64 = 300;
const PROCESSES: u64 = 4;

fn new_store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("once.db");
    Sqlite::init(&file, Floor::NONE).unwrap();
    (folder, file)
}

/// Case B86.
#[test]
fn of_many_processes_exactly_one_wins_each_key() {
    let (_folder, file) = new_store();
    let mut processes: Vec<Process> =
        (0..PROCESSES).map(|seed| Process::start(&seed.to_string(), &file)).collect();
    processes.iter_mut().for_each(Process::go);
    let mut won: Vec<u64> = processes.iter_mut().flat_map(|it| it.numbers(usize::MAX)).collect();
    for process in &mut processes {
        assert!(process.0.wait().unwrap().success(), "no call has failed");
    }
    won.sort_unstable();
    assert_eq!(won, (0..RACES).collect::<Vec<u64>>());
}

#[test]
fn what_was_confirmed_survives_a_kill_of_its_process_and_others_go_on() {
    let (_folder, file) = new_store();
    let other = Sqlite::open(&file).unwrap();
    for round in 0..3 {
        let mut process = Process::start("pairs", &file);
        process.go();
        let told = process.numbers(40 * (round + 1));
        assert_eq!(told.len(), 40 * (round + 1));
        drop(process);
        for store in [&other, &Sqlite::open(&file).unwrap()] {
            for number in &told {
                let expect = answered(&claimed(*number), number + 1, "order");
                assert_eq!(block_on(store.get(id(*number))).unwrap(), Some(expect));
            }
        }
        // The next process begins at the first key again.
        for number in 0..u64::MAX {
            let Some(found) = block_on(other.get(id(number))).unwrap() else { break };
            let swap = other.swap(id(number), Some(found.revision), None);
            assert_eq!(block_on(swap).unwrap(), Swap::Done);
        }
    }
}
