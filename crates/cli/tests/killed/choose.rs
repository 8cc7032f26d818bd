//! `onlyonce store choose`, killed at each named place that it passes and called again; and stopped
//! there, while somebody else chooses for the same key.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::bench::{Place, Proxy, until};
use crate::caller::{Answer, Caller};
use crate::shop::Shop;

/// Keys that ran in the first member; about half of them move.
const KEYS: usize = 32;

/// What stands above the first table.
const STORY: &str = "\
    Keys ran in an SQLite file, and a second one joined. When they had moved, and their answers \
    were erased, the first file was put back from before: keys that had moved have two records. \
    `onlyonce store choose --keep old` is killed, and `onlyonce store choose` is called again. In \
    the end the move ends, each key has one record, and what was chosen is answered; nothing runs.";

/// What stands above the second one.
const TWO: &str = "\
    Of two who choose for the same key at once, one stands still there until the other one, who \
    chooses `new` between the two that he is shown, has ended. One record is left.";

/// What is left of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The two that were shown.
    Both,
    /// The one that was chosen, and the old one.
    Half,
    /// One.
    One,
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    left: Left,
}

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, killed, left| Row { place: Place { name, says: &[] }, killed, left };
    vec![
        row("spread.choose.before", "before what is kept is written", Left::Both),
        row("spread.choose.between", "when it stands in the new home", Left::Half),
        row("spread.choose.after", "when the forward stands in the old one", Left::One),
    ]
}

impl Left {
    const fn said(self) -> (&'static str, &'static str) {
        match self {
            Self::Both => ("the two", "is done"),
            Self::Half => {
                ("what was chosen, and the old one", "is refused; about these it is done")
            }
            Self::One => ("what was chosen", "has nothing to choose"),
        }
    }
}

/// Plays all rows in one set, and holds each to what is promised.
pub(crate) fn section(binary: &Path) -> String {
    let world = World::new(binary);
    let mut twice = world.twice().into_iter();
    let mut page = format!("\n## A choice between two records\n\n{STORY}\n\n");
    page += "| killed | it has then | the same choice again |\n|---|---|---|\n";
    for row in rows() {
        world.killed(row, &twice.next().unwrap());
        let ((left, again), name) = (row.left.said(), row.place.name);
        page += &format!("| {} (`{name}`) | {left} | {again} |\n", row.killed);
    }
    page += &format!("\n{TWO}\n\n| stopped | it is told then | what counts |\n|---|---|---|\n");
    for row in rows().into_iter().filter(|row| row.left != Left::One) {
        world.overtaken(row, &twice.next().unwrap());
        let (told, counts) = match row.left {
            Left::Both => ("that the key was changed; it has done nothing", "`new`"),
            Left::Half | Left::One => (
                "that it has replaced one record, and nobody knows of the other",
                "what it had put in the new home",
            ),
        };
        page += &format!("| {} (`{}`) | {told} | {counts} |\n", row.killed, row.place.name);
    }
    twice.for_each(|id| world.chosen(&id, "old", &world.of(&id), "carla"));
    world.ends();
    page
}

/// A set of two, one of which was put back.
struct World<'a> {
    binary: &'a Path,
    folder: tempfile::TempDir,
    shop: Shop,
    /// What was answered at first.
    told: Vec<Answer>,
}

