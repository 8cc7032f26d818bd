//! What the journal does behind its callers: old tombstones leave the log for shelves, shelves are
//! made one, and segments get snapshots.

use crate::ageing;
use crate::bench::{Bench, Place};
use crate::rows::Scene;
use crate::scenes::{self, OVER, Played, sweeps};
use crate::shop::Manner;

/// Longer than a tombstone stays in the log, in hours.
const A_DAY: u32 = 26;

/// Scenes of them.
pub(crate) fn scenes() -> [Scene; 4] {
    [first_shelf(), shelved(), merged(), snapshot()]
}

/// The five places around the writing of a small file.
fn written(scene: Scene, says: &'static [&'static str], words: [&'static str; 5]) -> Scene {
    let [write, sync, rename, renamed, named] = words;
    scene
        .at("file.write.before", says, write)
        .at("file.sync.before", says, sync)
        .at("file.rename.before", says, rename)
        .at("file.rename.after", says, renamed)
        .at("file.names.after", says, named)
}

/// The four places around the writing of a shelf.
fn shelf(scene: Scene) -> Scene {
    scene
        .at("shelf.create.before", &[], "before the new shelf's file is made")
        .at("shelf.write.before", &[], "before the new shelf is written")
        .at("shelf.sync.before", &[], "after it is written, before `fdatasync`")
        .at("shelf.sync.after", &[], "after the `fdatasync` of the shelf")
        .at("shelf.show.before", &[], "before the shelf can be seen")
        .at("shelf.show.after", &[], "when the shelf can be seen, and is not listed yet")
}

const LIST: &[&str] = &["\"shelves\""];

fn first_shelf() -> Scene {
    let scene = Scene::new("A journal's first shelf", first).story(
        "The caller was answered, the time for which the answer is kept is over, and a day later \
         the tombstone is to leave the log for a shelf. The journal had none so far: its label \
         says from now on that it has a list of shelves.",
    );
    let scene = written(
        scene,
        LIST,
        [
            "before an empty list of shelves is written",
            "after the empty list is written, before `fdatasync`",
            "before the empty list has its name",
            "after the empty list has its name",
            "after that is durable",
        ],
    );
    let scene = written(
        scene,
        &["\"format\""],
        [
            "before the new label is written",
            "after the new label is written, before `fdatasync`",
            "before the new label takes the old one's place",
            "after the new label has taken its place",
            "after that is durable",
        ],
    );
    Scene { afresh: true, expires: true, small: true, ..scene }
}

fn shelved() -> Scene {
    let scene = shelf(Scene::new("An old tombstone", later).story(
        "The same in a journal that has shelves. The list of them has the new one before the index \
         forgets what is on it.",
    ));
    let scene = scene
        .at("file.write.before", LIST, "before the new list is written")
        .at("file.sync.before", LIST, "after the new list is written, before `fdatasync`")
        .at("shelf.names.before", &[], "before the shelf's name is durable")
        .at("file.rename.before", LIST, "before the new list takes the old one's place")
        .at("file.rename.after", LIST, "after the new list has taken its place")
        .at("file.names.after", LIST, "after that is durable");
    Scene { expires: true, small: true, ..scene }
}

fn merged() -> Scene {
    let scene = Scene::new("A shelf made anew", together)
        .story(
            "Of two tombstones on a shelf one may be forgotten. The list says so first; then the \
             other one moves to a new shelf, which takes the old one's place.",
        )
        .at("file.write.before", LIST, "before the list says what counts no more")
        .at("file.rename.after", LIST, "after the list says what counts no more");
    let scene = shelf(scene)
        // The list before had a bit for each tombstone of the old shelf.
        .at("file.write.before", &["\"shelves\", 44"], "before the list has the new shelf")
        .at("file.sync.before", &["\"shelves\", 44"], "after that is written, before `fdatasync`")
        .at("shelf.remove.before", &[], "before the old shelf is removed")
        .at("shelf.remove.after", &[], "after the old shelf is removed");
    Scene { afresh: true, expires: true, small: true, ..scene }
}

fn snapshot() -> Scene {
    let scene = Scene::new("A snapshot", scenes::rolled).story(
        "The caller was answered. A segment is full, and what is in it is written down beside it, \
         so that the next opening need not read all of it.",
    );
    written(
        scene,
        &[".idx"],
        [
            "before the snapshot is written",
            "after the snapshot is written, before `fdatasync`",
            "before the snapshot has its name",
            "after the snapshot has its name",
            "after that is durable",
        ],
    )
}

/// Asks, and is answered; the answer is no longer kept.
fn over(bench: &mut Bench, key: &str) -> Played {
    bench.shop.manner(Manner::Answer);
    let told = bench.asks("/expired", key, 0);
    std::thread::sleep(OVER);
    bench.stop();
    Played { path: "/expired", ..Played::told(told) }
}

fn first(bench: &mut Bench, place: Place, key: &str) -> Played {
    let played = over(bench, key);
    ageing::end_answers(bench.journal(), None);
    ageing::go_on(bench.journal(), A_DAY);
    sweeps(bench, place);
    played
}

fn later(bench: &mut Bench, place: Place, key: &str) -> Played {
    if !bench.journal().join("shelves").exists() {
        over(bench, &format!("{key}-before"));
        ageing::end_answers(bench.journal(), None);
        ageing::go_on(bench.journal(), A_DAY);
        ageing::pass(bench.journal());
    }
    first(bench, place, key)
}

fn together(bench: &mut Bench, place: Place, key: &str) -> Played {
    let played = over(bench, key);
    ageing::end_answers(bench.journal(), Some(A_DAY + 2));
    ageing::go_on(bench.journal(), A_DAY);
    ageing::pass(bench.journal());
    // The other one may be forgotten then, and nothing else is old enough to be moved.
    ageing::go_on(bench.journal(), 4);
    sweeps(bench, place);
    played
}
