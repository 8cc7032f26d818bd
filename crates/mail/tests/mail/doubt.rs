//! Outcomes that nobody knows, and a command that is asked about them.

use std::time::Duration;

use onlyonce_mail::{Asking, Became, Class, Keyed, Rules, Shelf, Whom};

use crate::server::{At, Does};
use crate::{ANN, Shop, TEXT, unlike};

const BOB: &str = "bob@mail.example";

/// Asks this; its "no" is 10, and counts once clocks that differ can hide nothing.
fn asking(command: &str) -> Rules {
    let (settle, late) = (Duration::ZERO, Duration::ZERO);
    let whom = Whom::Command { command: command.into(), absent: vec![10] };
    let asking = Asking { whom, settle, late };
    Rules { asking: Some(asking), ..Rules::default() }
}

/// A shop that does not know of its messages to these whether they were taken.
async fn in_doubt(to: &[&str]) -> Shop {
    let shop = Shop::open(false).await;
    shop.add("welcome", to);
    shop.server.manner(unlike(At::End, Does::Closes));
    let became = shop.run().await;
    assert!(became.values().all(|it| matches!(it, Became::Unknown(_))), "{became:?}");
    shop.server.manner(|_, _| Does::Usual);
    shop
}

/// Whoever has it drops a second copy by its Message-ID, so somebody has said; for so long alone.
#[tokio::test]
async fn what_nobody_knows_is_sent_again_with_the_same_bytes_while_copies_are_dropped() {
    let hour = Duration::from_secs(60 * 60);
    for (window, copies) in [(24 * hour, 2), (Duration::from_millis(1), 1)] {
        let shop = in_doubt(&[ANN]).await;
        let keyed = Some(Keyed { window, late: Duration::ZERO });
        let shop = Shop { rules: Rules { keyed, ..Rules::default() }, ..shop };
        let became = shop.run().await;
        let is_sent = matches!(became[ANN], Became::Sent(_));
        assert_eq!(is_sent, copies == 2, "{window:?}: {became:?}");
        let ended = shop.server.ended(ANN);
        assert_eq!(ended.len(), copies, "{window:?}");
        assert!(ended.iter().all(|it| *it == ended[0]), "one Message-ID");
    }
}

#[tokio::test]
async fn what_a_probe_has_found_is_kept_and_nothing_is_sent_again() {
    let shop = in_doubt(&[ANN]).await;
    let seen = shop.dir.path().join("seen");
    let names = "$ONLYONCE_KEY $ONLYONCE_RECIPIENT $ONLYONCE_FENCE $ONLYONCE_MESSAGE_ID";
    let file = seen.display();
    let command = format!("echo \"{names}\" >> {file}; printf ' 4F8A31C2E7 \\nmore\\n'");
    let name = shop.spool.names(Shelf::Queue).unwrap().remove(0);
    let (_, fence, _) = shop.state(&name).await;
    let shop = Shop { rules: asking(&command), ..shop };
    let became = shop.run().await;
    let Became::Sent(receipt) = &became[ANN] else { panic!("{became:?}") };
    assert_eq!(receipt, r#"{"evidence":"4F8A31C2E7","found_by":"probe"}"#);
    assert!(shop.run().await.is_empty());
    let [content] = &shop.server.ended(ANN)[..] else { panic!("not once") };
    let content = String::from_utf8(content.clone()).unwrap();
    let id = content.lines().find_map(|it| it.strip_prefix("Message-ID: ")).unwrap();
    let seen = std::fs::read_to_string(seen).unwrap();
    assert_eq!(seen, format!("welcome/{ANN} {ANN} {} {id}\n", fence.get()), "asked once");
}

/// Both are in doubt for equally long, so that what is believed about one could be about the other.
#[tokio::test]
async fn only_a_code_that_was_named_says_that_the_server_does_not_have_it() {
    let shop = in_doubt(&[ANN, BOB]).await;
    let command =
        |bob: &str| asking(&format!("case $ONLYONCE_RECIPIENT in ann*) exit 10;; *) {bob};; esac"));
    let mut shop = Shop { rules: command("exit 3"), ..shop };
    while !matches!(shop.run().await.get(ANN), Some(Became::Sent(_))) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for bob in ["exit 1", "exit 11", "exit 255", "no-such-program", "kill -9 $$", "((("] {
        shop.rules = command(bob);
        assert!(matches!(&shop.run().await[BOB], Became::Unknown(_)), "{bob}");
    }
    assert_eq!((shop.server.ended(ANN).len(), shop.server.ended(BOB).len()), (2, 1));
    shop.rules = command("exit 10");
    assert!(matches!(&shop.run().await[BOB], Became::Sent(_)));
    assert_eq!(shop.server.ended(BOB).len(), 2);
}

/// Not even once a no without bounds is, which has to wait for clocks that differ alone.
#[tokio::test]
async fn a_no_that_comes_before_the_bounds_have_passed_is_not_believed() {
    let hour = Duration::from_secs(60 * 60);
    for (settle, late) in [(hour, Duration::ZERO), (Duration::ZERO, hour)] {
        let mut shop = in_doubt(&[ANN]).await;
        // Of this one nobody knows since later, and its no needs no time.
        shop.add("soon", &[BOB]);
        shop.server.manner(unlike(At::End, Does::Closes));
        shop.run().await;
        shop.server.manner(|_, _| Does::Usual);
        let bounded = asking("exit 10").asking.map(|it| Asking { settle, late, ..it });
        shop.rules.asking = bounded;
        let (keys, apart) = ("soon".to_owned(), Duration::ZERO);
        shop.classes = vec![Class { keys, rules: asking("exit 10"), apart }];
        let mut became = shop.run().await;
        while !matches!(&became[BOB], Became::Sent(_)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            became = shop.run().await;
        }
        let became = shop.run().await;
        assert!(matches!(&became[ANN], Became::Unknown(_)), "{became:?}");
        assert_eq!((shop.server.ended(ANN).len(), shop.server.ended(BOB).len()), (1, 2));
    }
}

/// Nobody can look for a message without a name: what looks for nothing finds anything.
#[tokio::test]
async fn a_message_with_an_empty_id_is_not_asked_about() {
    let shop = Shop::open(false).await;
    let text = [b"Message-ID: \n".as_slice(), TEXT].concat();
    shop.add_text("welcome", &[ANN], &text);
    shop.server.manner(unlike(At::End, Does::Closes));
    shop.run().await;
    let shop = Shop { rules: asking("exit 0"), ..shop };
    assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)));
}
