//! The exit codes of scripts: what each of them says, and what it does not.

use onlyonce_provision::Became;

use crate::site::{Site, one, ready};

#[tokio::test]
async fn only_a_check_that_says_absent_lets_a_thing_be_made() {
    for (says, word, made) in [
        ("exit 10", "ready", 1),
        ("echo i-7; exit 0", "ready", 0),
        ("echo a load balancer of bob; exit 11", "conflict", 0),
        ("echo i-1; echo i-2; exit 12", "duplicate", 0),
        ("exit 0", "cannot-tell", 0),
        ("echo no such host >&2; exit 1", "cannot-tell", 0),
        ("no-such-program; exit $?", "cannot-tell", 0),
        ("kill -9 $$", "cannot-tell", 0),
        ("exit 20", "cannot-tell", 0),
    ] {
        let site = Site::open();
        site.write("check", says);
        let became = site.apply_one(&one("")).await;
        assert_eq!((became.word(), site.made()), (word, made), "{says}: {became:?}");
        assert_eq!(site.tried(), made, "{says}");
    }
}

#[tokio::test]
async fn what_was_seen_is_told() {
    let site = Site::open();
    site.write("check", "echo i-1; echo i-2; exit 12");
    assert_eq!(site.apply_one(&one("")).await, Became::Duplicate(vec!["i-1".into(), "i-2".into()]));
    site.write("check", "echo a balancer of bob; exit 11");
    assert_eq!(site.apply_one(&one("")).await, Became::Conflict("a balancer of bob".into()));
    site.write("check", "echo no such host >&2; exit 1");
    let Became::CannotTell(text) = site.apply_one(&one("")).await else { panic!() };
    assert!(text.contains("ended with 1: no such host"), "{text}");
}

/// A definite refusal is the only failure: everything else may have made it.
#[tokio::test]
async fn only_a_refusal_is_a_failure_and_every_other_end_is_unknown() {
    for (ends, word) in [
        ("exit 0", "ready"),
        ("echo quota >&2; exit 20", "refused"),
        ("echo taken >&2; exit 11", "ready"),
        ("exit 1", "unknown"),
        ("exit 10", "unknown"),
        ("no-such-program; exit $?", "unknown"),
        ("kill -9 $$", "unknown"),
        ("sleep 600", "unknown"),
        ("echo; printf 'a\\001b'; exit 0", "unknown"),
    ] {
        let site = Site::open();
        site.write("after", ends);
        let became = site.apply_one(&one("timeout = \"300ms\"")).await;
        assert_eq!((became.word(), site.made()), (word, 1), "{ends}: {became:?}");
    }
}

#[tokio::test]
async fn a_script_that_prints_nothing_has_used_the_name_that_it_was_given() {
    let site = Site::open();
    let plan = "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"command\"\n\
                create = \"echo $ONLYONCE_NAME >> made\"\n";
    let became = site.apply_one(plan).await;
    assert_eq!(site.read("made").trim(), ready(&became));
    assert!(ready(&became).starts_with("web-"), "{became:?}");
    // What cannot be looked for is known by its record alone, and is not made again.
    assert_eq!(site.apply_one(plan).await, became);
    assert_eq!(site.made(), 1);
}
