//! Somebody destroys what somebody else is about to build upon: one of the two is refused, whoever
//! comes first. What was made and destroyed is counted where it was.

use std::sync::Arc;
use std::time::Duration;

use onlyonce_core::{KeyId, Record, Reply, Revision, State};
use onlyonce_provision::{Became, Changed, Destroyed, Known, Provisioner};
use onlyonce_store::{BoxFuture, Filter, MemoryStore, Store, StoreError, Swap};
use tokio::sync::Semaphore;

use crate::site::{Site, apply, one, ready, thing, until};

const DESTROY: &str = "destroy = \". ./destroy.sh\"\n";

/// Two things, of which the second waits for the first.
fn both(first: &str) -> String {
    let second = thing("app", &format!("{DESTROY}inputs = {{ network = \"${{web.id}}\" }}"));
    format!("{}{second}", one(&format!("{DESTROY}{first}")))
}

async fn destroy(provisioner: &Provisioner) -> Destroyed {
    let wait = Duration::from_secs(60);
    provisioner.destroy("web", "web-0", "ann", "closed", wait).await.unwrap()
}

/// An apply has found it there, and waits until it is ready, while somebody destroys it.
#[tokio::test]
async fn nothing_is_made_upon_what_somebody_destroys() {
    let (site, not_yet) = (Site::open(), "ready = \"while [ -e not-yet ]; do sleep 0.01; done\"\n");
    let provisioner = site.provisioner(&both(not_yet)).await;
    site.write("not-yet", "");
    site.write("hold", "");
    site.write("before-end", "while [ -e hold ]; do sleep 0.01; done");
    let applying = async {
        let all = apply(&provisioner).await;
        site.remove("hold");
        all
    };
    let destroying = async {
        until("it is recorded", || async {
            let known = provisioner.status().await.unwrap().remove(0).known;
            matches!(known, Known::Created { .. })
        })
        .await;
        destroy(&provisioner).await
    };
    let meanwhile = async {
        until("it is gone", || async { site.ended() == 1 }).await;
        site.remove("not-yet");
    };
    let (all, destroyed, ()) = tokio::join!(applying, destroying, meanwhile);
    assert_eq!(all[1].became.word(), "planned", "{all:?}");
    assert!(matches!(destroyed, Destroyed::Gone(_)), "{destroyed:?}");
    assert_eq!((site.made(), site.tried(), site.ended()), (0, 1, 1));
}

/// It is made between the look of whoever destroys and his claim.
#[tokio::test]
async fn what_somebody_has_built_upon_meanwhile_is_not_destroyed() {
    let (site, plan) = (Site::open(), both(""));
    let gated = Arc::new(Gated::default());
    let alone = site.provisioner_on(&one(DESTROY), gated.clone()).await;
    assert_eq!(ready(&apply(&alone).await[0].became), "web-0");
    let provisioner = site.provisioner_on(&plan, gated.clone()).await;
    gated.shut.add_permits(1);
    let meanwhile = async {
        gated.met.acquire().await.unwrap().forget();
        assert_eq!(ready(&apply(&provisioner).await[1].became), "app-1");
        gated.open.add_permits(1);
    };
    let (destroyed, ()) = tokio::join!(destroy(&provisioner), meanwhile);
    let Destroyed::Refused(text) = destroyed else { panic!("{destroyed:?}") };
    assert!(text.contains("app waits for it"), "{text}");
    assert_eq!((site.made(), site.ended()), (2, 0));
}

/// It is made and forgotten before the claim of an apply that had found nothing.
#[tokio::test]
async fn what_somebody_has_forgotten_meanwhile_is_not_said_to_have_no_id() {
    let (site, gated) = (Site::open(), Arc::new(Gated::default()));
    let other = site.provisioner_on(&one(""), gated.clone()).await;
    let provisioner = site.provisioner_on(&one(""), gated.clone()).await;
    gated.shut.add_permits(1);
    let meanwhile = async {
        gated.met.acquire().await.unwrap().forget();
        assert_eq!(ready(&apply(&other).await[0].became), "web-0");
        assert_eq!(other.forget("web", "ann", "moved").await.unwrap(), Changed::Done);
        gated.open.add_permits(1);
    };
    let (all, ()) = tokio::join!(apply(&provisioner), meanwhile);
    assert!(matches!(&all[0].became, Became::Busy(why) if why.contains("forgotten")), "{all:?}");
    assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
    assert_eq!((site.made(), site.tried()), (1, 1));
}

