//! The places where the process is killed, scene by scene, in the order in which they are passed.

use std::path::Path;

use crate::background;
use crate::bench::{Bench, Place};
use crate::scenes::{self, CONFIG, FORGETFUL, Played};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    pub(crate) killed: &'static str,
}

/// Rows with a story in common.
pub(crate) struct Scene {
    pub(crate) title: &'static str,
    pub(crate) story: &'static str,
    pub(crate) config: &'static str,
    /// Whether each row needs a store of its own.
    pub(crate) afresh: bool,
    /// Whether answers are not kept any more when they are asked for again.
    pub(crate) expires: bool,
    /// Whether the first sweep of the next process changes the record: then it is read before.
    pub(crate) swept: bool,
    /// Whether the journal begins with a small segment.
    pub(crate) small: bool,
    pub(crate) play: fn(&mut Bench, Place, &str) -> Played,
    pub(crate) rows: Vec<Row>,
}

impl Scene {
    pub(crate) fn new(title: &'static str, play: fn(&mut Bench, Place, &str) -> Played) -> Self {
        let (story, config, rows) = ("", CONFIG, Vec::new());
        let (afresh, expires, swept, small) = (false, false, false, false);
        Self { title, story, config, afresh, expires, swept, small, play, rows }
    }

    pub(crate) fn story(self, story: &'static str) -> Self {
        Self { story, ..self }
    }

    pub(crate) fn at(
        mut self,
        name: &'static str,
        says: &'static [&'static str],
        killed: &'static str,
    ) -> Self {
        self.rows.push(Row { place: Place { name, says }, killed });
        self
    }

    /// The four places around one write of the journal.
    fn durable(
        self,
        says: &'static [&'static str],
        [write, sync, synced, tell]: [&'static str; 4],
    ) -> Self {
        self.at("journal.write.before", says, write)
            .at("journal.sync.before", says, sync)
            .at("journal.sync.after", says, synced)
            .at("journal.tell.before", says, tell)
    }

    pub(crate) fn bench(&self, binary: &Path) -> Bench {
        if self.small { Bench::small(binary, self.config) } else { Bench::new(binary, self.config) }
    }
}

/// All of them.
pub(crate) fn scenes() -> Vec<Scene> {
    let mut scenes = vec![
        first(),
        large(),
        streamed(),
        refused(),
        cut(),
        renewed(),
        waited(),
        replayed(),
        buried(),
        expired(),
        forgotten(),
        rolled(),
        reclaimed(),
    ];
    scenes.extend(background::scenes());
    scenes
}

const CLAIM: &[&str] = &["Claim("];
const COMPLETE: &[&str] = &["Complete {"];

fn first() -> Scene {
    Scene::new("A first request", scenes::first)
        .story("The upstream has its effect and answers 201 in one piece.")
        .at("caller.read.after", &["POST /orders"], "after the request is read")
        .at("engine.swap.before", CLAIM, "before the claim is handed to the store")
        .durable(
            &["expected: None", "InFlight"],
            [
                "before the claim is written",
                "after the claim is written, before `fdatasync`",
                "after the `fdatasync` of the claim",
                "when the claim can be seen, before its claimant is told",
            ],
        )
        .at("engine.swap.after", CLAIM, "after the claim is granted")
        .at("run.call.before", &[], "before the upstream is called")
        .at("upstream.connect.before", &[], "before connecting to the upstream")
        .at("upstream.connect.after", &[], "after connecting to the upstream")
        .at("upstream.write.before", &["POST /orders"], "before the first byte is sent")
        .at("upstream.write.after", &["the-end"], "after the last byte is sent")
        .at("upstream.read.after", &["201 Created"], "after the answer is read from the socket")
        .at("run.call.after", &[], "after the head of the answer is understood")
        .at("engine.swap.before", COMPLETE, "before the completion is handed to the store")
        .durable(
            &["Settled"],
            [
                "before the completion is written",
                "after the completion is written, before `fdatasync`",
                "after the `fdatasync` of the completion",
                "when the completion can be seen, before its holder is told",
            ],
        )
        .at("engine.swap.after", COMPLETE, "after the completion is durable")
        .at("caller.write.before", &["201 Created"], "before the answer is written to the caller")
        .at("caller.write.after", &["201 Created"], "after the answer is written to the caller")
}

