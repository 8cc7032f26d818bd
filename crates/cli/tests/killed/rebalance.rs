//! `onlyonce store rebalance`, killed at each named place that it passes and called again, while
//! proxies that name different members are asked for the same keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::bench::{Place, Proxy, until};
use crate::caller::{Answer, Caller};
use crate::shop::Shop;

/// Keys that ran before the move.
const EARLY: usize = 30;
/// Between two requests of one caller, so that the rows leave each other room.
const PAUSE: Duration = Duration::from_millis(500);

/// What the doctor says of the map.
const BEFORE: &str = "map 1: members 1,2";
const MOVING: &str = "map 2: members 1,2,3, moving from 1,2";
const AFTER: &str = "map 3: members 1,2,3";

/// What stands above the table.
const STORY: &str = "\
    Keys ran in a set of two SQLite files, and a third one is to join. Two proxies are asked for \
    the same keys, new ones and such that ran: one names all three, and one the first two, which \
    refuses what it cannot know of (503). `onlyonce store rebalance` is killed meanwhile. Then a \
    third proxy is started, and the command is called again. Each key that anybody asked for has \
    one effect in the end, and all proxies that name the three give the same answer.";

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// What the doctor says of the map then.
    map: &'static str,
}

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, map| {
        let place = Place { name, says };
        Row { place, killed, map }
    };
    let [first_moving, last_moving]: [&'static [_]; 2] =
        [&["(1, Map { version: 2"], &["(3, Map { version: 2"]];
    let [first_after, last_after]: [&'static [_]; 2] =
        [&["(1, Map { version: 3"], &["(3, Map { version: 3"]];
    let (before, after) = ("spread.publish.before", "spread.publish.after");
    vec![
        row(before, first_moving, "before the map of the move stands anywhere", BEFORE),
        row(after, first_moving, "when it stands in one member", MOVING),
        row(after, last_moving, "when it stands in all of them", MOVING),
        row("spread.copy.before", &[], "before a key is copied to its new home", MOVING),
        row("spread.forward.before", &[], "when it is copied, before its forward", MOVING),
        row("spread.forward.after", &[], "when its forward stands", MOVING),
        row(before, first_after, "when nothing is left, before the next map", MOVING),
        row(after, first_after, "when the next map stands in one member", AFTER),
        row(after, last_after, "when it stands in all of them", AFTER),
        row("spread.clean.before", &[], "before a forward is taken away", AFTER),
        row("spread.clean.after", &[], "when one forward is gone", AFTER),
    ]
}

/// Plays all rows at once, since each waits most of the time, and holds each to what is promised.
pub(crate) fn section(binary: &Path) -> String {
    thread::scope(|threads| {
        let played = |row| threads.spawn(move || World::new(binary).play(row));
        let playing: Vec<_> = rows().into_iter().map(played).collect();
        playing.into_iter().for_each(|played| played.join().unwrap());
    });
    let mut page = format!("\n## Keys that move to another member\n\n{STORY}\n\n");
    page += "| killed | the doctor says | called again | effects of a key |\n|---|---|---|---|\n";
    for Row { place, killed, map } in rows() {
        let name = place.name;
        page += &format!("| {killed} (`{name}`) | {map} | {AFTER} | 1 |\n");
    }
    page
}

/// A set that grows.
struct World<'a> {
    binary: &'a Path,
    folder: tempfile::TempDir,
    shop: Shop,
    /// What was answered under each key.
    told: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl<'a> World<'a> {
    fn new(binary: &'a Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Self { binary, folder, shop: Shop::open(), told: Mutex::default() };
        let line = |name: &str| format!("sqlite:{}\n", world.path(name).display());
        let [a, b, c] = ["a.db", "b.db", "c.db"].map(line);
        std::fs::write(world.path("before"), [&*a, &b].concat()).unwrap();
        std::fs::write(world.path("whole"), [&*a, &b, &c].concat()).unwrap();
        world.done(&["store", "init", "--first"], "before");
        world.done(&["store", "spread"], "whole");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command about the set that this file names.
    fn command(&self, arguments: &[&str], file: &str) -> Command {
        let mut command = Command::new(self.binary);
        command.args(arguments).arg("--store").arg(format!("spread:{}", self.path(file).display()));
        command.env_remove("ONLYONCE_STORE").stdin(Stdio::null());
        command
    }

    fn done(&self, arguments: &[&str], file: &str) -> String {
        let Output { status, stdout, stderr } = self.command(arguments, file).output().unwrap();
        let told = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(0), "{arguments:?}: {told}");
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn map(&self) -> String {
        let told = self.done(&["doctor", "--json"], "whole");
        let mut checks = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let set = checks.find(|check| check["check"] == "set").unwrap();
        set["says"].as_str().unwrap().to_owned()
    }

    fn proxy(&self, file: &str) -> Proxy {
        let upstream = format!("http://{}", self.shop.address);
        let proxy = ["proxy", "--listen", "127.0.0.1:0", "--log-level", "error"];
        let mut command = self.command(&[&proxy[..], &["--upstream", &upstream]].concat(), file);
        // It tells of each refusal.
        command.stderr(Stdio::null());
        Proxy::spawn(command)
    }

    /// Asks until nobody is at work on the key. A refusal is no answer of the shop.
    fn ask(&self, at: SocketAddr, key: &str) -> Option<Answer> {
        let answer = until("an answer", || {
            let answer = Caller::ask(at, "/orders", key, 0).saw().whole()?;
            (answer.says != "in-progress").then_some(answer)
        });
        if answer.status == 503 {
            return None;
        }
        assert!(answer.is_the_shops(), "{key}: {answer:?}");
        let mut told = self.told.lock().unwrap();
        let first = told.entry(key.to_owned()).or_insert_with(|| answer.body.clone());
        assert_eq!(*first, answer.body, "{key}: another answer");
        Some(answer)
    }

    /// A caller for each of these, who all ask for the same keys near each other, until the work
    /// has ended.
    fn asked_while<T>(&self, when: &str, at: &[SocketAddr], work: impl FnOnce() -> T) -> T {
        let is_over = &AtomicBool::new(false);
        thread::scope(|threads| {
            for address in at.iter().copied() {
                threads.spawn(move || {
                    for turn in 0.. {
                        self.ask(address, &format!("{when}-{turn}"));
                        self.ask(address, &format!("early-{}", turn % EARLY));
                        if is_over.load(Relaxed) {
                            break;
                        }
                        thread::sleep(PAUSE);
                    }
                });
            }
            let done = work();
            is_over.store(true, Relaxed);
            done
        })
    }

    fn play(self, row: Row) {
        let Row { place, killed, map } = row;
        let (old, follows) = (self.proxy("before"), self.proxy("whole"));
        let at = [&old, &follows].map(Proxy::address);
        for key in 0..EARLY {
            self.ask(at[0], &format!("early-{key}")).unwrap();
        }
        let lines = [&[&*format!("kill {}", place.name)], place.says].concat().join("\n");
        std::fs::write(self.path("order"), lines).unwrap();
        let rebalance = || self.command(&["store", "rebalance"], "whole");
        let doomed = self.asked_while("first", &at, || {
            rebalance().env("ONLYONCE_KILL_AT", self.path("order")).output().unwrap()
        });
        let said = String::from_utf8_lossy(&doomed.stderr).into_owned();
        assert_eq!(doomed.status.signal(), Some(9), "{killed}: {said}");
        assert_eq!(self.map(), map, "{killed}");
        let new = self.proxy("whole");
        let at = [at[0], at[1], new.address()];
        let again = self.asked_while("again", &at, || rebalance().output().unwrap());
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert_eq!(again.status.code(), Some(0), "{killed}: {said}");
        assert_eq!(self.map(), AFTER, "{killed}");
        self.judge(&at[1..], killed);
    }

    /// That each key that was asked for ran once, is answered alike, and is listed once.
    fn judge(&self, at: &[SocketAddr], killed: &str) {
        let keys: Vec<String> = self.told.lock().unwrap().keys().cloned().collect();
        assert!(EARLY < keys.len(), "{killed}: {} keys", keys.len());
        for key in &keys {
            for address in at {
                assert!(self.ask(*address, key).is_some(), "{killed}: {key} is refused");
            }
            assert_eq!(self.shop.effects_of(key), 1, "{killed}: {key}");
        }
        let listed = self.done(&["keys", "list", "--json"], "whole").lines().count();
        assert_eq!(listed, keys.len(), "{killed}: nothing is lost, and nothing is there twice");
    }
}
