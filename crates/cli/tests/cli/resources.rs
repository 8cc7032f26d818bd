//! `onlyonce resources destroy`, and what an apply counts for operators. What was made and
//! destroyed is counted where it was.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Running, onlyonce, until};
use crate::provision::{PLAN, Site};
use crate::vault::key_file;

/// Takes the line away. Where a file `hold-after` is, it waits there until that is gone.
pub(crate) const DESTROY: &str = "\
echo $ONLYONCE_ID >> ended
grep -v \"^$ONLYONCE_MARKER \" made > left
mv left made
while [ -e hold-after ]; do sleep 0.01; done
";

/// Killed when it is gone already: the script lives on, and nobody says what it has not seen.
#[test]
fn what_is_destroyed_is_named_and_confirmed_and_no_apply_makes_it_again() {
    let check = "check = \". ./check.sh\"\n";
    let more = "destroy = \". ./destroy.sh\"\nreceiver = { settle = \"1h\", late = \"0s\" }\n";
    let site = Site::open(&PLAN.replace(check, &format!("{check}{more}")));
    site.folder.write("destroy.sh", DESTROY);
    site.folder.write("ended", "");
    site.apply().done();
    let destroy = |key, id| ["destroy", key, "--id", id, "--why", "closed", "--by", "ann"];
    assert!(site.resources(&destroy("net", "net-id")).failed(1).contains("web waits for it"));
    site.resources(&destroy("web", "net-id")).failed(1);
    site.folder.write("app.conf", "mine");
    let told = site.resources(&destroy("conf", "app.conf")).failed(1);
    assert!(told.contains("what is in it is not what was written"), "{told}");
    assert_eq!(fs::read_to_string(site.path("app.conf")).unwrap(), "mine");
    assert_eq!(site.lines("ended"), 0);

    site.folder.write("hold-after", "");
    let all = destroy("web", "web-id");
    let destroying = Running::start(["resources", all[0], &site.plan].iter().chain(&all[1..]));
    until("it is gone", || (site.lines("made") == 1).then_some(()));
    assert_eq!(site.status("web")["state"], "destroying");
    let told = site.apply();
    assert!(told.out.contains("destroying web: process "), "{told:?}");
    told.failed(7);
    destroying.signal(Signal::KILL);
    assert_eq!(destroying.ended().code, None);
    let told = site.resources(&all).failed(5);
    assert!(told.contains("nobody knows whether it was destroyed"), "{told}");
    assert!(told.contains("--fence "), "{told}");
    let metrics = site.path("shop.prom").display().to_string();
    let told = site.start(&["--metrics", &metrics]).ended();
    assert!(told.out.contains("unknown web: nobody knows whether it was destroyed"), "{told:?}");
    told.failed(5);
    let page = fs::read_to_string(&metrics).unwrap();
    assert!(
        page.contains("onlyonce_resources_held{plan=\"shop\"} 1"),
        "no apply settles it: {page}"
    );
    fs::remove_file(site.path("hold-after")).unwrap();
    until("nobody runs it any more", || (site.resources(&all).code == Some(0)).then_some(()));
    assert_eq!((site.lines("ended"), site.lines("made")), (1, 1));
    assert_eq!(site.resources(&all).done(), "destroyed web web-id: by ann: closed\n");

    let told = site.apply();
    let line = "destroyed web web-id: by ann: closed; nothing was made";
    assert!(told.out.contains(line), "{told:?}");
    assert!(told.failed(7).contains(&format!("onlyonce resources forget {} web", site.plan)));
    assert_eq!(site.status("web")["state"], "destroyed");
    assert_eq!((site.lines("ended"), site.lines("tried")), (1, 2));
    site.resources(&["forget", "web", "--why", "open again"]).done();
    site.until_quiet();
    assert_eq!((site.lines("made"), site.lines("tried")), (2, 3));
}

