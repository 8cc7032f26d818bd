//! What somebody destroys is gone, once, and stays gone until it is said to be made again. What was
//! destroyed is counted where it was.

use std::time::Duration;

use onlyonce_core::Remedy;
use onlyonce_provision::{
    Became, Changed, Departure, Destroyed, Finding, InDoubt, Known, ProvisionError, Work, Would,
};

use crate::site::{Site, apply, one, ready, thing};

const DESTROY: &str = "destroy = \". ./destroy.sh\"\n";

fn plan(more: &str) -> String {
    one(&format!("{DESTROY}{more}"))
}

async fn destroy(site: &Site, plan: &str, id: &str) -> Destroyed {
    let provisioner = site.provisioner(plan).await;
    provisioner.destroy("web", id, "ann", "closed", Duration::from_secs(60)).await.unwrap()
}

#[track_caller]
fn refused(destroyed: Destroyed) -> String {
    let Destroyed::Refused(text) = destroyed else { panic!("{destroyed:?}") };
    text
}

#[track_caller]
fn doubt(destroyed: Destroyed) -> InDoubt {
    let Destroyed::Unknown(doubt) = destroyed else { panic!("{destroyed:?}") };
    assert_eq!(doubt.work, Work::Destroying);
    doubt
}

fn departure() -> Departure {
    Departure { id: "web-0".into(), by: "ann".into(), why: "closed".into() }
}

#[tokio::test]
async fn what_is_destroyed_is_gone_once_and_is_made_again_only_when_it_is_forgotten() {
    let (site, plan) = (Site::open(), plan("inputs = { size = \"small\" }"));
    assert_eq!(ready(&site.apply_one(&plan).await), "web-0");
    for _ in 0..2 {
        assert_eq!(destroy(&site, &plan, "web-0").await, Destroyed::Gone(departure()));
        assert_eq!((site.made(), site.ended()), (0, 1));
    }
    let provisioner = site.provisioner(&plan).await;
    for _ in 0..2 {
        assert_eq!(site.apply_one(&plan).await, Became::Destroyed(departure()));
    }
    let foretold = provisioner.forecast().await.unwrap().remove(0).would;
    assert_eq!(foretold, Would::Stands(Became::Destroyed(departure())));
    let known = provisioner.status().await.unwrap().remove(0).known;
    assert!(matches!(&known, Known::Destroyed { departure: it, .. } if *it == departure()));
    let again = provisioner.import("web", "web-0").await.unwrap();
    assert!(matches!(again, Changed::Refused(text) if text.contains("recorded as destroyed")));
    assert_eq!((site.made(), site.tried()), (0, 1));

    assert_eq!(provisioner.forget("web", "ann", "open again").await.unwrap(), Changed::Done);
    assert_eq!(ready(&site.apply_one(&plan).await), "web-0");
    assert_eq!((site.made(), site.tried()), (1, 2));
    // It is told what it was made with, and no token that a receiver may know as that of a making.
    let (ended, tried) = (site.read("ended"), site.read("tried"));
    assert!(ended.trim_end().ends_with(" small"), "{ended}");
    let token = ended.split(' ').nth(1).unwrap();
    assert!(!tried.contains(token), "{tried}");
    // The second one is another operation.
    assert!(matches!(destroy(&site, &plan, "web-0").await, Destroyed::Gone(_)));
    assert_eq!((site.made(), site.ended()), (0, 2));
}

