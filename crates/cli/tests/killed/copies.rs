//! `onlyonce journal backup`, `restore` and `salvage`, killed at each named place that they pass.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use crate::ageing;
use crate::bench::{Bench, Place};
use crate::caller::{Answer, Caller};
use crate::scenes::{CONFIG, OVER};
use crate::shop::Manner;

/// One row of the tables.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// What lies there then.
    there: There,
}

/// What lies where the new folder was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// A folder with another name, which is neither a backup nor a journal.
    Unfinished,
    Whole,
}

const BACKUP: &str = "\
    A proxy has answered an order, moved an old tombstone to a shelf, and encrypts what it \
    keeps. It is asked for a backup, and killed. Each time nothing is found to be wrong with the \
    journal; the proxy is started again on it, gives the same answers and runs nothing; and once \
    what is unfinished is removed, the next backup is made.";

const RESTORE: &str = "\
    `onlyonce journal restore` of such a backup, in which another order was at work, is killed. \
    Each time the backup has not changed by a byte. When nothing lies there, at the last moment \
    at which something unfinished does, and when all of it does, a restore is gone through with: \
    a proxy on it gives the same answers, does not know what became of the order that was at \
    work, and runs nothing.";

const SALVAGE: &str = "\
    `onlyonce journal salvage` of such a journal, in which the entry is damaged that an order was \
    answered, is killed. Each time the journal has not changed by a byte, but for the note of who \
    has it. When nothing lies there, at the last moment at which something unfinished does, and \
    when all of it does, a salvage is gone through with: a proxy on it gives the same answers, \
    does not know what became of the order whose answer is lost, and runs nothing.";

const KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn row(name: &'static str, says: &'static [&'static str], killed: &'static str) -> Row {
    Row { place: Place { name, says }, killed, there: There::Unfinished }
}

/// What is around the folder, with what is between.
fn within(rows: Vec<Row>) -> Vec<Row> {
    let with = |there, row| Row { there, ..row };
    let before = row("staging.create.before", &[], "before a folder is made");
    let made = row("staging.create.after", &[], "after a folder with another name is made");
    let renames = row("staging.rename.before", &[], "before the folder has its name");
    let renamed = row("staging.rename.after", &[], "after the folder has its name");
    let named = row("staging.names.after", &[], "after that is durable");
    let mut all = vec![with(There::Nothing, before), made];
    all.extend(rows);
    all.extend([renames, with(There::Whole, renamed), with(There::Whole, named)]);
    all
}

/// Those of a backup, in the order in which they are passed.
fn backup_rows() -> Vec<Row> {
    let (segment, shelf): (&'static [_], &'static [_]) = (&[".log"], &[".old"]);
    within(vec![
        row("copy.create.before", segment, "before the copy of the segment is made"),
        row("copy.write.before", segment, "before the segment is copied"),
        row("copy.sync.before", segment, "after it is copied, before `fdatasync`"),
        row("copy.sync.after", segment, "after the `fdatasync` of the copy"),
        row("copy.create.before", shelf, "before the copy of the shelf is made"),
        row("copy.write.before", shelf, "before the shelf is copied"),
        row("copy.sync.before", shelf, "after it is copied, before `fdatasync`"),
        row("copy.sync.after", shelf, "after the `fdatasync` of the copy"),
        row("file.write.before", &["\"shelves\""], "before the list of shelves is written"),
        row("file.rename.after", &["\"shelves\""], "after the list of shelves has its name"),
        row("file.write.before", &["\"secret\""], "before the secret is written"),
        row("file.rename.after", &["\"secret\""], "after the secret has its name"),
        row("file.write.before", &["\"keys\""], "before the names of keys are written"),
        row("file.rename.after", &["\"keys\""], "after the names of keys have their name"),
        row("copy.names.before", &[], "before the names of all that are durable"),
        row("file.write.before", &["\"format\""], "before the label is written"),
        row("file.sync.before", &["\"format\""], "after the label is written, before `fdatasync`"),
        row("file.rename.before", &["\"format\""], "before the label has its name"),
        row("file.rename.after", &["\"format\""], "after the label has its name"),
        row("file.names.after", &["\"format\""], "after that is durable"),
    ])
}

/// Those of a restore, and of a salvage: both make a journal of records.
fn rebuild_rows() -> Vec<Row> {
    within(vec![
        row("file.write.before", &["\"secret\""], "before the secret is written"),
        row("file.rename.after", &["\"secret\""], "after the secret has its name"),
        row("begin.zeros.before", &[], "before the first segment is made"),
        row("begin.write.before", &[], "before its header is written"),
        row("begin.rename.before", &[], "before the first segment has its name"),
        row("begin.rename.after", &[], "after the first segment has its name"),
        row("journal.write.before", &[], "before the records are written"),
        row("journal.sync.before", &[], "after they are written, before `fdatasync`"),
        row("journal.sync.after", &[], "after the `fdatasync` of the records"),
        row("file.write.before", &["\"keys\""], "before the names of keys are written"),
        row("file.rename.after", &["\"keys\""], "after the names of keys have their name"),
        row("file.write.before", &["\"format\""], "before the label is written"),
        row("file.sync.before", &["\"format\""], "after the label is written, before `fdatasync`"),
        row("file.rename.before", &["\"format\""], "before the label has its name"),
        row("file.rename.after", &["\"format\""], "after the label has its name"),
        row("file.names.after", &["\"format\""], "after that is durable"),
    ])
}

/// All of them.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    backup_rows().into_iter().chain(rebuild_rows())
}