fn large() -> Scene {
    Scene::new("A large request", scenes::large)
        .story("12 MiB, so that it goes to the upstream in several writes.")
        .at("upstream.write.before", &["POST /orders"], "before the first byte is sent")
        .at("upstream.write.after", &["POST /orders"], "after the first bytes are sent")
        .at("upstream.write.after", &["the-end"], "after the last byte is sent")
}

fn streamed() -> Scene {
    Scene::new("An answer in pieces", scenes::streamed)
        .story("The upstream sends three pieces; each goes on when the next one is there.")
        .at("relay.hold.before", &["piece-1"], "before the first piece is held back")
        .at("relay.hold.after", &["piece-1"], "while the first piece is held back")
        .at("caller.write.before", &["201 Created"], "before the head is written to the caller")
        .at("caller.write.after", &["201 Created"], "after the head is written to the caller")
        .at("relay.hold.before", &["piece-3"], "before the last piece is held back")
        .at("relay.hold.after", &["piece-3"], "while the last piece is held back")
        .at("engine.swap.before", COMPLETE, "before the completion is handed to the store")
        .durable(
            &["Settled"],
            [
                "before the completion is written",
                "after the completion is written, before `fdatasync`",
                "after the `fdatasync` of the completion",
                "when the completion can be seen, before its holder is told",
            ],
        )
        .at("engine.swap.after", COMPLETE, "after the completion is durable")
        .at("caller.write.before", &["piece-3"], "before the last piece is written to the caller")
        .at("caller.write.after", &[r"0\r\n\r\n"], "after the end is written to the caller")
}

fn refused() -> Scene {
    Scene::new("A release", scenes::refused)
        .story(
            "The upstream answers 429: it certainly did nothing. Asked again, it has its effect.",
        )
        .at("run.call.after", &[], "after the head of the answer is understood")
        .at("engine.swap.before", &["Release {"], "before the release is handed to the store")
        .durable(
            &["Released"],
            [
                "before the release is written",
                "after the release is written, before `fdatasync`",
                "after the `fdatasync` of the release",
                "when the release can be seen, before its holder is told",
            ],
        )
        .at("engine.swap.after", &["Release {"], "after the release is durable")
        .at("caller.write.before", &["429"], "before the 429 is written to the caller")
        .at("caller.write.after", &["429"], "after the 429 is written to the caller")
}

fn cut() -> Scene {
    Scene::new("An abandonment", scenes::cut)
        .story("The upstream has its effect and cuts the connection.")
        .at("engine.swap.before", &["Abandon {"], "before the abandonment is handed to the store")
        .durable(
            &["Unknown"],
            [
                "before the abandonment is written",
                "after the abandonment is written, before `fdatasync`",
                "after the `fdatasync` of the abandonment",
                "when the abandonment can be seen, before its holder is told",
            ],
        )
        .at("engine.swap.after", &["Abandon {"], "after the abandonment is durable")
        .at("caller.write.before", &["502"], "before the 502 is written to the caller")
        .at("caller.write.after", &["502"], "after the 502 is written to the caller")
}

fn renewed() -> Scene {
    Scene::new("A renewal", scenes::renewed)
        .story("The upstream has its effect and takes longer than a third of the lease.")
        .at("engine.swap.before", &["Renew {"], "before the renewal is handed to the store")
        .durable(
            &["expected: Some", "InFlight"],
            [
                "before the renewal is written",
                "after the renewal is written, before `fdatasync`",
                "after the `fdatasync` of the renewal",
                "when the renewal can be seen, before its holder is told",
            ],
        )
        .at("engine.swap.after", &["Renew {"], "after the renewal is durable")
}

fn waited() -> Scene {
    Scene::new("A duplicate that waits", scenes::waited)
        .story("The first caller has hung up; the operation goes on, and a duplicate waits for it.")
        .at("wait.joined", &[], "when the duplicate waits")
        .at("engine.swap.after", COMPLETE, "after the completion is durable")
        .at("wait.woken", &[], "when the duplicate is woken")
        .at("caller.write.before", &["201 Created"], "before the answer is written to it")
        .at("caller.write.after", &["201 Created"], "after the answer is written to it")
}