#[test]
fn what_became_of_resources_is_counted_for_operators() {
    let site = Site::open(PLAN);
    let metrics = site.path("shop.prom").display().to_string();
    let apply = || site.start(&["--metrics", &metrics]).ended();
    let has = |lines: &[&str]| {
        let page = fs::read_to_string(&metrics).unwrap();
        for line in lines {
            assert!(page.lines().any(|it| it == *line), "{line}: {page}");
        }
    };
    site.folder.write("create.sh", "echo $ONLYONCE_KEY >> tried; kill -9 $$");
    apply().failed(5);
    has(&[
        "onlyonce_resources{plan=\"shop\",state=\"unknown\"} 1",
        "onlyonce_resources{plan=\"shop\",state=\"planned\"} 2",
        "onlyonce_resources{plan=\"shop\",state=\"ready\"} 0",
        "onlyonce_resources_held{plan=\"shop\"} 1",
        "onlyonce_resource_doubt_seconds_count 0",
    ]);
    let fence = site.status("net")["fence"].to_string();
    let made = ["resolve", "net", "--fence", &fence, "--made", "net-id", "--why", "looked"];
    site.resources(&made).done();
    site.folder.write("create.sh", "echo \"$ONLYONCE_MARKER a\" >> made; echo a");
    apply().done();
    has(&[
        "onlyonce_resources{plan=\"shop\",state=\"ready\"} 3",
        "onlyonce_resources_held{plan=\"shop\"} 0",
        "onlyonce_resource_doubt_seconds_count 2",
    ]);
    let web = fs::read_to_string(site.path("made")).unwrap();
    site.folder.write("made", &web.repeat(2));
    apply().failed(7);
    has(&[
        "onlyonce_resources{plan=\"shop\",state=\"duplicate\"} 1",
        "onlyonce_resources_held{plan=\"shop\"} 1",
    ]);
    site.folder.write("made", "");
    apply().failed(7);
    has(&[
        "onlyonce_resources{plan=\"shop\",state=\"missing\"} 1",
        "onlyonce_resources_held{plan=\"shop\"} 1",
    ]);
    let nowhere = site.path("no-such-folder").join("shop.prom").display().to_string();
    let told = site.start(&["--metrics", &nowhere]).ended().failed(2);
    assert!(told.contains("--metrics"), "{told}");
}

/// It is settled by other means, which say that it was made, and not which it is.
#[test]
fn what_was_made_and_has_no_id_is_held_until_somebody_says_which_it_is() {
    let site = Site::open(&PLAN.replace("check = \". ./check.sh\"\n", ""));
    let create = fs::read_to_string(site.path("create.sh")).unwrap();
    site.folder.write("create.sh", &format!("{create}kill -9 $$"));
    site.apply().failed(5);
    site.folder.write("create.sh", &create);
    let store = format!("sqlite:{}", site.path("shop.onlyonce/records.db").display());
    let listed = onlyonce(["keys", "list", "--state", "unknown", "--json", "--store", &store]);
    let listed: Value = serde_json::from_str(listed.done().trim()).unwrap();
    let (id, fence) = (listed["id"].as_str().unwrap(), listed["fence"].to_string());
    let reply = site.folder.write("reply.http", "HTTP/1.1 201 Created\n\nit is there");
    let settle = ["keys", "resolve", id, "--fence", &fence, "--happened", &reply, "--why", "seen"];
    onlyonce(settle.iter().chain(&["--store", &store])).done();

    let metrics = site.path("shop.prom").display().to_string();
    let told = site.start(&["--metrics", &metrics]).ended();
    let line = "no-id net: it was made, and its record does not say which it is: import it";
    assert!(told.out.contains(line), "{told:?}");
    assert!(told.failed(7).contains(&format!("onlyonce resources import {} net", site.plan)));
    let page = fs::read_to_string(&metrics).unwrap();
    assert!(page.contains("onlyonce_resources{plan=\"shop\",state=\"no-id\"} 1"), "{page}");
    assert!(page.contains("onlyonce_resources_held{plan=\"shop\"} 1"), "{page}");
    assert_eq!(site.lines("made"), 1);
    site.resources(&["import", "net", "--id", "net-id"]).done();
    site.apply().done();
    assert_eq!((site.lines("made"), site.lines("tried")), (2, 2));
}

/// Ids, and what a refusal said, may be nobody else's business.
#[test]
fn what_is_kept_of_resources_is_encrypted_if_there_is_a_key() {
    let (plain, site) = (Site::open(PLAN), Site::open(PLAN));
    plain.apply().done();
    let kept = |site: &Site| {
        let files = ["records.db", "records.db-wal"].map(|it| site.path("shop.onlyonce").join(it));
        let bytes = files.iter().flat_map(|it| fs::read(it).unwrap_or_default());
        bytes.collect::<Vec<u8>>().windows(6).any(|it| it == b"net-id")
    };
    assert!(kept(&plain), "without a key it is there to be found");

    let file = key_file(&site.folder, "keys", &["1".repeat(64).as_str()]);
    let with = |more: &[&str]| site.start(&[&["--key-file", &file][..], more].concat()).ended();
    let told = with(&[]).done();
    assert!(told.contains("ready web web-id: created"), "{told}");
    assert!(!kept(&site), "an id stands on the disk");
    assert!(site.apply().failed(3).contains("--key-file"));
    let other = key_file(&site.folder, "other", &["2".repeat(64).as_str()]);
    assert!(site.start(&["--key-file", &other]).ended().failed(3).contains("is not in it"));
    assert!(with(&[]).done().contains("ready web web-id: created"));
    let status = site.resources(&["status", "--key-file", &file]).done();
    assert!(status.contains("net-id"), "{status}");
    assert_eq!((site.lines("made"), site.lines("tried")), (2, 2));
}