/// A proxy with what can be in a journal.
struct World {
    bench: Bench,
    told: Answer,
}

impl World {
    fn new(binary: &Path) -> Self {
        let mut bench = Bench::small(binary, CONFIG);
        bench.encrypt(&[KEY]);
        bench.asks("/expired", "old", 0);
        std::thread::sleep(OVER);
        bench.stop();
        ageing::end_answers(bench.journal(), None);
        ageing::go_on(bench.journal(), 26);
        ageing::pass(bench.journal());
        let told = bench.asks("/orders", "kept", 0);
        assert!(told.is_the_shops() && bench.journal().join("keys").exists(), "{told:?}");
        Self { bench, told }
    }

    /// That the journal tells what it told before, and nothing runs again.
    fn judge(&mut self) {
        let Self { bench, told } = self;
        let kept = bench.asks("/orders", "kept", 0);
        assert_eq!((kept.says.as_str(), &kept.body), ("replayed", &told.body));
        assert_eq!(bench.asks("/expired", "old", 0).status, 410);
        for key in ["old", "kept"] {
            assert_eq!(bench.shop.effects_of(key), 1, "{key}");
        }
    }
}

/// What lies at `to`, which is made room for the next one.
fn there(to: &Path) -> There {
    let unfinished = PathBuf::from(format!("{}.new", to.display()));
    match (to.exists(), unfinished.exists()) {
        (true, false) => There::Whole,
        (false, true) => {
            std::fs::remove_dir_all(unfinished).unwrap();
            There::Unfinished
        }
        (false, false) => There::Nothing,
        (true, true) => panic!("{} is there twice", to.display()),
    }
}

/// Plays the rows of a backup, and holds each to what is promised.
fn backups(binary: &Path) {
    let mut world = World::new(binary);
    for (number, Row { place, killed, there: expected }) in backup_rows().into_iter().enumerate() {
        let bench = &mut world.bench;
        let to = bench.path(&format!("backup-{number}"));
        bench.proxy();
        bench.kill_at(place);
        let journal = bench.journal().to_owned();
        let asked = bench.on_journal("backup", &[&journal, &to]);
        assert!(!asked.status.success(), "{killed}: {asked:?}");
        bench.died(place);
        assert_eq!(there(&to), expected, "{killed}");
        bench.check(&journal);
        world.judge();
        let bench = &world.bench;
        if expected != There::Whole {
            let again = bench.on_journal("backup", &[&journal, &to]);
            assert!(again.status.success(), "{killed}: {again:?}");
        }
        bench.check(&to);
    }
}

