//! `onlyonce plan`, `apply` and `resources`: applies are killed, and applied again until it is
//! quiet. What was made is counted where it was made.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Folder, Ran, Running, onlyonce, until};

/// A network, and two things that need it. Each is a line of the file `made`.
pub(crate) const PLAN: &str = r#"
name = "shop"

[[resource]]
key = "net"
kind = "command"
check = ". ./check.sh"
create = ". ./create.sh"

[[resource]]
key = "web"
kind = "command"
check = ". ./check.sh"
create = ". ./create.sh"
inputs = { network = "${net.id}" }

[[resource]]
key = "conf"
kind = "file"
inputs = { path = "app.conf", content = "network = ${net.id}\n" }
"#;

const CHECK: &str = "\
n=$(grep -c \"^$ONLYONCE_MARKER \" made)
sed -n \"s/^$ONLYONCE_MARKER //p\" made
if [ $n = 1 ]; then exit 0; elif [ $n = 0 ]; then exit 10; else exit 12; fi
";

/// Where a file `hold-before` or `hold-after` is, it waits there until that is gone.
const CREATE: &str = "\
echo $ONLYONCE_KEY >> tried
while [ -e hold-before ]; do sleep 0.01; done
echo \"$ONLYONCE_MARKER $ONLYONCE_KEY-id\" >> made
while [ -e hold-after ]; do sleep 0.01; done
echo $ONLYONCE_KEY-id
";

pub(crate) struct Site {
    pub(crate) folder: Folder,
    pub(crate) plan: String,
}

impl Site {
    pub(crate) fn open(plan: &str) -> Self {
        let folder = Folder::empty();
        for (name, text) in
            [("made", ""), ("tried", ""), ("check.sh", CHECK), ("create.sh", CREATE)]
        {
            folder.write(name, text);
        }
        let plan = folder.write("shop.toml", plan);
        Self { folder, plan }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    pub(crate) fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.path(name)).unwrap().lines().count()
    }

    pub(crate) fn start(&self, more: &[&str]) -> Running {
        Running::start(["apply", &self.plan].iter().chain(more))
    }

    pub(crate) fn apply(&self) -> Ran {
        self.start(&[]).ended()
    }

    fn plan(&self) -> Ran {
        onlyonce(["plan", &self.plan])
    }

    pub(crate) fn resources(&self, what: &[&str]) -> Ran {
        onlyonce(["resources", what[0], &self.plan].iter().chain(&what[1..]))
    }

    /// How a resource stands by its record.
    pub(crate) fn status(&self, key: &str) -> Value {
        let all = self.resources(&["status", "--json"]).done();
        let all = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.into_iter().find(|it| it["key"] == key).unwrap()
    }

    /// Applies until it is quiet.
    #[track_caller]
    #[allow(clippy::print_stderr, reason = "shown if the test fails")]
    pub(crate) fn until_quiet(&self) {
        until("an apply that ends well", || {
            let told = self.apply();
            if told.code != Some(0) {
                eprintln!("{told:?}");
            }
            (told.code == Some(0)).then_some(())
        });
    }
}

#[test]
fn a_plan_is_foretold_applied_and_applied_again() {
    let site = Site::open(PLAN);
    let foretold = site.plan();
    assert!(foretold.out.contains("once net is there"), "{foretold:?}");
    assert!(foretold.failed(1).contains("3 of 3 resources are not as the plan says"));
    assert!(!site.path("shop.onlyonce").exists(), "to foretell makes nothing");
    let told = site.apply().done();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "ready net net-id: created");
    assert!(lines.contains(&"ready web web-id: created"), "{told}");
    assert!(lines.contains(&"ready conf app.conf: created"), "{told}");
    let written = fs::read_to_string(site.path("app.conf")).unwrap();
    assert_eq!(written, "network = net-id\n");
    site.plan().done();
    assert_eq!(site.apply().done().lines().count(), 3);
    assert_eq!((site.lines("made"), site.lines("tried")), (2, 2));
    let status = site.resources(&["status"]).done();
    assert!(status.contains("net-id"), "{status}");
}

