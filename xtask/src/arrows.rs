//! Imports between crates against `xtask/arrows.toml`, and the crate table made from it.
//!
//! A crate is a promise about what is absent. The promise is kept by three checks: an import of
//! ours must be listed, a list must point inward, and what a crate must never have is not in its
//! tree of normal dependencies at any depth.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::{Failure, Outcome, repo};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arrows {
    #[serde(rename = "crate")]
    crates: Vec<Crate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Crate {
    name: String,
    ring: u8,
    says: String,
    cannot: String,
    may: BTreeSet<String>,
    dev: BTreeSet<String>,
    never: BTreeSet<String>,
}

/// Checks all three, and that the table in `ARCHITECTURE.md` is current.
pub(crate) fn run() -> Outcome {
    let arrows = read()?;
    let mut broken = inward(&arrows);
    broken.extend(imports(&arrows, &repo::metadata(&["--no-deps"])?));
    for listed in &arrows.crates {
        broken.extend(tree(listed)?);
    }
    if let Some(page) = architecture()
        && page != with_table(&page, &arrows)?
    {
        broken.push("the crate table of ARCHITECTURE.md is old: cargo xtask docs".into());
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n  ").into()) }
}

/// Writes the crate table into `ARCHITECTURE.md`, where there is one.
pub(crate) fn write_table() -> Outcome {
    if let Some(page) = architecture() {
        std::fs::write(architecture_path(), with_table(&page, &read()?)?)?;
    }
    Ok(())
}

fn read() -> Result<Arrows, Failure> {
    let text = std::fs::read_to_string(repo::root().join("xtask/arrows.toml"))?;
    Ok(toml::from_str(&text)?)
}

/// Lists that point outward or to nowhere.
fn inward(arrows: &Arrows) -> Vec<String> {
    let ring = |name: &str| arrows.crates.iter().find(|one| one.name == name).map(|one| one.ring);
    let mut broken = Vec::new();
    for one in &arrows.crates {
        for target in &one.may {
            if ring(target).is_none_or(|ring| ring > one.ring) {
                let Crate { name, ring, .. } = one;
                broken
                    .push(format!("arrows.toml: {name} (ring {ring}) -> {target} points outward"));
            }
        }
    }
    broken
}

/// Imports of ours that are not listed, and crates that are not listed at all.
fn imports(arrows: &Arrows, metadata: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let ours: BTreeSet<&str> = packages.iter().filter_map(|one| one["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(listed) = arrows.crates.iter().find(|one| one.name == name) else {
            broken.push(format!("{name} is not listed in xtask/arrows.toml"));
            continue;
        };
        for dependency in package["dependencies"].as_array().map_or(&[][..], Vec::as_slice) {
            let target = dependency["name"].as_str().unwrap_or_default();
            let (list, may) = match dependency["kind"].as_str() {
                Some("dev") => ("dev", listed.dev.contains(target) || listed.may.contains(target)),
                _ => ("may", listed.may.contains(target)),
            };
            if ours.contains(target) && !may {
                let Crate { says, cannot, .. } = listed;
                broken.push(format!(
                    "{name} imports {target}, which is not in its `{list}` list: {name} {says}; it \
                     cannot {cannot}"
                ));
            }
        }
    }
    broken
}

/// What a crate must never have and has.
fn tree(listed: &Crate) -> Result<Vec<String>, Failure> {
    let Crate { name, cannot, never, .. } = listed;
    let arguments = ["tree", "-e", "normal", "--prefix", "none", "--format", "{p}", "-p", name];
    let said = Command::new(repo::cargo()).args(arguments).current_dir(repo::root()).output()?;
    if !said.status.success() {
        return Err(String::from_utf8_lossy(&said.stderr).into_owned().into());
    }
    let said = String::from_utf8(said.stdout)?;
    let found: BTreeSet<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    Ok(never
        .iter()
        .filter(|target| found.contains(target.as_str()))
        .map(|target| format!("{name} has {target} among its dependencies; it cannot {cannot}"))
        .collect())
}

fn architecture_path() -> PathBuf {
    repo::root().join("ARCHITECTURE.md")
}

fn architecture() -> Option<String> {
    std::fs::read_to_string(architecture_path()).ok()
}

const BEGIN: &str = "<!-- crates: written by `cargo xtask docs` from xtask/arrows.toml -->\n";
const END: &str = "<!-- end of crates -->";

/// `page` with its crate table made anew.
fn with_table(page: &str, arrows: &Arrows) -> Result<String, Failure> {
    let marks = || format!("ARCHITECTURE.md needs the lines `{}` and `{END}`", BEGIN.trim_end());
    let (before, rest) = page.split_once(BEGIN).ok_or_else(marks)?;
    let (_, after) = rest.split_once(END).ok_or_else(marks)?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", table(arrows)))
}

fn table(arrows: &Arrows) -> String {
    let mut table = String::from("\n| crate | in one line | may import of ours | cannot |\n");
    table.push_str("|---|---|---|---|\n");
    for Crate { name, says, cannot, may, .. } in &arrows.crates {
        let may: Vec<String> = may.iter().map(|target| format!("`{target}`")).collect();
        let may = if may.is_empty() { "nothing".to_owned() } else { may.join(", ") };
        table.push_str(&format!("| `{name}` | {says} | {may} | {cannot} |\n"));
    }
    table.push('\n');
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Arrows, BEGIN, END, imports, inward, with_table};

    fn arrows(text: &str) -> Arrows {
        toml::from_str(text).unwrap()
    }

    fn package(name: &str, target: &str, kind: Option<&str>) -> serde_json::Value {
        json!({ "name": name, "dependencies": [{ "name": target, "kind": kind }] })
    }

    const TWO: &str = "
        [[crate]]
        name = 'inner'
        ring = 0
        says = 'decides'
        cannot = 'wait'
        may = []
        dev = []
        never = []
        [[crate]]
        name = 'outer'
        ring = 1
        says = 'acts'
        cannot = 'decide'
        may = ['inner']
        dev = []
        never = []
    ";

    #[test]
    fn this_workspace_keeps_its_arrows() {
        super::run().unwrap_or_else(|failure| panic!("{failure}"));
    }

    #[test]
    fn a_list_that_points_outward_is_refused() {
        assert!(inward(&arrows(TWO)).is_empty());
        assert_eq!(inward(&arrows(&TWO.replace("ring = 0", "ring = 2"))).len(), 1);
        assert_eq!(inward(&arrows(&TWO.replace("['inner']", "['gone']"))).len(), 1);
    }

    #[test]
    fn an_import_that_is_not_listed_is_refused_with_the_sentence() {
        let inward = json!({ "packages": [
            package("inner", "bytes", None), package("outer", "inner", Some("dev")),
        ]});
        assert!(imports(&arrows(TWO), &inward).is_empty());
        let outward = json!({ "packages": [
            package("inner", "outer", Some("dev")), package("outer", "inner", None),
            package("new", "inner", None),
        ]});
        let broken = imports(&arrows(TWO), &outward);
        assert_eq!(broken.len(), 2);
        assert!(broken[0].contains("inner imports outer") && broken[0].contains("cannot wait"));
        assert!(broken[1].contains("new is not listed"));
    }

    #[test]
    fn the_table_is_replaced_between_its_marks() {
        let page = format!("a\n{BEGIN}old\n{END}\nb\n");
        let new = with_table(&page, &arrows(TWO)).unwrap();
        assert!(new.starts_with("a\n") && new.ends_with("\nb\n") && !new.contains("old"));
        assert!(new.contains("| `outer` | acts | `inner` | decide |"));
        assert_eq!(with_table(&new, &arrows(TWO)).unwrap(), new);
        assert!(with_table("no marks", &arrows(TWO)).is_err());
    }
}
