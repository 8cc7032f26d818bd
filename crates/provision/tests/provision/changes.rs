//! What is recorded and what is there go apart: nothing is made or deleted by itself.

use onlyonce_provision::{Became, Changed, How, Known, Receipt, Would};

use crate::site::{Site, one, ready, until};

#[track_caller]
fn receipt(became: Became) -> Receipt {
    let Became::Ready(receipt) = became else { panic!("{became:?}") };
    receipt
}

/// Case B131. A record says what was: what was deleted since is not made again by itself.
#[tokio::test]
async fn what_was_deleted_meanwhile_is_told_and_not_made_again() {
    let site = Site::open();
    assert_eq!(ready(&site.apply_one(&one("")).await), "web-0");
    site.write("made", "");
    for _ in 0..2 {
        let Became::Missing { receipt, why } = site.apply_one(&one("")).await else { panic!() };
        assert_eq!((receipt.id.as_str(), why.as_str()), ("web-0", "nothing is there"));
    }
    assert_eq!((site.made(), site.tried()), (0, 1));

    let provisioner = site.provisioner(&one("")).await;
    let forgotten = provisioner.forget("web", "ann", "it was deleted").await.unwrap();
    assert_eq!(forgotten, Changed::Done);
    assert_eq!(ready(&site.apply_one(&one("")).await), "web-0");
    assert_eq!((site.made(), site.tried()), (1, 2));
    // The old token could be answered with what is gone.
    let tried = site.read("tried");
    let tokens: Vec<&str> = tried.lines().collect();
    assert_ne!(tokens[0], tokens[1]);
    let again = provisioner.status().await.unwrap();
    assert_eq!((again[0].generation, again[0].known.word()), (2, "created"));
}

/// Case B131. A list may lag behind: what does not show yet is not gone.
#[tokio::test]
async fn what_was_made_just_now_and_does_not_show_yet_is_not_called_missing() {
    for lag in ["exit 10", "echo somebody; exit 11"] {
        let slow = one("receiver = { settle = \"1h\", late = \"0s\" }");
        let site = Site::open();
        assert_eq!(ready(&site.apply_one(&slow).await), "web-0");
        site.write("check", lag);
        let Became::CannotTell(why) = site.apply_one(&slow).await else { panic!("{lag}") };
        assert!(why.ends_with(", just made, may not show yet"), "{why}");
        let foretold = site.provisioner(&slow).await.forecast().await.unwrap().remove(0).would;
        assert!(matches!(foretold, Would::Stands(Became::CannotTell(_))), "{foretold:?}");
        site.remove("check");
        assert_eq!(ready(&site.apply_one(&slow).await), "web-0");
        assert_eq!((site.made(), site.tried()), (1, 1));
    }
    // Once it would show, it is gone.
    let quick = one("receiver = { settle = \"1ms\", late = \"0s\" }");
    let site = Site::open();
    assert_eq!(ready(&site.apply_one(&quick).await), "web-0");
    site.write("made", "");
    until("it is missing", async || site.apply_one(&quick).await.word() == "missing").await;
    assert_eq!((site.made(), site.tried()), (0, 1));
}

#[tokio::test]
async fn a_store_that_was_lost_makes_nothing_twice_where_the_marker_is_found() {
    let mut site = Site::open();
    site.apply_one(&one("")).await;
    site.lose_the_store();
    let provisioner = site.provisioner(&one("")).await;
    assert_eq!(provisioner.forecast().await.unwrap()[0].would, Would::Adopt("web-0".into()));
    let adopted = receipt(site.apply_one(&one("")).await);
    assert_eq!((adopted.id.as_str(), adopted.how), ("web-0", How::Found));
    assert_eq!((site.made(), site.tried()), (1, 1));
}

#[tokio::test]
async fn changed_inputs_are_named_and_nothing_is_done() {
    let site = Site::open();
    site.apply_one(&one("inputs = { size = \"small\", zone = \"a\" }")).await;
    let other = one("inputs = { size = \"large\", zone = \"a\" }");
    let provisioner = site.provisioner(&other).await;
    let Would::Stands(foretold) = provisioner.forecast().await.unwrap().remove(0).would else {
        panic!("it has changed")
    };
    let became = site.apply_one(&other).await;
    assert_eq!(became, foretold);
    let Became::Changed { inputs, receipt: Some(there) } = became else { panic!("{became:?}") };
    assert_eq!((inputs, there.id.as_str()), (vec!["size".to_owned()], "web-0"));
    assert_eq!((site.made(), site.tried()), (1, 1));
    // Once somebody has changed the thing, or does not care, it is found again as it is.
    provisioner.forget("web", "ann", "resized by hand").await.unwrap();
    assert_eq!(receipt(site.apply_one(&other).await).how, How::Found);
    assert_eq!((site.made(), site.tried()), (1, 1));
}

/// What was refused may be mended: nothing was made with the old inputs.
#[tokio::test]
async fn inputs_that_were_refused_can_be_changed_and_those_in_doubt_cannot() {
    let site = Site::open();
    site.write("before", "echo no such size >&2; exit 20");
    let small = one("inputs = { size = \"smal\" }");
    assert_eq!(site.apply_one(&small).await, Became::Refused("no such size".into()));
    site.remove("before");
    let mended = one("inputs = { size = \"small\" }");
    assert_eq!(ready(&site.apply_one(&mended).await), "web-0");
    assert!(site.read("made").contains(" small"), "{}", site.read("made"));

    let site = Site::open();
    site.write("before", "exit 1");
    site.apply_one(&small).await;
    let became = site.apply_one(&mended).await;
    assert!(matches!(&became, Became::Changed { receipt: None, .. }), "{became:?}");
    assert_eq!(site.tried(), 1);
}

#[tokio::test]
async fn what_somebody_has_confirmed_is_taken_as_it_is_and_nothing_is_made() {
    let site = Site::open();
    site.write("check", "echo one without a marker; exit 11");
    let provisioner = site.provisioner(&one("")).await;
    assert_eq!(site.apply_one(&one("")).await.word(), "conflict");
    assert_eq!(provisioner.import("web", "i-7").await.unwrap(), Changed::Done);
    assert_eq!(provisioner.import("web", "i-7").await.unwrap(), Changed::Done, "said twice");
    let there = receipt(site.apply_one(&one("")).await);
    assert_eq!((there.id.as_str(), there.how), ("i-7", How::Told));
    let other = provisioner.import("web", "i-8").await.unwrap();
    assert!(matches!(other, Changed::Refused(text) if text.contains("as i-7 already")));
    assert_eq!((site.made(), site.tried()), (0, 0));
}

#[tokio::test]
async fn only_what_is_settled_can_be_forgotten_or_imported() {
    let site = Site::open();
    let provisioner = site.provisioner(&one("")).await;
    let nothing = provisioner.forget("web", "ann", "").await.unwrap();
    assert!(matches!(nothing, Changed::Refused(text) if text.contains("nothing was made")));
    site.write("before", "exit 1");
    site.apply_one(&one("")).await;
    let doubted = provisioner.forget("web", "ann", "").await.unwrap();
    assert!(matches!(doubted, Changed::Refused(text) if text.contains("resolve it first")));
    let doubted = provisioner.import("web", "i-7").await.unwrap();
    assert!(matches!(doubted, Changed::Refused(text) if text.contains("in doubt")));
    let status = provisioner.status().await.unwrap();
    assert!(matches!(status[0].known, Known::Unknown(_)), "{status:?}");
    assert!(provisioner.forget("db", "ann", "").await.is_err());
}
