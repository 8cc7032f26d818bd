//! Attempts of which nobody knows what became: nothing is made twice, and what can be found out is.

use std::time::Duration;

use onlyonce_core::Remedy;
use onlyonce_provision::{Became, Changed, Finding, How, InDoubt};

use crate::site::{Site, one, ready};

#[track_caller]
fn doubt(became: &Became) -> &InDoubt {
    let Became::Unknown(doubt) = became else { panic!("{became:?}") };
    doubt
}

/// The answer is lost after it was made: the next apply finds it by its marker.
#[tokio::test]
async fn what_was_made_and_not_answered_is_found_by_its_marker() {
    let site = Site::open();
    site.write("after", "kill -9 $$");
    let first = site.apply_one(&one("")).await;
    assert_eq!(doubt(&first).remedy, Remedy::Probe);
    let Became::Ready(receipt) = site.apply_one(&one("")).await else { panic!("it is there") };
    assert_eq!((receipt.id.as_str(), receipt.how), ("web-0", How::Found));
    assert_eq!((site.made(), site.tried()), (1, 1));
}

#[tokio::test]
async fn that_nothing_is_there_is_final_only_where_the_plan_says_when() {
    let site = Site::open();
    site.write("before", "exit 1");
    assert_eq!(doubt(&site.apply_one(&one("")).await).final_from, None);
    site.remove("before");
    for _ in 0..3 {
        let became = site.apply_one(&one("")).await;
        assert!(doubt(&became).why.contains("nothing is there"), "{became:?}");
    }
    assert_eq!((site.made(), site.tried()), (0, 1), "held, however often it is applied");

    let (bounded, site) = ("receiver = { settle = \"20ms\", late = \"0s\" }", Site::open());
    site.write("before", "exit 1");
    let first = site.apply_one(&one(bounded)).await;
    assert!(doubt(&first).final_from.is_some());
    site.remove("before");
    let mut applies = 0;
    while !matches!(site.apply_one(&one(bounded)).await, Became::Ready(_)) {
        assert_eq!(site.tried(), 1, "not before the bounds have passed");
        tokio::time::sleep(Duration::from_millis(50)).await;
        applies += 1;
    }
    assert!(0 < applies, "a second of skew had to pass at least");
    assert_eq!((site.made(), site.tried()), (1, 2));
}

/// Case B130. However often it is tried, the token is the same, and it is there before the first.
#[tokio::test]
async fn every_attempt_has_the_same_token() {
    let (site, keyed) = (Site::open(), "receiver = { keyed = \"24h\", late = \"1m\" }");
    site.write("before", "exit 1");
    for _ in 0..3 {
        assert_eq!(doubt(&site.apply_one(&one(keyed)).await).remedy, Remedy::RunAgain);
    }
    site.remove("before");
    site.apply_one(&one(keyed)).await;
    let tried = site.read("tried");
    assert_eq!(site.tried(), 4);
    assert!(tried.lines().all(|line| Some(line) == tried.lines().next()), "{tried}");
    assert_eq!(site.made(), 1);
}

#[tokio::test]
async fn a_name_that_is_given_once_is_tried_again_and_what_is_there_is_adopted() {
    let (site, unique) = (Site::open(), "receiver = { always = \"unique-name\" }");
    site.write("after", "kill -9 $$");
    assert_eq!(doubt(&site.apply_one(&one(unique)).await).remedy, Remedy::RunAgain);
    assert_eq!(ready(&site.apply_one(&one(unique)).await), "web-0");
    assert_eq!((site.made(), site.tried()), (1, 1));
}

/// What a person is needed for is shown, and not settled by guessing.
#[tokio::test]
async fn in_doubt_and_somebody_elses_or_twice_there_is_held() {
    for (seen, shown) in [
        ("echo one of bob; exit 11", "not ours: one of bob"),
        ("echo i-1; echo i-2; exit 12", "more than one of ours: i-1, i-2"),
        ("exit 1", "nobody can tell"),
    ] {
        for receiver in ["settle = \"1ms\", late = \"0s\"", "always = \"unique-name\""] {
            let (site, plan) = (Site::open(), one(&format!("receiver = {{ {receiver} }}")));
            site.write("before", "exit 1");
            site.apply_one(&plan).await;
            site.write("check", seen);
            site.remove("before");
            for _ in 0..2 {
                let became = site.apply_one(&plan).await;
                assert!(doubt(&became).why.contains(shown), "{receiver}: {became:?}");
            }
            assert_eq!((site.made(), site.tried()), (0, 1), "{seen} {receiver}");
        }
    }
}

#[tokio::test]
async fn a_person_settles_what_is_in_doubt_and_only_the_attempt_that_was_looked_at() {
    let unchecked = "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"command\"\n\
                     create = \". ./create.sh\"\n";
    let site = Site::open();
    site.write("before", "exit 1");
    let fence = doubt(&site.apply_one(unchecked).await).fence;
    let provisioner = site.provisioner(unchecked).await;
    let not_made = provisioner.resolve("web", fence, Finding::NotMade, "ann", "looked").await;
    assert_eq!(not_made.unwrap(), Changed::Done);
    let second = doubt(&site.apply_one(unchecked).await).fence;
    assert_ne!(second, fence);
    let late = provisioner.resolve("web", fence, Finding::RunAgain, "ann", "looked").await;
    assert_eq!(late.unwrap(), Changed::Refused("it has moved on since".into()));
    let made = Finding::Made("i-7".into());
    let made = provisioner.resolve("web", second, made, "ann", "looked").await;
    assert_eq!(made.unwrap(), Changed::Done);
    assert_eq!(ready(&site.apply_one(unchecked).await), "i-7");
    assert_eq!((site.made(), site.tried()), (0, 2));
}