/// What is named is destroyed, as it was named, and nothing else.
#[tokio::test]
async fn only_what_is_there_and_confirmed_and_ours_is_destroyed() {
    let site = Site::open();
    let text = refused(destroy(&site, &plan(""), "web-0").await);
    assert!(text.contains("nothing was made"), "{text}");
    let small = "inputs = { size = \"small\" }";
    site.apply_one(&plan(small)).await;
    let without = one(small);
    let large = plan("inputs = { size = \"large\" }");
    for (plan, id, says) in [
        (&plan(small), "web-1", "recorded as web-0, and not as web-1"),
        (&without, "web-0", "the plan has no `destroy`"),
        (&large, "web-0", "other inputs than it was made with (size)"),
    ] {
        let text = refused(destroy(&site, plan, id).await);
        assert!(text.contains(says), "{text}");
    }
    for (check, says) in [
        ("exit 10", "forget it if it is gone"),
        ("echo one of bob; exit 11", "not ours: one of bob"),
        ("echo web-0; echo web-1; exit 12", "more than one of ours"),
        ("echo web-7; exit 0", "web-7 is there"),
        ("exit 1", "nobody can tell what is there"),
    ] {
        site.write("check", check);
        let text = refused(destroy(&site, &plan(small), "web-0").await);
        assert!(text.contains(says), "{check}: {text}");
    }
    site.remove("check");
    assert_eq!((site.made(), site.ended()), (1, 0));
    let provisioner = site.provisioner(&plan(small)).await;
    let nobody = provisioner.destroy("db", "web-0", "ann", "", Duration::ZERO).await;
    assert!(matches!(nobody, Err(ProvisionError::NoSuchKey(_))), "{nobody:?}");
}

#[tokio::test]
async fn what_others_wait_for_is_destroyed_after_them() {
    let site = Site::open();
    let second = thing("app", &format!("{DESTROY}inputs = {{ network = \"${{web.id}}\" }}"));
    let plan = format!("{}{second}", plan(""));
    site.apply(&plan).await;
    let text = refused(destroy(&site, &plan, "web-0").await);
    assert!(text.contains("app waits for it"), "{text}");
    let provisioner = site.provisioner(&plan).await;
    let app = provisioner.destroy("app", "app-1", "ann", "", Duration::ZERO).await.unwrap();
    assert!(matches!(app, Destroyed::Gone(_)), "{app:?}");
    assert!(matches!(destroy(&site, &plan, "web-0").await, Destroyed::Gone(_)));
    assert_eq!((site.made(), site.ended()), (0, 2));
    let became = site.apply(&plan).await;
    assert_eq!(became[1].word(), "planned", "what it waits for is destroyed: {became:?}");
    assert_eq!(site.tried(), 2);
}

/// The answer is lost when it was gone already: nobody knows, until somebody looks.
#[tokio::test]
async fn what_was_destroyed_and_not_answered_is_found_to_be_gone() {
    let (site, plan) = (Site::open(), plan(""));
    site.apply_one(&plan).await;
    site.write("after-end", "kill -9 $$");
    let doubt = doubt(destroy(&site, &plan, "web-0").await);
    assert!(doubt.why.contains("ended by a signal"), "{doubt:?}");
    // An apply is no order to destroy: it says what nobody knows, and does nothing.
    let became = site.apply_one(&plan).await;
    assert!(matches!(&became, Became::Unknown(doubt) if doubt.work == Work::Destroying));
    let provisioner = site.provisioner(&plan).await;
    let forgotten = provisioner.forget("web", "ann", "").await.unwrap();
    assert!(matches!(forgotten, Changed::Refused(text) if text.contains("whether it was destro")));
    assert_eq!(destroy(&site, &plan, "web-0").await, Destroyed::Gone(departure()));
    assert_eq!((site.made(), site.tried(), site.ended()), (0, 1, 1));
}