fn replayed() -> Scene {
    Scene::new("A replay", scenes::replayed)
        .story("The first caller was answered, and asks again.")
        .at("caller.read.after", &["POST /orders"], "after the request is read")
        .at("engine.swap.before", CLAIM, "before the claim is handed to the store")
        .at("engine.swap.after", CLAIM, "after the store has said that there is a record")
        .at("caller.write.before", &["201 Created"], "before the replay is written to the caller")
        .at("caller.write.after", &["201 Created"], "after the replay is written to the caller")
}

fn buried() -> Scene {
    Scene::new("A start after a kill", scenes::buried)
        .story(
            "The process was killed just after a claim was granted. The next one is killed while \
             it ends the claims of the dead.",
        )
        .at("engine.swap.before", &["CertifyDeath"], "before the end is handed to the store")
        .durable(
            &["Unknown"],
            [
                "before the end is written",
                "after the end is written, before `fdatasync`",
                "after the `fdatasync` of the end",
                "when the end can be seen",
            ],
        )
        .at("engine.swap.after", &["CertifyDeath"], "after the end is durable")
}

fn expired() -> Scene {
    let scene = Scene::new("A sweep", scenes::expired)
        .story("The caller was answered, and the time for which its answer is kept is over.")
        .at("sweep.floor.before", &[], "before the floor is raised")
        .durable(
            &["Floor("],
            [
                "before the floor is written",
                "after the floor is written, before `fdatasync`",
                "after the `fdatasync` of the floor",
                "when the floor can be seen",
            ],
        )
        .at("sweep.floor.after", &[], "after the floor is durable")
        .at("sweep.swap.before", &["Tombstone"], "before the tombstone is handed to the store")
        .durable(
            &["Tombstone"],
            [
                "before the tombstone is written",
                "after the tombstone is written, before `fdatasync`",
                "after the `fdatasync` of the tombstone",
                "when the tombstone can be seen",
            ],
        )
        .at("sweep.swap.after", &[], "after the tombstone is durable");
    Scene { expires: true, swept: true, afresh: true, ..scene }
}

fn forgotten() -> Scene {
    let scene = Scene::new("A deletion", scenes::forgotten)
        .story("The upstream answered 429, and the time for which that is remembered is over.")
        .at("sweep.swap.before", &["None"], "before the deletion is handed to the store")
        .durable(
            &["Deleted"],
            [
                "before the deletion is written",
                "after the deletion is written, before `fdatasync`",
                "after the `fdatasync` of the deletion",
                "when the deletion can be seen",
            ],
        )
        .at("sweep.swap.after", &[], "after the deletion is durable");
    Scene { config: FORGETFUL, swept: true, afresh: true, ..scene }
}

fn rolled() -> Scene {
    Scene::new("A new segment", scenes::rolled)
        .story("The caller was answered. Large answers of others fill a segment of the journal.")
        .at("journal.roll.before", &[], "before the next segment gets its header and name")
        .at("journal.roll.after", &[], "after the next segment has its name")
        .at("journal.snapshot.before", &[], "before the snapshot of the full segment is written")
        .at("journal.snapshot.after", &[], "after the snapshot of the full segment is written")
        .at("journal.prepare.before", &[], "before the segment after it is prepared")
        .at("journal.prepare.after", &[], "after the segment after it is prepared")
}

fn reclaimed() -> Scene {
    let scene = Scene::new("Room given back", scenes::reclaimed)
        .story(
            "The caller was answered. The large answers of others have expired, so the oldest \
             segment goes, and what lives in it is copied.",
        )
        .at("reclaim.carry.before", &[], "before the record is copied")
        .durable(
            &["Copy {"],
            [
                "before the copy is written",
                "after the copy is written, before `fdatasync`",
                "after the `fdatasync` of the copy",
                "when the copy can be seen",
            ],
        )
        .at("reclaim.carry.after", &[], "after the copy is durable")
        .at("reclaim.unlink.before", &[], "before the old segment is unlinked")
        .at("reclaim.unlink.after", &[], "after the old segment is unlinked");
    Scene { afresh: true, ..scene }
}