/// Killed while a script is at work, which lives on: nothing is begun beside it, and once it has
/// ended, what it made is found.
#[test]
fn an_apply_killed_while_it_makes_something_makes_nothing_twice() {
    for hold in ["hold-before", "hold-after"] {
        let site = Site::open(PLAN);
        site.folder.write(hold, "");
        let applying = site.start(&[]);
        let file = if hold == "hold-after" { "made" } else { "tried" };
        until("a script at work", || (site.lines(file) == 1).then_some(()));
        assert_eq!(site.status("net")["state"], "creating");
        applying.signal(Signal::KILL);
        assert_eq!(applying.ended().code, None);
        for _ in 0..2 {
            let told = site.apply();
            assert!(
                told.out.contains("an earlier attempt, or a script of it, is still running"),
                "{told:?}"
            );
            let hint = format!("onlyonce resources resolve {} net --fence ", site.plan);
            assert!(told.failed(5).contains(&hint));
        }
        assert_eq!(site.status("net")["state"], "unknown");
        assert_eq!(site.lines("tried"), 1);
        fs::remove_file(site.path(hold)).unwrap();
        site.until_quiet();
        assert_eq!((site.lines("made"), site.lines("tried")), (2, 2), "{hold}");
        let about = site.status("net")["about"].to_string();
        assert!(about.contains("found by its marker"), "{about}");
    }
}

/// At whatever moment it is killed, and however often.
#[test]
fn an_apply_killed_at_any_moment_and_repeated_makes_each_once() {
    // Killed between the mark and the script, nothing is there, and only time makes that final.
    let bounds = "kind = \"command\"\nreceiver = { settle = \"100ms\", late = \"1s\" }\n";
    let site = Site::open(&PLAN.replace("kind = \"command\"\n", bounds));
    for step in 0..40_u64 {
        let applying = site.start(&[]);
        // What it has reached by then differs, and that is what is wanted.
        std::thread::sleep(std::time::Duration::from_millis(2 * step));
        applying.signal(Signal::KILL);
        applying.ended();
        assert!(site.lines("tried") <= 2, "killed after {} ms", 2 * step);
    }
    site.until_quiet();
    let made = fs::read_to_string(site.path("made")).unwrap();
    let mut ids: Vec<&str> = made.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["net-id", "web-id"]);
    assert_eq!(fs::read_to_string(site.path("app.conf")).unwrap(), "network = net-id\n");
}

#[test]
fn a_second_apply_waits_for_the_first_and_makes_nothing() {
    let site = Site::open(PLAN);
    site.folder.write("hold-before", "");
    let first = site.start(&[]);
    until("a script at work", || (site.lines("tried") == 1).then_some(()));
    let impatient = site.start(&["--wait", "0s"]).ended();
    assert!(impatient.out.contains("creating net: another apply is at it"), "{impatient:?}");
    impatient.failed(7);
    let second = site.start(&[]);
    fs::remove_file(site.path("hold-before")).unwrap();
    let (first, second) = (first.ended().done(), second.ended().done());
    assert!(first.contains("ready web web-id"), "{first}");
    assert!(second.contains("ready web web-id"), "{second}");
    assert_eq!((site.lines("made"), site.lines("tried")), (2, 2));
}

#[test]
fn an_apply_that_is_asked_to_end_lets_what_it_began_end() {
    let site = Site::open(PLAN);
    site.folder.write("hold-before", "");
    let applying = site.start(&[]);
    until("a script at work", || (site.lines("tried") == 1).then_some(()));
    applying.signal(Signal::TERM);
    fs::remove_file(site.path("hold-before")).unwrap();
    let told = applying.ended();
    assert!(told.out.contains("ready net net-id"), "{told:?}");
    assert!(told.out.contains("planned web: not begun"), "{told:?}");
    told.failed(7);
    site.until_quiet();
    assert_eq!((site.lines("made"), site.lines("tried")), (2, 2));
}

