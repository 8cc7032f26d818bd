//! `onlyonce apply` whose store is cut off while it works: a PostgreSQL behind a relay. What was
//! made is counted where it was made, and no apply says what it cannot know.

use onlyonce_testbed::{Postgres, Relay, Way};
use serde_json::Value;

use crate::process::{Ran, Running, onlyonce, until};
use crate::provision::Site;
use crate::resources::DESTROY;

/// One thing, of a plan of its own.
fn plan(name: &str) -> String {
    format!(
        "name = \"{name}\"\n[[resource]]\nkey = \"web\"\nkind = \"command\"\n\
         check = \". ./check.sh\"\ncreate = \". ./create.sh\"\ndestroy = \". ./destroy.sh\"\n\
         receiver = {{ settle = \"100ms\", late = \"1s\" }}\n"
    )
}

/// A store behind a relay.
struct Far {
    _server: Postgres,
    relay: Relay,
    url: String,
}

impl Far {
    fn open() -> Self {
        let server = Postgres::start();
        let relay = Relay::to(server.address());
        let url = format!("postgres://postgres@{}/postgres", relay.address());
        onlyonce(["store", "init", "--first", "--store", &url]).done();
        Self { _server: server, relay, url }
    }

    fn start(&self, site: &Site) -> Running {
        site.start(&["--store", &self.url])
    }

    fn apply(&self, site: &Site) -> Ran {
        self.start(site).ended()
    }

    fn status(&self, site: &Site) -> Value {
        let line = site.resources(&["status", "--json", "--store", &self.url]).done();
        serde_json::from_str(line.trim()).unwrap()
    }
}

/// Wherever the store is cut off, there is one; and who says that nothing was made is right.
#[test]
fn wherever_the_store_is_cut_off_it_is_made_once_and_nothing_else_is_said() {
    let far = Far::open();
    let passed = |way| far.relay.passed(way);
    let before = [Way::ToServer, Way::ToClient].map(passed);
    far.apply(&Site::open(&plan("whole"))).done();
    let ways = [(Way::ToServer, before[0]), (Way::ToClient, before[1])];
    let whole = ways.map(|(way, before)| (way, passed(way) - before));
    let mut ends = Vec::new();
    for (way, bytes) in whole {
        for at in (1..bytes).step_by(bytes / 4) {
            let what = format!("{way:?} after {at}");
            let site = Site::open(&plan(&format!("{way:?}-{at}")));
            far.relay.cut_after(way, at);
            let told = far.apply(&site);
            far.relay.mend();
            let made = site.lines("made");
            match told.code {
                Some(0) => assert_eq!(far.status(&site)["state"], "created", "{what}: {told:?}"),
                Some(3) => assert_eq!(made, 0, "{what}: {told:?}"),
                Some(5) => {}
                code => panic!("{what}: {code:?} {told:?}"),
            }
            ends.push(told.code);
            until("an apply that ends well", || (far.apply(&site).code == Some(0)).then_some(()));
            assert_eq!(site.lines("made"), 1, "{what}");
            assert_eq!(far.status(&site)["state"], "created", "{what}");
        }
    }
    assert!(ends.contains(&Some(3)), "some end before anything is sent: {ends:?}");
}

/// The store is away when the thing is there: that is said, and the next apply finds it.
#[test]
fn what_was_made_or_destroyed_while_the_store_was_away_is_said_and_found_afterwards() {
    let far = Far::open();
    let site = Site::open(&plan("away"));
    site.folder.write("destroy.sh", DESTROY);
    site.folder.write("hold-after", "");
    let applying = far.start(&site);
    until("it is there", || (site.lines("made") == 1).then_some(()));
    far.relay.cut();
    std::fs::remove_file(site.path("hold-after")).unwrap();
    let told = applying.ended();
    assert!(told.out.contains("unrecorded web web-id: it was made, and that could"), "{told:?}");
    told.failed(5);
    let told = far.apply(&site);
    assert_eq!((told.code, site.lines("tried")), (Some(3), 1), "{told:?}");
    far.relay.mend();
    let told = far.apply(&site).done();
    assert!(told.contains("found by its marker"), "{told}");
    assert_eq!((site.lines("made"), site.lines("tried")), (1, 1));

    site.folder.write("hold-after", "");
    let destroy = ["destroy", "web", "--id", "web-id", "--why", "closed", "--store", &far.url];
    let site = &site;
    std::thread::scope(|threads| {
        let destroying = threads.spawn(|| site.resources(&destroy));
        until("it is gone", || (site.lines("made") == 0).then_some(()));
        far.relay.cut();
        std::fs::remove_file(site.path("hold-after")).unwrap();
        let told = destroying.join().unwrap().failed(5);
        assert!(told.contains("it was destroyed, and that could not be recorded"), "{told}");
    });
    far.relay.mend();
    assert!(site.resources(&destroy).done().contains("destroyed web web-id"));
    assert_eq!(site.lines("ended"), 1);
    assert_eq!(far.apply(site).code, Some(7));
    assert_eq!((site.lines("made"), site.lines("tried")), (0, 1));
}
