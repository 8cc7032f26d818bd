//! Changing the key that answers are encrypted with, killed at each named place that it passes.

use std::path::Path;

use crate::bench::{Bench, Place, until};
use crate::caller::Answer;
use crate::scenes::CONFIG;

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// Whether the old key is still needed.
    needed: bool,
}

/// What stands above the table.
const STORY: &str = "\
    A proxy has a new key, and the old one below it. It writes down that answers may need both, \
    encrypts anew what is kept, and writes down that the old key is not needed any more. It is \
    started again with the new key alone, which it refuses if it says that it needs the old one; \
    and then with both, until it does not.";

/// Answers that are kept: more than are looked at in one step.
const ANSWERS: usize = 40;

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, needed| {
        let place = Place { name, says };
        Row { place, killed, needed }
    };
    let (both, new): (&'static [_], &'static [_]) = (&["(2, "], &["(1, "]);
    vec![
        row("names.write.before", both, "before the names of both keys are written", true),
        row("names.sync.before", both, "after they are written, before `fsync`", true),
        row("names.rename.before", both, "before they take the old one's place", true),
        row("names.rename.after", both, "after they have taken its place", true),
        row("names.synced.after", both, "after that is durable", true),
        row("renew.page.before", &[], "before the first answers are encrypted anew", true),
        row("renew.page.after", &[], "after the first answers are encrypted anew", true),
        row("names.write.before", new, "before the name of the new key alone is written", true),
        row("names.sync.before", new, "after it is written, before `fsync`", true),
        row("names.rename.before", new, "before it takes their place", true),
        row("names.rename.after", new, "after it has taken their place", false),
        row("names.synced.after", new, "after that is durable", false),
    ]
}

/// The names of the keys that the journal says it needs.
fn needed(bench: &Bench) -> usize {
    std::fs::read_to_string(bench.journal().join("keys")).unwrap_or_default().lines().count()
}

/// That each answer is given again, and nothing runs.
fn judge(bench: &mut Bench, told: &[Answer], killed: &str) {
    for (number, told) in told.iter().enumerate() {
        let key = format!("key-{number}");
        let again = bench.asks("/orders", &key, 0);
        assert_eq!((again.says.as_str(), &again.body), ("replayed", &told.body), "{killed}: {key}");
        assert_eq!(bench.shop.effects_of(&key), 1, "{killed}: {key}");
    }
}

/// Plays all rows, each with a key of its own: what is written in the page is what was found.
pub(crate) fn section(binary: &Path) -> String {
    let mut bench = Bench::small(binary, CONFIG);
    let key = |number: usize| format!("{number:064x}");
    let mut old = key(1);
    bench.encrypt(&[&old]);
    let told: Vec<Answer> =
        (0..ANSWERS).map(|number| bench.asks("/orders", &format!("key-{number}"), 0)).collect();
    bench.stop();
    let mut page = format!("\n## A new key for answers\n\n{STORY}\n\n");
    page += "| killed | the new key alone | then |\n|---|---|---|\n";
    for (number, Row { place, killed, needed: is_needed }) in (2..).zip(rows()) {
        let new = key(number);
        bench.encrypt(&[&new, &old]);
        bench.kill_at(place);
        bench.start_doomed();
        bench.died(place);
        bench.check(bench.journal());
        bench.encrypt(&[&new]);
        assert_eq!(bench.starts(), !is_needed, "{killed}");
        if !is_needed {
            judge(&mut bench, &told, killed);
            bench.stop();
        }
        bench.encrypt(&[&new, &old]);
        judge(&mut bench, &told, killed);
        until("one key is enough", || (needed(&bench) == 1).then_some(()));
        bench.stop();
        bench.encrypt(&[&new]);
        judge(&mut bench, &told, killed);
        bench.stop();
        let alone = if is_needed { "is refused" } else { "opens all" };
        page += &format!(
            "| {killed} (`{}`) | {alone} | all answers are given again, nothing runs |\n",
            place.name
        );
        old = new;
    }
    page
}
