//! A step more than this program has, taken on a file.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use futures_executor::block_on;
use onlyonce_conformance::{claimed, id};
use onlyonce_core::Floor;
use onlyonce_store::OpenErrorKind::{Newer, Older};
use onlyonce_store::{Store as _, Swap};
use tempfile::TempDir;

use super::*;

const STEP: &str = "ALTER TABLE records ADD COLUMN note TEXT;";
const WIDER: [&str; 2] = [schema::STEPS[0], STEP];
const FILE: &str = "ONLYONCE_TEST_MIGRATED";
/// A step that needs room.
const LARGE: &str = "ALTER TABLE records ADD COLUMN note TEXT;
    CREATE TABLE notes (note BLOB NOT NULL) STRICT;
    INSERT INTO notes VALUES (zeroblob(4000000));";
const SMALL: &str = "ONLYONCE_TEST_SMALL";

fn store() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("once.db");
    Sqlite::init(&file, Floor::NONE).unwrap();
    (folder, file)
}

/// How many columns a step has added, and the format.
fn seen(file: &Path) -> (i64, i64) {
    let (connection, found) = look(file).unwrap();
    let count = "SELECT count(*) FROM pragma_table_info('records') WHERE name = 'note'";
    (connection.query_row(count, (), |row| row.get(0)).unwrap(), found.into())
}

/// What a program of these steps says of the store at its door.
fn at_the_door(file: &Path, steps: &[&str]) -> Result<(), OpenError> {
    let found = look(file)?.1.into();
    let known = i64::try_from(steps.len()).unwrap();
    Formats { found, known }.look(&mut Checks::at(file.display().to_string()))
}

#[test]
fn an_older_store_takes_what_it_lacks_once_and_keeps_its_records() {
    let (_folder, file) = store();
    let open = Sqlite::open(&file).unwrap();
    assert_eq!(block_on(open.swap(id(1), None, Some(claimed(1)))), Ok(Swap::Done));
    let older = at_the_door(&file, &WIDER).unwrap_err();
    assert_eq!(older.kind(), Older);
    assert!(older.to_string().contains("onlyonce store migrate"), "{older}");
    assert_eq!(migrate(&file, &WIDER), Ok(Formats { found: 1, known: 2 }));
    assert_eq!(seen(&file), (1, 2));
    assert_eq!(at_the_door(&file, &WIDER), Ok(()));
    assert!(migrate(&file, &WIDER).unwrap().is_newest());
    assert_eq!(block_on(open.get(id(1))), Ok(Some(claimed(1))));
    open.close();
    for refused in [Sqlite::open(&file).err().unwrap(), Sqlite::migrate(&file).unwrap_err()] {
        assert_eq!(refused.kind(), Newer);
    }
    assert_eq!(seen(&file), (1, 2));
}

#[test]
fn a_step_that_fails_leaves_nothing_of_itself_or_of_those_before_it() {
    let (_folder, file) = store();
    let failing = [WIDER[0], WIDER[1], "CREATE TABLE notes (note TEXT) STRICT; nonsense"];
    migrate(&file, &failing).unwrap_err();
    assert_eq!(seen(&file), (0, 1));
    assert!(Sqlite::open(&file).is_ok());
}

#[test]
fn of_many_at_once_one_does_it_and_the_others_find_it_done() {
    let (_folder, file) = store();
    let take = || migrate(&file, &WIDER).unwrap().found;
    let mut found: Vec<i64> = thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    found.sort_unstable();
    assert_eq!(found, [1, 2, 2, 2]);
    assert_eq!(seen(&file), (1, 2));
}

/// Not a test of its own: what the process of the next one does.
#[test]
fn child() {
    let Ok(file) = std::env::var(FILE) else { return };
    // Its step has done what it does, and does not end.
    let endless = "SELECT count(*) FROM (WITH RECURSIVE c (n) AS (
                   SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c)";
    let step = format!("{STEP} PRAGMA user_version = 2; {endless}");
    println!("\nbegins");
    let _ = migrate(Path::new(&file), &[WIDER[0], &step]);
}

#[test]
fn whoever_is_killed_in_between_has_changed_nothing_and_saying_it_again_does_it() {
    let (_folder, file) = store();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "migrate::tests::child", "--nocapture"]).env(FILE, &file);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("begins")));
    let other = Connection::open(&file).unwrap();
    // Until it has the lock.
    while other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
        thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(other);
    assert_eq!(seen(&file), (0, 1));
    assert_eq!(migrate(&file, &WIDER), Ok(Formats { found: 1, known: 2 }));
    assert_eq!(seen(&file), (1, 2));
}

/// Not a test of its own: what the process of the next one does.
#[test]
fn child_with_little_room() {
    let Ok(file) = std::env::var(SMALL) else { return };
    match migrate(Path::new(&file), &[WIDER[0], LARGE]) {
        Ok(done) => println!("\nhas done {done:?}"),
        Err(error) => println!("\nsays {error}"),
    }
}

/// Whether there is no room for the first page, or for the last one, or for the commit.
#[test]
fn on_a_full_disk_nothing_is_changed_and_saying_it_again_with_room_does_it() {
    let (mut refused, mut done) = (0, 0);
    // Of any file, in units of 512 bytes: from what there is to what is needed.
    for most in [256, 512, 1_024, 4_096, 7_000, 7_800, 7_900, 8_000, 8_200, 100_000] {
        let (_folder, file) = store();
        let open = Sqlite::open(&file).unwrap();
        assert_eq!(block_on(open.swap(id(1), None, Some(claimed(1)))), Ok(Swap::Done));
        open.close();
        let script = format!("trap '' XFSZ; ulimit -f {most}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(SMALL, &file);
        command.args(["--exact", "migrate::tests::child_with_little_room", "--nocapture"]);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        match (seen(&file), said.contains("has done"), said.contains("says ")) {
            ((0, 1), false, true) => refused += 1,
            ((1, 2), true, false) => done += 1,
            half => panic!("{most}: {half:?}: {said}"),
        }
        assert_eq!(migrate(&file, &[WIDER[0], LARGE]).map(|it| it.known), Ok(2), "{most}: {said}");
        assert_eq!(seen(&file), (1, 2), "{most}");
        let (connection, _) = look(&file).unwrap();
        let kept = "SELECT (SELECT count(*) FROM records), (SELECT length(note) FROM notes)";
        let kept = connection.query_row(kept, (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(kept, (1_i64, 4_000_000_i64), "{most}");
    }
    assert!(0 < refused && 0 < done, "{refused} refused, {done} done");
}
