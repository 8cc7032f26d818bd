//! Kinds of messages with rules of their own, and destinations with limits of their own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce_core::Verdict;
use onlyonce_mail::{Asking, Became, Class, Destination, Rules, Shelf, Whom};

use crate::server::{At, Does};
use crate::{ANN, Shop, unlike};

const BOB: &str = "bob@mail.example";

fn tries(most: u32) -> Rules {
    Rules { tries: Some(most), ..Rules::default() }
}

fn class(keys: &str, rules: Rules) -> Class {
    Class { keys: keys.to_owned(), rules, apart: Duration::ZERO }
}

#[tokio::test]
async fn a_message_is_given_up_after_as_many_tries_as_were_allowed() {
    for at in [At::Rcpt, At::End] {
        let shop = Shop { rules: tries(3), ..Shop::open(false).await };
        shop.add("welcome", &[ANN]);
        shop.server.manner(unlike(at, Does::Says("450 4.2.1 full")));
        for _ in 0..2 {
            let became = shop.run().await;
            assert!(matches!(&became[ANN], Became::Waiting(_)), "{at:?}: {became:?}");
        }
        let became = shop.run().await;
        let Became::Refused(why) = &became[ANN] else { panic!("{at:?}: {became:?}") };
        assert!(why.contains("given up after attempt 3") && why.contains("4.2.1 full"), "{why}");
        // It is the last word, whatever the server would say now.
        shop.server.manner(|_, _| Does::Usual);
        assert!(shop.run().await.is_empty());
        assert_eq!(shop.count(Shelf::Refused), 1);
        assert_eq!(shop.server.all_ended(), if at == At::End { 3 } else { 0 });
    }
}

/// That it is not tried again does not say that the server has not got it.
#[tokio::test]
async fn what_nobody_knows_is_not_given_up_as_refused() {
    let never = Some(Duration::ZERO);
    let shop = Shop { rules: tries(1), ..Shop::open(false).await };
    shop.add("welcome", &[ANN]);
    shop.server.manner(unlike(At::End, Does::Closes));
    assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)));
    shop.server.manner(|_, _| Does::Usual);
    let shop = Shop { rules: Rules { try_for: never, ..tries(1) }, ..shop };
    assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)));
    assert_eq!((shop.server.all_ended(), shop.count(Shelf::Refused)), (1, 0));
}

/// Somebody had it run again and did not know: what the next attempt hears is no word on the first.
#[tokio::test]
async fn what_was_run_again_in_doubt_is_not_refused() {
    for at in [At::Rcpt, At::End] {
        for says in ["451 4.3.0 later", "550 5.1.1 nobody"] {
            let shop = Shop { rules: tries(2), ..Shop::open(false).await };
            shop.add("welcome", &[ANN]);
            shop.server.manner(unlike(At::End, Does::Closes));
            assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)));
            shop.says(Verdict::RunAgain).await;
            shop.server.manner(unlike(at, Does::Says(says)));
            for _ in 0..2 {
                let became = shop.run().await;
                assert!(matches!(&became[ANN], Became::Waiting(_)), "{at:?} {says}: {became:?}");
            }
            shop.server.manner(|_, _| Does::Usual);
            assert!(matches!(&shop.run().await[ANN], Became::Sent(_)), "{at:?} {says}");
            assert_eq!(shop.count(Shelf::Refused), 0);
        }
    }
}

/// Whoever says that it may be sent has looked at the clock.
#[tokio::test]
async fn a_persons_word_counts_before_the_time_for_which_a_message_is_tried() {
    let over = Rules { try_for: Some(Duration::ZERO), ..Rules::default() };
    for verdict in [Verdict::RunAgain, Verdict::NotExecuted] {
        let mut shop = Shop::open(false).await;
        shop.add("welcome", &[ANN]);
        shop.server.manner(unlike(At::End, Does::Closes));
        assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)));
        shop.rules = over.clone();
        shop.says(verdict.clone()).await;
        shop.server.manner(|_, _| Does::Usual);
        assert!(matches!(&shop.run().await[ANN], Became::Sent(_)), "{verdict:?}");
    }
    // It was known not to be sent, was tried once more, and is not tried for ever.
    let mut shop = Shop::open(false).await;
    shop.add("welcome", &[ANN]);
    shop.server.manner(unlike(At::End, Does::Closes));
    shop.run().await;
    shop.rules = over.clone();
    shop.says(Verdict::NotExecuted).await;
    shop.server.manner(unlike(At::Rcpt, Does::Says("451 4.3.0 later")));
    let became = shop.run().await;
    let Became::Refused(why) = &became[ANN] else { panic!("{became:?}") };
    assert!(why.contains("given up after attempt 2") && why.contains("4.3.0 later"), "{why}");
    // A probe's word is no person's.
    let (settle, late) = (Duration::ZERO, Duration::ZERO);
    let whom = Whom::Command { command: "exit 10".into(), absent: vec![10] };
    let mut shop = Shop::open(false).await;
    shop.add("welcome", &[ANN]);
    shop.server.manner(unlike(At::End, Does::Closes));
    shop.run().await;
    shop.rules = Rules { asking: Some(Asking { whom, settle, late }), ..over };
    shop.server.manner(|_, _| Does::Usual);
    let mut became = shop.run().await;
    while matches!(&became[ANN], Became::Unknown(_)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        became = shop.run().await;
    }
    assert!(matches!(&became[ANN], Became::Refused(_)), "{became:?}");
    assert_eq!(shop.server.all_ended(), 1);
}

