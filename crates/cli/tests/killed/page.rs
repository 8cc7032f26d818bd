//! `docs/killed-at.md`, made of what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::caller::{Answer, Saw};
use crate::judge::Found;
use crate::rows::Scene;

/// What stands above the tables.
const HEAD: &str = include_str!("head.md");

/// The page; `others` is the part about what is no request.
pub(crate) fn page(found: &[(Scene, Vec<Found>)], others: &str) -> String {
    let mut page = HEAD.to_owned();
    for (scene, rows) in found {
        page += &format!("\n## {}\n\n{}\n\n", scene.title, scene.story);
        page += "| killed | effects | the caller saw | the record then | the same key again | ";
        page += "effects then |\n|---|---|---|---|---|---|\n";
        for Found { row, effects, saw, state, again, effects_then, .. } in rows {
            let (name, killed) = (row.place.name, row.killed);
            page += &format!(
                "| {killed} (`{name}`) | {effects} | {} | {state} | {} | {effects_then} |\n",
                seen(saw),
                answered(again)
            );
        }
    }
    page += others;
    page += "\n## Where the places are\n\n| place | file |\n|---|---|\n";
    for (place, files) in places() {
        let files: Vec<String> = files.iter().map(|it| it.display().to_string()).collect();
        page += &format!("| `{place}` | {} |\n", files.join(", "));
    }
    page
}

fn seen(saw: &Saw) -> String {
    match saw {
        Saw::Nothing => "nothing".to_owned(),
        Saw::Part => "a part".to_owned(),
        Saw::Whole(answer) => format!("all: {}", answered(answer)),
    }
}

fn answered(answer: &Answer) -> String {
    let Answer { status, says, .. } = answer;
    match answer.problem() {
        Some(problem) => format!("{status} {says} (`{problem}`)"),
        None => format!("{status} {says}"),
    }
}

/// The places in the code, and in which files they stand.
pub(crate) fn places() -> BTreeMap<String, BTreeSet<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut places: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root.join("crates"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| !it.ends_with("failpoint"))
        .map(|it| it.join("src"))
        .filter(|it| it.exists())
        .collect();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let file = path.strip_prefix(&root).unwrap();
            let mut add = |place: String| {
                places.entry(place).or_default().insert(file.to_owned());
            };
            named(&text, "failpoint!(").for_each(|name| add(name.to_owned()));
            for name in named(&text, "tapped!(") {
                for what in ["read.after", "write.before", "write.after"] {
                    add(format!("{name}.{what}"));
                }
            }
        }
    }
    places
}

/// The first argument of each call of a macro.
fn named<'a>(text: &'a str, call: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(call).skip(1).filter_map(|rest| rest.strip_prefix('"')?.split('"').next())
}
