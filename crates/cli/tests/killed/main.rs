//! The real binary, killed at each named place of its code and started again: what is left then is
//! the table of `docs/killed-at.md`, and each row is held to what is promised.
//!
//! Only in a build with the feature `failpoints`: `cargo xtask test` makes one.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod ageing;
mod background;
mod bench;
mod caller;
mod choose;
mod command;
mod copies;
mod departure;
mod frozen;
mod import;
mod join;
mod judge;
mod mail;
mod names;
mod occupied;
mod outbox;
mod page;
mod rebalance;
mod resource;
mod restored;
mod rows;
mod scenes;
mod shop;
mod site;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use judge::Found;
use rows::Scene;

/// Scenes that are played at once, the last ones first: they take longest.
const TOGETHER: usize = 3;

/// The binary, copied: another build may replace it meanwhile.
fn binary(folder: &Path) -> PathBuf {
    let (built, copy) = (env!("CARGO_BIN_EXE_onlyonce"), folder.join("onlyonce"));
    std::fs::copy(built, &copy).unwrap();
    let bytes = std::fs::read(&copy).unwrap();
    let is_armed = String::from_utf8_lossy(&bytes).contains("relay.hold.before");
    assert!(is_armed, "{built} was built without the feature failpoints");
    copy
}

fn played(scene: &Scene, number: usize, binary: &Path) -> Vec<Found> {
    let mut bench = scene.bench(binary);
    let rows = scene.rows.iter().enumerate();
    rows.map(|(at, row)| {
        if scene.afresh && 0 < at {
            bench = scene.bench(binary);
        }
        let key = format!("key-{number}-{at}");
        let found = judge::find(scene, *row, &mut bench, &key);
        if let Err(wrong) = found.judge(scene) {
            let (effects, then) = (found.effects, found.effects_then);
            let Found { saw, state, again, .. } = &found;
            panic!(
                "{}: killed {} ({:?}): {wrong}\neffects {effects}, then {then}\nsaw {saw:?}\n\
                 record {state}\nagain {again:?}",
                scene.title, row.killed, row.place
            );
        }
        found
    })
    .collect()
}

#[test]
fn wherever_it_is_killed_nothing_runs_twice_and_no_answer_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let binary = binary(folder.path());
    let scenes: Vec<_> = rows::scenes().into_iter().enumerate().collect();
    let waiting = Mutex::new(scenes);
    let found = Mutex::new(Vec::new());
    let others = std::thread::scope(|threads| {
        let others = threads.spawn(|| {
            [copies::section, mail::section, outbox::section, names::section, restored::section]
                .map(|section| section(&binary))
                .concat()
        });
        // It waits most of the time.
        let frozen = threads.spawn(|| frozen::section(&binary));
        // And so does this.
        let rebalance = threads.spawn(|| {
            rebalance::section(&binary) + &choose::section(&binary) + &join::section(&binary)
        });
        for _ in 0..TOGETHER {
            threads.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some((number, scene)) = next else { break };
                    let rows = played(&scene, number, &binary);
                    found.lock().unwrap().push((number, scene, rows));
                }
            });
        }
        others.join().unwrap() + &rebalance.join().unwrap() + &frozen.join().unwrap()
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(number, ..)| *number);
    let found: Vec<_> = found.into_iter().map(|(_, scene, rows)| (scene, rows)).collect();
    let (commands, resources) = (command::found(&binary), resource::found(&binary));
    let resources = resource::section(&resources) + &departure::section(&binary);
    let resources = resources + &import::section(&binary);
    let others = command::section(&commands) + &resources + &others;
    let page = page::page(&found, &others);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/killed-at.md");
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        std::fs::write(path, page).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(written == page, "docs/killed-at.md is old: run cargo xtask docs\n{page}");
}

#[test]
fn every_place_in_the_code_is_in_the_table() {
    let scenes = rows::scenes();
    let requests = scenes.iter().flat_map(|it| &it.rows).map(|it| it.place);
    let commands = command::rows().into_iter().map(|it| it.place);
    let resources = resource::rows().into_iter().map(|it| it.place);
    let resources = resources.chain(departure::rows().into_iter().map(|it| it.place));
    let resources = resources.chain(departure::file_rows().into_iter().map(|it| it.place));
    let resources = resources.chain(import::rows().into_iter().map(|it| it.place));
    let copies = copies::rows().map(|it| it.place);
    let names = names::rows().into_iter().map(|it| it.place);
    let restored = restored::rows().into_iter().map(|it| it.place);
    let restored = restored.chain(rebalance::rows().into_iter().map(|it| it.place));
    let restored = restored.chain(choose::rows().into_iter().map(|it| it.place));
    let restored = restored.chain(join::rows().into_iter().map(|it| it.place));
    let mail = mail::rows().into_iter().map(|it| it.place);
    let outbox = outbox::rows().into_iter().map(|it| it.place);
    let mail = mail.chain(outbox);
    let others = commands.chain(resources).chain(copies).chain(mail).chain(names).chain(restored);
    let tried: BTreeSet<String> = requests.chain(others).map(|it| it.name.to_owned()).collect();
    let there: BTreeSet<String> = page::places().into_keys().collect();
    assert_eq!(tried, there);
}