#[test]
fn somebody_elses_and_two_of_ours_are_told_and_left_as_they_are() {
    let site = Site::open(PLAN);
    site.apply().done();
    let made = fs::read_to_string(site.path("made")).unwrap();
    let marker = made.split(' ').next().unwrap();
    let twice = site.folder.write("made", &format!("{made}{marker} net-second\n"));
    let told = site.apply();
    assert!(told.out.contains("duplicate net: more than one is there"), "{told:?}");
    assert!(told.out.contains("net-id, net-second"), "{told:?}");
    told.failed(7);
    assert_eq!(fs::read_to_string(twice).unwrap().lines().count(), 3, "nothing is deleted");

    let site = Site::open(PLAN);
    site.folder.write("app.conf", "mine");
    let told = site.apply();
    assert!(told.out.contains("conflict conf: what is there is not ours"), "{told:?}");
    told.failed(7);
    assert_eq!(fs::read_to_string(site.path("app.conf")).unwrap(), "mine");
    site.resources(&["import", "conf", "--id", "app.conf"]).done();
    site.apply().done();
    assert_eq!(fs::read_to_string(site.path("app.conf")).unwrap(), "mine");
}

#[test]
fn what_is_in_doubt_and_what_is_gone_a_person_settles() {
    let site = Site::open(PLAN);
    site.folder.write("create.sh", "echo $ONLYONCE_KEY >> tried; kill -9 $$");
    let told = site.apply();
    assert!(told.out.contains("unknown net: nobody knows whether it was made"), "{told:?}");
    assert!(told.out.contains("planned web: not begun: it waits for net"), "{told:?}");
    told.failed(5);
    site.folder.write("create.sh", CREATE);
    // The plan does not say by when it would be seen, so that it is not is no proof.
    let told = site.apply();
    assert!(told.out.contains("nothing is there"), "{told:?}");
    told.failed(5);
    assert!(site.plan().failed(1).contains("3 of 3"));
    let net = site.status("net");
    assert_eq!((&net["state"], site.lines("tried")), (&Value::from("unknown"), 1));

    let fence = net["fence"].to_string();
    let settle = ["resolve", "net", "--fence", &fence, "--not-made", "--why", "looked"];
    assert_eq!(site.resources(&settle).done(), "done: net\n");
    site.until_quiet();
    assert_eq!((site.lines("made"), site.lines("tried")), (2, 3));
    let late = ["resolve", "net", "--fence", &fence, "--run-again", "--why", "looked"];
    site.resources(&late).failed(1);

    fs::write(site.path("made"), "").unwrap();
    let told = site.apply();
    assert!(told.out.contains("missing net net-id: it was there, and now nothing"), "{told:?}");
    assert!(told.failed(7).contains(&format!("onlyonce resources forget {} net", site.plan)));
    for key in ["net", "web"] {
        site.resources(&["forget", key, "--why", "deleted"]).done();
        site.resources(&["forget", key, "--why", "deleted"]).failed(1);
    }
    site.until_quiet();
    assert_eq!((site.lines("made"), &site.status("web")["generation"]), (2, &Value::from(2)));
    site.resources(&["forget", "db", "--why", "deleted"]).failed(2);
}

#[test]
fn steps_are_told_to_programs_a_line_each() {
    let site = Site::open(PLAN);
    let told = site.start(&["--json"]).ended().done();
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&str> = lines
        .iter()
        .filter(|line| line["key"] == "net")
        .map(|line| line["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["looking", "creating", "there", "ended"]);
    let ended = lines.iter().find(|line| line["key"] == "net" && line["step"] == "ended").unwrap();
    assert_eq!((&ended["state"], &ended["id"]), (&Value::from("ready"), &Value::from("net-id")));
    let foretold = onlyonce(["plan", &site.plan, "--json"]).done();
    assert_eq!(foretold.lines().count(), 3);
    assert!(foretold.lines().all(|line| line.contains("\"would\":\"nothing\"")), "{foretold}");
}

#[test]
fn a_mistake_in_a_plan_is_named_with_its_line_and_nothing_is_made() {
    let site = Site::open(&PLAN.replace("${net.id}\" }", "${nett.id}\" }"));
    let told = site.apply().failed(2);
    assert!(told.contains("shop.toml:15:"), "{told}");
    assert!(
        told.contains("`inputs.network`: there is no resource with the key \"nett\""),
        "{told}"
    );
    assert!(!site.path("shop.onlyonce").exists());
    let journal = ["apply", &site.plan, "--store", &site.folder.store()];
    onlyonce(journal).failed(2);
    onlyonce(["apply", "no-such-plan.toml"]).failed(2);
}