#[tokio::test]
async fn in_doubt_it_is_destroyed_again_only_when_nothing_can_come_late_or_a_person_says_so() {
    let site = Site::open();
    site.apply_one(&plan("")).await;
    for end in ["exit 1", "kill -9 $$"] {
        site.write("before-end", end);
        let fence = doubt(destroy(&site, &plan(""), "web-0").await).fence;
        site.remove("before-end");
        let before = site.ended();
        for _ in 0..2 {
            assert_eq!(doubt(destroy(&site, &plan(""), "web-0").await).final_from, None);
        }
        assert_eq!((site.made(), site.ended()), (1, before), "held, however often it is asked");
        let provisioner = site.provisioner(&plan("")).await;
        let settled = provisioner.resolve("web", fence, Finding::NotDestroyed, "ann", "looked");
        assert_eq!(settled.await.unwrap(), Changed::Done);
        assert_eq!(ready(&site.apply_one(&plan("")).await), "web-0");
    }
    let bounded = plan("receiver = { settle = \"20ms\", late = \"0s\" }");
    site.write("before-end", "exit 1");
    assert!(doubt(destroy(&site, &bounded, "web-0").await).final_from.is_some());
    site.remove("before-end");
    let before = site.ended();
    loop {
        match destroy(&site, &bounded, "web-0").await {
            Destroyed::Gone(_) => break,
            Destroyed::Unknown(_) => assert_eq!(site.ended(), before, "not before the bounds"),
            other @ (Destroyed::Refused(_) | Destroyed::Unrecorded { .. } | Destroyed::Busy) => {
                panic!("{other:?}")
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((site.made(), site.ended()), (0, before + 1));
}

/// A `check` that came into the plan later, or is another one now, may look where it never was.
#[tokio::test]
async fn that_nothing_shows_says_nothing_unless_this_very_check_has_shown_it() {
    let check = "check = \". ./check.sh\"\n";
    let bounds = "receiver = { settle = \"1ms\", late = \"0s\" }";
    let blind = plan(bounds).replace(check, "check = \"exit 10\"\n");
    for before in [plan("").replace(check, ""), plan("")] {
        let site = Site::open();
        site.apply_one(&before).await;
        site.write("before-end", "kill -9 $$");
        doubt(destroy(&site, &before, "web-0").await);
        for _ in 0..2 {
            let doubt = doubt(destroy(&site, &blind, "web-0").await);
            assert!(doubt.why.contains("did not show it"), "{doubt:?}");
        }
        let provisioner = site.provisioner(&blind).await;
        let forgotten = provisioner.forget("web", "ann", "").await.unwrap();
        assert!(matches!(forgotten, Changed::Refused(_)), "{forgotten:?}");
        assert_eq!((site.made(), site.tried(), site.ended()), (1, 1, 1));
    }
}

/// It was taken for dead, and a person has said that nothing was destroyed; then it goes on.
#[tokio::test]
async fn what_was_sent_and_settled_by_somebody_meanwhile_is_not_called_undone() {
    let unseen = plan("").replace("check = \". ./check.sh\"\n", "");
    let seen = plan("");
    for (is_forgotten, plan, then) in [
        (false, &seen, Remedy::Probe),
        (true, &seen, Remedy::Probe),
        // Whoever asks again is told the truth: nothing will be looked for.
        (false, &unseen, Remedy::Hold),
    ] {
        let site = Site::open();
        site.apply_one(plan).await;
        site.write("hold", "");
        site.write("before-end", "while [ -e hold ]; do sleep 0.01; done");
        // Its answer is lost, or comes when nobody may destroy it any more.
        site.write("after-end", if is_forgotten { "" } else { "kill -9 $$" });
        let meanwhile = async {
            while site.ended() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // It has this store alone, so it takes all before it for dead.
            let provisioner = site.provisioner(plan).await;
            let known = provisioner.status().await.unwrap().remove(0).known;
            let Known::Unknown(doubt) = known else { panic!("{known:?}") };
            let (fence, finding) = (doubt.fence, Finding::NotDestroyed);
            let settled = provisioner.resolve("web", fence, finding, "ann", "it is there").await;
            assert_eq!(settled.unwrap(), Changed::Done);
            if is_forgotten {
                assert_eq!(provisioner.forget("web", "ann", "").await.unwrap(), Changed::Done);
            }
            site.remove("hold");
        };
        let (destroyed, ()) = tokio::join!(destroy(&site, plan, "web-0"), meanwhile);
        let Destroyed::Unrecorded { departure: gone, remedy, .. } = destroyed else {
            panic!("{destroyed:?}")
        };
        assert_eq!(remedy, then);
        assert_eq!(gone, is_forgotten.then(departure), "if it is known it is said");
        assert_eq!((site.made(), site.ended()), (0, 1));
    }
}

/// A name that is given once, or a token that is remembered, is about the making: neither says
/// that it can be destroyed again without a look.
#[tokio::test]
async fn what_makes_a_second_making_harmless_says_nothing_about_destroying() {
    for receiver in ["always = \"unique-name\"", "keyed = \"24h\", late = \"1m\""] {
        let (site, plan) = (Site::open(), plan(&format!("receiver = {{ {receiver} }}")));
        site.apply_one(&plan).await;
        site.write("before-end", "exit 1");
        doubt(destroy(&site, &plan, "web-0").await);
        site.remove("before-end");
        let fence = doubt(destroy(&site, &plan, "web-0").await).fence;
        assert_eq!((site.made(), site.ended()), (1, 1), "{receiver}");
        let provisioner = site.provisioner(&plan).await;
        let again = provisioner.resolve("web", fence, Finding::RunAgain, "ann", "it may").await;
        assert_eq!(again.unwrap(), Changed::Done);
        assert!(matches!(destroy(&site, &plan, "web-0").await, Destroyed::Gone(_)));
        assert_eq!((site.made(), site.ended()), (0, 2), "{receiver}");
    }
}

#[tokio::test]
async fn a_person_who_has_looked_says_that_it_is_gone() {
    let (site, plan) = (Site::open(), plan(""));
    site.apply_one(&plan).await;
    site.write("after-end", "exit 1");
    let fence = doubt(destroy(&site, &plan, "web-0").await).fence;
    let provisioner = site.provisioner(&plan).await;
    let settled = provisioner.resolve("web", fence, Finding::Destroyed, "ann", "closed").await;
    assert_eq!(settled.unwrap(), Changed::Done);
    assert_eq!(site.apply_one(&plan).await, Became::Destroyed(departure()));
    assert_eq!((site.made(), site.ended()), (0, 1));
}

#[tokio::test]
async fn a_refusal_is_no_doubt_and_what_was_not_there_is_gone() {
    let (site, plan) = (Site::open(), plan(""));
    site.apply_one(&plan).await;
    site.write("before-end", "echo it is protected >&2; exit 20");
    assert_eq!(refused(destroy(&site, &plan, "web-0").await), "it is protected");
    assert_eq!(ready(&site.apply_one(&plan).await), "web-0");
    // Somebody else was faster, between the look and the call.
    site.write("before-end", "echo > made; exit 10");
    assert_eq!(destroy(&site, &plan, "web-0").await, Destroyed::Gone(departure()));
}

#[tokio::test]
async fn two_at_once_destroy_it_once_and_what_is_being_destroyed_is_not_forgotten() {
    let (site, plan) = (Site::open(), plan(""));
    site.apply_one(&plan).await;
    site.write("hold", "");
    site.write("before-end", "while [ -e hold ]; do sleep 0.01; done");
    let provisioner = site.provisioner(&plan).await;
    let wait = Duration::from_secs(60);
    let both = async {
        let one = provisioner.destroy("web", "web-0", "ann", "closed", wait);
        let two = provisioner.destroy("web", "web-0", "bob", "closed", wait);
        tokio::join!(one, two)
    };
    let meanwhile = async {
        while site.ended() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let known = provisioner.status().await.unwrap().remove(0).known;
        assert!(matches!(known, Known::Destroying { may_be_gone: true, .. }), "{known:?}");
        let forgotten = provisioner.forget("web", "ann", "").await.unwrap();
        assert_eq!(forgotten, Changed::Refused("it is being destroyed".into()));
        // By the same process: one that has this store alone takes all before it for dead.
        assert_eq!(apply(&provisioner).await[0].became.word(), "destroying");
        site.remove("hold");
    };
    let ((one, two), ()) = tokio::join!(both, meanwhile);
    assert_eq!(one, two, "who was second is told what the first was");
    assert_eq!((site.made(), site.ended()), (0, 1));
}
