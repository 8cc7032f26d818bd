//! A store that has no more room from a certain write on: what was begun by then is told as it is,
//! and nothing is made or destroyed twice. What was made and destroyed is counted where it was.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce_core::{KeyId, Phase, Record, Remedy, Revision, State};
use onlyonce_provision::{Became, Changed, Departure, Destroyed, Identity, Provisioner};
use onlyonce_store::{BoxFuture, MemoryStore, Store, StoreError, StoreErrorKind, Swap};

use crate::site::{Site, apply, one, ready, until};

const DESTROY: &str = "destroy = \". ./destroy.sh\"\n";

const FILE: &str = "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"file\"\n\
    inputs = { path = \"web-0\", content = \"80\" }\n";

/// The write from which on there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Claim,
    /// It is noted that it was seen.
    Note,
    Mark,
    End,
    /// Room for all but what is answered.
    Content,
}

#[derive(Default)]
struct Room {
    full: Option<Full>,
    is_full: bool,
}

/// A store in memory whose room somebody else takes.
#[derive(Default)]
struct Narrow {
    store: MemoryStore,
    room: Mutex<Room>,
}

impl Narrow {
    fn take(&self, full: Full) {
        *self.room.lock().unwrap() = Room { full: Some(full), is_full: false };
    }

    fn free(&self) {
        *self.room.lock().unwrap() = Room::default();
    }

    fn has_room(&self, next: &Option<Record>) -> bool {
        let Some(next) = next else { return true };
        let mut room = self.room.lock().unwrap();
        let content = match &next.state {
            State::Completed { reply, .. } => reply.content().is_some(),
            State::InFlight(_)
            | State::Released { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => false,
        };
        if room.full == Some(Full::Content) {
            return !content;
        }
        let at = match &next.state {
            State::InFlight(flight) if flight.phase == Phase::Committing => Full::Mark,
            State::InFlight(_) if next.evidence.is_some() => Full::Note,
            State::InFlight(_) => Full::Claim,
            State::Completed { .. }
            | State::Released { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => Full::End,
        };
        room.is_full |= room.full == Some(at);
        !room.is_full
    }
}

async fn destroy(provisioner: &Provisioner) -> Result<Destroyed, String> {
    let wait = Duration::from_secs(60);
    let destroyed = provisioner.destroy("web", "web-0", "ann", "closed", wait).await;
    destroyed.map_err(|error| error.to_string())
}

fn plan() -> String {
    one(&format!("{DESTROY}receiver = {{ settle = \"1ms\", late = \"0s\" }}"))
}

fn departure() -> Departure {
    Departure { id: "web-0".into(), by: "ann".into(), why: "closed".into() }
}

/// Before the mark nothing is destroyed, and that is said; after it, it is gone, and that is said.
#[tokio::test]
async fn without_room_nothing_is_destroyed_before_the_mark_and_what_is_gone_is_told() {
    for full in [Full::Claim, Full::Note, Full::Mark, Full::End] {
        let (site, store) = (Site::open(), Arc::new(Narrow::default()));
        let provisioner = site.provisioner_on(&plan(), store.clone()).await;
        assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
        store.take(full);
        match (full, destroy(&provisioner).await) {
            (Full::End, Ok(Destroyed::Unrecorded { departure: gone, remedy, .. })) => {
                assert_eq!((gone, remedy), (Some(departure()), Remedy::Probe));
                assert_eq!((site.made(), site.ended()), (0, 1));
            }
            (Full::Claim | Full::Note | Full::Mark, Err(said)) => {
                assert!(said.contains("no room"), "{full:?}: {said}");
                assert_eq!((site.made(), site.ended()), (1, 0), "{full:?}");
            }
            other => panic!("{other:?}"),
        }
        // Still full: an apply makes nothing.
        apply(&provisioner).await;
        assert_eq!(site.tried(), 1, "{full:?}");
        store.free();
        // Another process, which has this store alone, takes all before it for dead.
        let provisioner = site.provisioner_on(&plan(), store.clone()).await;
        assert_eq!(destroy(&provisioner).await, Ok(Destroyed::Gone(departure())), "{full:?}");
        assert_eq!((site.made(), site.ended()), (0, 1), "{full:?}");
        let became = &apply(&provisioner).await[0].became;
        assert_eq!(*became, Became::Destroyed(departure()), "{full:?}");
        assert_eq!(site.tried(), 1, "{full:?}");
    }
}

/// There is room for the word that it is gone, and none for who wanted that.
#[tokio::test]
async fn whoever_waits_while_there_is_no_room_for_the_reasons_is_told_that_it_is_gone() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let provisioner = site.provisioner_on(&plan(), store.clone()).await;
    apply(&provisioner).await;
    store.take(Full::Content);
    site.write("hold", "");
    site.write("before-end", "while [ -e hold ]; do sleep 0.01; done");
    let meanwhile = async {
        until("it is gone", || async { site.ended() == 1 }).await;
        let second = destroy(&provisioner);
        let mut second = std::pin::pin!(second);
        // It waits by now.
        let waiting = tokio::time::timeout(Duration::from_millis(50), second.as_mut()).await;
        assert!(waiting.is_err(), "{waiting:?}");
        site.remove("hold");
        second.await
    };
    let (first, second) = tokio::join!(destroy(&provisioner), meanwhile);
    assert_eq!(first, Ok(Destroyed::Gone(departure())));
    let Ok(Destroyed::Gone(told)) = second else { panic!("{second:?}") };
    assert_eq!(told.id, "web-0");
    let later = destroy(&provisioner).await;
    assert!(matches!(&later, Ok(Destroyed::Gone(it)) if *it == told), "{later:?}");
    assert_eq!(apply(&provisioner).await[0].became, Became::Destroyed(told));
    assert_eq!((site.made(), site.ended(), site.tried()), (0, 1, 1));
}

/// A file shows at once that it is gone, so no plan has to say when.
#[tokio::test]
async fn a_file_that_was_removed_and_not_recorded_is_found_to_be_gone() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let provisioner = site.provisioner_on(FILE, store.clone()).await;
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    store.take(Full::End);
    let destroyed = destroy(&provisioner).await;
    let Ok(Destroyed::Unrecorded { remedy, .. }) = destroyed else { panic!("{destroyed:?}") };
    assert_eq!((remedy, site.path("web-0").exists()), (Remedy::Probe, false));
    store.free();
    let provisioner = site.provisioner_on(FILE, store.clone()).await;
    assert_eq!(destroy(&provisioner).await, Ok(Destroyed::Gone(departure())));
}