#[tokio::test]
async fn nothing_is_begun_once_the_time_for_it_is_over() {
    let late = Rules { try_for: Some(Duration::ZERO), ..Rules::default() };
    let hour = Some(Duration::from_secs(60 * 60));
    let soon = Rules { try_for: hour, ..Rules::default() };
    let shop =
        Shop { rules: soon, classes: vec![class("login/", late)], ..Shop::open(false).await };
    shop.add("login/7", &[ANN]);
    shop.add("news/7", &[BOB]);
    let became = shop.run().await;
    let Became::Refused(why) = &became[ANN] else { panic!("{became:?}") };
    assert!(why.contains("the time for which it is tried is over"), "{why}");
    assert!(matches!(&became[BOB], Became::Sent(_)), "{became:?}");
    assert_eq!((shop.server.ended(ANN).len(), shop.server.ended(BOB).len()), (0, 1));
}

/// Of the classes that fit, the one with the longest beginning counts, in whatever order they are
/// said; and what is held in one is looked for in another.
#[tokio::test]
async fn each_class_has_its_own_word_on_doubts() {
    let (settle, late) = (Duration::ZERO, Duration::ZERO);
    let whom = Whom::Command { command: "echo found".into(), absent: vec![10] };
    let asks = Rules { asking: Some(Asking { whom, settle, late }), ..Rules::default() };
    let mut classes = vec![class("news/", Rules::default()), class("news/paid/", asks)];
    for _ in 0..2 {
        let mut shop = Shop::open(false).await;
        shop.add("news/7", &[ANN]);
        shop.add("news/paid/7", &[BOB]);
        shop.server.manner(unlike(At::End, Does::Closes));
        shop.run().await;
        shop.server.manner(|_, _| Does::Usual);
        shop.classes = classes.clone();
        let became = shop.run().await;
        assert!(matches!(&became[ANN], Became::Unknown(_)), "{became:?}");
        assert!(matches!(&became[BOB], Became::Sent(_)), "{became:?}");
        assert_eq!(shop.server.all_ended(), 2);
        classes.reverse();
    }
}

/// Two domains that are one destination have one message on their way together; others have their
/// own limits.
#[tokio::test]
async fn the_domains_of_a_destination_have_no_more_on_their_way_together_than_was_allowed() {
    let domains = ["a.example", "B.example"].map(str::to_owned).into();
    let one = Destination { domains, workers: 1, apart: Duration::ZERO };
    let apart = Duration::from_millis(2);
    let destinations = vec![one];
    let shop = Shop { workers: 4, apart, destinations, ..Shop::open(false).await };
    let domain = |it| if it % 2 == 0 { "A" } else { "b" };
    let all: Vec<String> = (1..=12).map(|it| format!("r{it}@{}.example", domain(it))).collect();
    shop.add("news", &all.iter().map(String::as_str).collect::<Vec<_>>());
    let most = Arc::new(Mutex::new([0_usize; 2]));
    let seen = Arc::clone(&most);
    // Now, and the most.
    shop.server.manner(move |at, _| {
        let mut seen = seen.lock().unwrap();
        match at {
            At::Rcpt => seen[0] += 1,
            At::End => seen[0] -= 1,
            At::Greeting | At::Ehlo | At::Mail | At::Data | At::Chunk => {}
        }
        seen[1] = seen[1].max(seen[0]);
        Does::Usual
    });
    let became = shop.run().await;
    assert_eq!((became.len(), shop.server.all_ended()), (12, 12));
    assert_eq!(*most.lock().unwrap(), [0, 1]);
}