/// Its record says no id, is forgotten and made anew, before the claim of who imports it.
#[tokio::test]
async fn an_attempt_that_began_meanwhile_is_not_settled_by_an_import() {
    let (site, gated) = (Site::open(), Arc::new(Gated::default()));
    let other = site.provisioner_on(&one(""), gated.clone()).await;
    let provisioner = site.provisioner_on(&one(""), gated.clone()).await;
    assert_eq!(ready(&apply(&other).await[0].became), "web-0");
    gated.loses_the_id().await;
    gated.shut.add_permits(1);
    let meanwhile = async {
        gated.met.acquire().await.unwrap().forget();
        assert_eq!(other.forget("web", "ann", "lost").await.unwrap(), Changed::Done);
        site.write("check", "exit 10");
        site.write("before", "exit 1");
        let all = apply(&other).await;
        assert!(matches!(all[0].became, Became::Unknown(_)), "{all:?}");
        gated.open.add_permits(1);
    };
    let (told, ()) = tokio::join!(provisioner.import("web", "web-0"), meanwhile);
    let Ok(Changed::Refused(why)) = told else { panic!("{told:?}") };
    assert!(why.contains("in doubt"), "{why}");
    let known = other.status().await.unwrap().remove(0).known;
    assert!(matches!(known, Known::Unknown(_)), "{known:?}");
}

/// An apply has found it recorded, and looks whether it is still there, or ready, meanwhile.
#[tokio::test]
async fn what_is_destroyed_while_an_apply_looks_at_it_is_not_called_missing() {
    let held = "[ -e hold ] || exit 0; touch looking; while [ -e hold ]; do sleep 0.01; done";
    for (check, ready_script) in [
        // Who destroys it looks for it too, and says which attempt that is.
        (format!("if [ -z \"$ONLYONCE_ATTEMPT\" ]; then ({held}); fi"), "exit 0".to_owned()),
        (String::new(), format!("{held}; exit 20")),
    ] {
        let site = Site::open();
        site.write("check", &check);
        site.write("ready", &ready_script);
        let plan = one(&format!("{DESTROY}ready = \". ./ready\"\n"));
        let provisioner = site.provisioner(&plan).await;
        assert_eq!(ready(&apply(&provisioner).await[0].became), "web-0");
        site.write("hold", "");
        let meanwhile = async {
            until("a look", || async { site.path("looking").exists() }).await;
            let destroyed = destroy(&provisioner).await;
            site.remove("hold");
            destroyed
        };
        let (all, destroyed) = tokio::join!(apply(&provisioner), meanwhile);
        let Destroyed::Gone(departure) = destroyed else { panic!("{destroyed:?}") };
        assert_eq!(all[0].became, Became::Destroyed(departure));
        assert_eq!((site.made(), site.tried(), site.ended()), (0, 1, 1));
    }
}

/// Nothing is recorded of it yet: there is no id to confirm.
#[tokio::test]
async fn what_an_apply_is_making_is_not_destroyed() {
    let (site, plan) = (Site::open(), one(DESTROY));
    let provisioner = site.provisioner(&plan).await;
    site.write("hold", "");
    site.write("after", "while [ -e hold ]; do sleep 0.01; done");
    let meanwhile = async {
        until("it is made", || async { site.made() == 1 }).await;
        let destroyed = destroy(&provisioner).await;
        site.remove("hold");
        destroyed
    };
    let (all, destroyed) = tokio::join!(apply(&provisioner), meanwhile);
    let Destroyed::Refused(text) = destroyed else { panic!("{destroyed:?}") };
    assert!(text.contains("an apply is at it"), "{text}");
    assert_eq!(ready(&all[0].became), "web-0");
    assert_eq!((site.made(), site.ended()), (1, 0));
    assert!(matches!(destroy(&provisioner).await, Destroyed::Gone(_)));
    assert_eq!((site.made(), site.ended()), (0, 1));
}

/// A store in memory that holds up the first new record after it was shut.
struct Gated {
    store: MemoryStore,
    /// A permit for one that is to be held up.
    shut: Semaphore,
    /// A permit when it is.
    met: Semaphore,
    /// A permit when it may go on.
    open: Semaphore,
}

impl Default for Gated {
    fn default() -> Self {
        let closed = || Semaphore::new(0);
        Self { store: MemoryStore::new(), shut: closed(), met: closed(), open: closed() }
    }
}

impl Gated {
    /// As if there had been no room for it.
    async fn loses_the_id(&self) {
        let page = self.store.list(Filter::default(), None).await.unwrap();
        for (id, mut record) in page.records {
            let before = record.revision;
            if let State::Completed { reply, answered_at, .. } = &mut record.state {
                *reply = Reply::not_kept(201);
                record.revision = Revision::after(Some(before), *answered_at);
                let swapped = self.store.swap(id, Some(before), Some(record)).await;
                assert_eq!(swapped, Ok(Swap::Done));
            }
        }
    }
}

impl Store for Gated {
    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            if expected.is_none()
                && let Ok(held_up) = self.shut.try_acquire()
            {
                held_up.forget();
                self.met.add_permits(1);
                self.open.acquire().await.unwrap().forget();
            }
            self.store.swap(id, expected, next).await
        })
    }

    onlyonce_conformance::hands_on!(
        store: get, floor, raise_floor, revision_max, due, list, reply_max, is_exclusive
    );
}