/// It is recorded that it was made, and there was no room for its id.
#[tokio::test]
async fn what_was_made_without_room_for_its_id_is_told_and_found_once_it_is_forgotten() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let provisioner = site.provisioner_on(&plan(), store.clone()).await;
    store.take(Full::Content);
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    store.free();
    for _ in 0..2 {
        let became = &apply(&provisioner).await[0].became;
        assert!(matches!(became, Became::NoId(why) if why.contains("or forget it")), "{became:?}");
    }
    let text = destroy(&provisioner).await;
    assert!(matches!(&text, Ok(Destroyed::Refused(why)) if why.contains("which")), "{text:?}");
    provisioner.forget("web", "ann", "to find it").await.unwrap();
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    assert_eq!((site.made(), site.tried(), site.ended()), (1, 1, 0));
}

/// The same, of one that no look finds: somebody says which it is, and it is never made again.
#[tokio::test]
async fn what_was_made_without_room_for_its_id_and_cannot_be_looked_for_is_made_once() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let plan = one(DESTROY).replace("check = \". ./check.sh\"\n", "");
    let provisioner = site.provisioner_on(&plan, store.clone()).await;
    store.take(Full::Content);
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    store.free();
    let became = &apply(&provisioner).await[0].became;
    assert!(matches!(became, Became::NoId(why) if why.contains("another is made")), "{became:?}");
    for _ in 0..2 {
        assert_eq!(provisioner.import("web", "web-0").await.unwrap(), Changed::Done);
        assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    }
    let told = provisioner.import("web", "web-1").await.unwrap();
    assert!(matches!(&told, Changed::Refused(why) if why.contains("web-0 already")), "{told:?}");
    assert_eq!((site.made(), site.tried(), site.ended()), (1, 1, 0));
    assert_eq!(destroy(&provisioner).await, Ok(Destroyed::Gone(departure())));
    assert_eq!((site.made(), site.tried(), site.ended()), (0, 1, 1));
}

/// Which it is said when there is no room for that either.
#[tokio::test]
async fn an_import_without_room_for_the_id_says_so_and_nothing_is_made_again() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let plan = one(DESTROY).replace("check = \". ./check.sh\"\n", "");
    let provisioner = site.provisioner_on(&plan, store.clone()).await;
    store.take(Full::Content);
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    let told = provisioner.import("web", "web-0").await.unwrap();
    assert!(matches!(&told, Changed::Refused(why) if why.contains("make room")), "{told:?}");
    store.free();
    assert!(matches!(apply(&provisioner).await[0].became, Became::NoId(_)));
    provisioner.forget("web", "ann", "to say which").await.unwrap();
    assert!(matches!(apply(&provisioner).await[0].became, Became::NoId(_)));
    assert_eq!(provisioner.import("web", "web-0").await.unwrap(), Changed::Done);
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    assert_eq!((site.made(), site.tried(), site.ended()), (1, 1, 0));
}