impl<'a> World<'a> {
    fn new(binary: &'a Path) -> Self {
        let (folder, shop) = (tempfile::tempdir().unwrap(), Shop::open());
        let mut world = Self { binary, folder, shop, told: Vec::new() };
        let [a, b] =
            ["a.db", "b.db"].map(|name| format!("sqlite:{}\n", world.path(name).display()));
        std::fs::write(world.path("stores"), &a).unwrap();
        world.done(&["store", "init", "--first"]);
        world.told = world.asked();
        std::fs::write(world.path("stores"), a + &b).unwrap();
        world.done(&["store", "spread"]);
        // Its map stands in both, and nothing has moved.
        std::fs::write(world.path("order"), "kill spread.publish.after\n(2, Map { version: 2")
            .unwrap();
        let begun = world.command(&["store", "rebalance"], "order").output().unwrap();
        assert_eq!(begun.status.signal(), Some(9), "{begun:?}");
        world.copied("a.db", "copy.db");
        for id in world.ids() {
            world.done(&["keys", "erase", &id, "--why", "asked for"]);
        }
        world.copied("copy.db", "a.db");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of SQLite with its log, while nobody has it.
    fn copied(&self, from: &str, to: &str) {
        for end in ["", "-wal", "-shm"] {
            let [from, to] = [from, to].map(|name| self.path(&format!("{name}{end}")));
            // One that is not there is not left from before either.
            let _ = std::fs::remove_file(&to);
            if from.exists() {
                std::fs::copy(from, to).unwrap();
            }
        }
    }

    /// A command about the set, which does as this order says.
    fn command(&self, arguments: &[&str], order: &str) -> Command {
        let mut command = Command::new(self.binary);
        command
            .args(arguments)
            .arg("--store")
            .arg(format!("spread:{}", self.path("stores").display()));
        command.env("ONLYONCE_KILL_AT", self.path(order)).env_remove("ONLYONCE_STORE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn call(&self, arguments: &[&str]) -> (Option<i32>, String) {
        told(&self.command(arguments, "none").output().unwrap())
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let (code, said) = self.call(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    /// All keys, asked for once each.
    fn asked(&self) -> Vec<Answer> {
        let upstream = format!("http://{}", self.shop.address);
        let proxy = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &upstream];
        let mut command = self.command(&proxy, "none");
        command.stderr(Stdio::null());
        let proxy = Proxy::spawn(command);
        let ask = |key| Caller::ask(proxy.address(), "/orders", &format!("key-{key}"), 0).saw();
        (0..KEYS).map(|key| ask(key).whole().unwrap()).collect()
    }

    fn ids(&self) -> Vec<String> {
        let listed = self.done(&["keys", "list", "--json"]);
        let id =
            |line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        listed.lines().map(id).collect()
    }

    /// Those with two records.
    fn twice(&self) -> Vec<String> {
        let (code, said) = self.call(&["store", "rebalance", "--at-rest"]);
        assert_eq!(code, Some(7), "{said}");
        self.ids().into_iter().filter(|id| said.contains(id)).collect()
    }

    /// The revisions of the two that are shown.
    fn of(&self, id: &str) -> String {
        let shown = self.done(&["store", "choose", id]);
        let (_, of) = shown.split_once("with --of ").unwrap();
        of.split_once(';').unwrap().0.to_owned()
    }

    fn choice<'c>(id: &'c str, side: &'c str, of: &'c str, by: &'c str) -> [&'c str; 9] {
        ["store", "choose", id, "--keep", side, "--of", of, "--by", by]
    }

    #[track_caller]
    fn chosen(&self, id: &str, side: &str, of: &str, by: &str) {
        self.done(&Self::choice(id, side, of, by));
    }

    fn killed(&self, row: Row, id: &str) {
        let (name, of) = (row.place.name, self.of(id));
        std::fs::write(self.path("order"), format!("kill {name}")).unwrap();
        let choice = Self::choice(id, "old", &of, "anna");
        let doomed = self.command(&choice, "order").output().unwrap();
        assert_eq!(doomed.status.signal(), Some(9), "{name}: {doomed:?}");
        let (code, said) = self.call(&choice);
        match row.left {
            Left::Both => assert_eq!(code, Some(0), "{name}: {said}"),
            Left::Half => {
                assert!(code == Some(1) && said.contains("not those of --of"), "{name}: {said}");
                let (old, new) = of.split_once(',').unwrap();
                let again = self.of(id);
                let (old_again, new_again) = again.split_once(',').unwrap();
                assert!(old == old_again && new != new_again, "{of}, then {again}");
                self.chosen(id, "new", &again, "bert");
            }
            Left::One => {}
        }
        self.has_one(id, name);
    }

    /// Another one chooses while this one stands at its place.
    fn overtaken(&self, row: Row, id: &str) {
        let (name, of) = (row.place.name, self.of(id));
        let [order, passed] = ["order", "order.passed"].map(|name| self.path(name));
        let _ = std::fs::remove_file(&passed);
        std::fs::write(&order, format!("hold {name}")).unwrap();
        let first = self.command(&Self::choice(id, "old", &of, "anna"), "order").spawn().unwrap();
        until("a choice at its place", || passed.exists().then_some(()));
        let shown = self.of(id);
        assert_eq!(shown == of, row.left == Left::Both, "{name}: {of}, then {shown}");
        self.chosen(id, "new", &shown, "bert");
        std::fs::remove_file(order).unwrap();
        let (code, said) = told(&first.wait_with_output().unwrap());
        let (expected, text) = match row.left {
            Left::Both => (1, "changed meanwhile"),
            Left::Half | Left::One => (5, "member 2 was replaced"),
        };
        assert!(code == Some(expected) && said.contains(text), "{name}: {code:?} {said}");
        self.has_one(id, name);
        let got = self.done(&["keys", "get", id]);
        assert!(got.contains("by bert"), "{got}");
        assert_eq!(got.contains("by anna"), row.left == Left::Half, "{got}");
        let about = got.lines().find(|line| line.starts_with("about")).unwrap();
        assert_eq!(about.contains("the answer was erased"), row.left == Left::Both, "{got}");
    }

    fn has_one(&self, id: &str, name: &str) {
        let (code, said) = self.call(&["store", "choose", id]);
        assert!(code == Some(1) && said.contains("has no two records"), "{name}: {said}");
    }

    /// The move ends, no key is lost, and none runs again.
    fn ends(self) {
        loop {
            let (code, said) = self.call(&["store", "rebalance", "--at-rest"]);
            if code == Some(0) {
                break;
            }
            // Only so many are named at a time.
            let named = self.ids().into_iter().filter(|id| said.contains(id)).collect::<Vec<_>>();
            assert!(code == Some(7) && !named.is_empty(), "{code:?}: {said}");
            named.iter().for_each(|id| self.chosen(id, "old", &self.of(id), "carla"));
        }
        assert_eq!(self.ids().len(), KEYS);
        let again = self.asked();
        let kept = self.told.iter().zip(&again).filter(|(told, again)| told.body == again.body);
        assert!(5 < kept.count(), "of those that were chosen the old answer is given");
        for (key, answer) in again.iter().enumerate() {
            let is_erased = answer.status == 410;
            assert!(is_erased || answer.says == "replayed", "{answer:?}");
            assert_eq!(self.shop.effects_of(&format!("key-{key}")), 1);
        }
    }
}

/// Its code, and all that it printed.
fn told(output: &Output) -> (Option<i32>, String) {
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