/// What is in its files, but for the note of who has it. Where a process has the journal there is
/// its socket too, which nobody can open as a file (ENXIO).
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.is_file() && !path.ends_with("lock"));
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// The same for a restore.
fn restores(binary: &Path) {
    let mut world = World::new(binary);
    let bench = &mut world.bench;
    bench.shop.manner(Manner::Hold);
    let held = Caller::ask(bench.proxy(), "/orders", "held", 0);
    bench.shop.began("held");
    let (journal, backup) = (bench.journal().to_owned(), bench.path("backup"));
    let made = bench.on_journal("backup", &[&journal, &backup]);
    assert!(made.status.success(), "{made:?}");
    bench.shop.let_go();
    assert!(held.saw().whole().is_some_and(|it| it.is_the_shops()));
    bench.shop.manner(Manner::Answer);
    bench.stop();
    rebuilds(&mut world, "restore", &backup, "held");
}

/// The same for a salvage.
fn salvages(binary: &Path) {
    let mut world = World::new(binary);
    let bench = &mut world.bench;
    let journal = bench.journal().to_owned();
    let before = used(&journal);
    assert!(bench.asks("/orders", "lost", 0).is_the_shops());
    // The last that was written is that it was answered.
    let after = used(&journal);
    let (file, end) = after.iter().find(|(file, end)| before.get(*file) != Some(*end)).unwrap();
    assert!(bench.asks("/orders", "later", 0).is_the_shops());
    bench.stop();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[end - 40..end - 32].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(file, bytes).unwrap();
    let found = bench.on_journal("check", &[&journal]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    rebuilds(&mut world, "salvage", &journal, "lost");
}

/// How much of each segment is written.
fn used(journal: &Path) -> BTreeMap<PathBuf, usize> {
    let mut segments = contents(journal);
    segments.retain(|path, _| path.extension().is_some_and(|it| it == "log"));
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    segments.into_iter().map(|(path, bytes)| (path, end(&bytes))).collect()
}

/// Has a journal made of what is in `from`, and holds each row to what is promised. What became of
/// the order `in_doubt` is not in it.
fn rebuilds(world: &mut World, command: &str, from: &Path, in_doubt: &str) {
    let before = contents(from);
    for (number, Row { place, killed, there: expected }) in rebuild_rows().into_iter().enumerate() {
        let bench = &mut world.bench;
        let to = bench.path(&format!("{command}-{number}"));
        bench.kill_at(place);
        let doomed = bench.on_journal(command, &[from, &to]);
        assert_eq!(doomed.status.signal(), Some(9), "{killed}: {doomed:?}");
        bench.no_order();
        assert_eq!(there(&to), expected, "{killed}");
        assert!(contents(from) == before, "{killed}: it has changed what it reads");
        if expected != There::Whole {
            if !["staging.create.before", "staging.rename.before"].contains(&place.name) {
                continue;
            }
            let again = bench.on_journal(command, &[from, &to]);
            assert!(again.status.success(), "{killed}: {again:?}");
        }
        bench.check(&to);
        bench.move_to(to.clone());
        world.judge();
        let bench = &mut world.bench;
        let unknown = bench.asks("/orders", in_doubt, 0);
        assert_eq!(unknown.problem().as_deref(), Some("outcome-unknown"), "{killed}");
        assert_eq!(bench.shop.effects_of(in_doubt), 1, "{killed}");
        bench.stop();
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// Plays all rows: what is written in the page is what was found.
pub(crate) fn section(binary: &Path) -> String {
    backups(binary);
    restores(binary);
    salvages(binary);
    let table = |title, story, rows: Vec<Row>| {
        let mut page = format!("\n## {title}\n\n{story}\n\n");
        page += "| killed | what lies there |\n|---|---|\n";
        for Row { place, killed, there } in rows {
            let there = match there {
                There::Nothing => "nothing",
                There::Unfinished => "an unfinished folder with another name",
                There::Whole => "all of it",
            };
            page += &format!("| {killed} (`{}`) | {there} |\n", place.name);
        }
        page
    };
    table("A backup", BACKUP, backup_rows())
        + &table("A restore", RESTORE, rebuild_rows())
        + &table("A salvage", SALVAGE, rebuild_rows())
}