/// It was begun to say which it is, and whoever did is gone.
#[tokio::test]
async fn an_import_that_was_cut_off_is_said_again_and_nothing_is_made() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let plan = one(DESTROY).replace("check = \". ./check.sh\"\n", "");
    let provisioner = site.provisioner_on(&plan, store.clone()).await;
    store.take(Full::Content);
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    store.take(Full::End);
    let told = provisioner.import("web", "web-0").await.unwrap();
    assert!(matches!(&told, Changed::Refused(why) if why.contains("repeat")), "{told:?}");
    store.free();
    // Another process, which has this store alone, takes all before it for dead.
    let provisioner = site.provisioner_on(&plan, store.clone()).await;
    assert!(matches!(apply(&provisioner).await[0].became, Became::NoId(_)));
    assert_eq!(provisioner.import("web", "web-0").await.unwrap(), Changed::Done);
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    assert_eq!((site.made(), site.tried()), (1, 1));
}

/// Whoever removes it was stopped before the end, and may still be at it.
#[tokio::test]
async fn nobody_says_what_became_of_a_file_while_somebody_is_at_it() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let provisioner = site.provisioner_on(FILE, store.clone()).await;
    apply(&provisioner).await;
    store.take(Full::End);
    let destroyed = destroy(&provisioner).await;
    assert!(matches!(destroyed, Ok(Destroyed::Unrecorded { .. })), "{destroyed:?}");
    store.free();
    let marker = Identity::new("shop", "web", 1).marker;
    let held = File::open(site.path("scripts").join(format!("{marker}.log"))).unwrap();
    held.lock().unwrap();
    let provisioner = site.provisioner_on(FILE, store.clone()).await;
    let destroyed = destroy(&provisioner).await;
    let is_told = matches!(&destroyed, Ok(Destroyed::Unknown(it)) if it.why.contains("running"));
    assert!(is_told, "{destroyed:?}");
    held.unlock().unwrap();
    assert_eq!(destroy(&provisioner).await, Ok(Destroyed::Gone(departure())));
}

/// The same path leads elsewhere meanwhile, as on another machine.
#[tokio::test]
async fn that_nothing_is_in_another_folder_does_not_say_that_a_file_is_gone() {
    let (site, store) = (Site::open(), Arc::new(Narrow::default()));
    let plan = FILE.replace("web-0", "etc/web-0");
    std::fs::create_dir(site.path("etc")).unwrap();
    let provisioner = site.provisioner_on(&plan, store.clone()).await;
    apply(&provisioner).await;
    store.take(Full::End);
    let wait = Duration::from_secs(60);
    let destroyed = provisioner.destroy("web", "etc/web-0", "ann", "closed", wait).await;
    assert!(matches!(destroyed, Ok(Destroyed::Unrecorded { .. })), "{destroyed:?}");
    store.free();
    std::fs::rename(site.path("etc"), site.path("there")).unwrap();
    std::fs::create_dir(site.path("etc")).unwrap();
    let provisioner = site.provisioner_on(&plan, store.clone()).await;
    let destroyed = provisioner.destroy("web", "etc/web-0", "ann", "closed", wait).await;
    let is_told = matches!(&destroyed, Ok(Destroyed::Unknown(it)) if it.why.contains("not show"));
    assert!(is_told, "{destroyed:?}");
    std::fs::remove_dir(site.path("etc")).unwrap();
    std::fs::rename(site.path("there"), site.path("etc")).unwrap();
    let destroyed = provisioner.destroy("web", "etc/web-0", "ann", "closed", wait).await;
    assert!(matches!(destroyed, Ok(Destroyed::Gone(_))), "{destroyed:?}");
}

impl Store for Narrow {
    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        if self.has_room(&next) {
            return self.store.swap(id, expected, next);
        }
        let full = StoreError::new(StoreErrorKind::Full, "others have taken it");
        Box::pin(std::future::ready(Err(full)))
    }

    onlyonce_conformance::hands_on!(
        store: get, floor, raise_floor, revision_max, due, list, reply_max, is_exclusive
    );
}
