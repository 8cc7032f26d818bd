//! Several resources, and several applies at once.

use std::time::Duration;

use onlyonce_provision::{Became, Step, Would};

use crate::site::{Site, apply, one, ready, thing};

fn network_and_web() -> String {
    let web = thing("web", "inputs = { network = \"${net.id}\", size = \"small\" }");
    format!("name = \"shop\"\n{web}{}{}", thing("net", ""), thing("dns", "after = [\"web\"]"))
}

#[tokio::test]
async fn each_is_made_once_what_it_needs_is_there_and_again_nothing_is() {
    let site = Site::open();
    let provisioner = site.provisioner(&network_and_web()).await;
    let foretold = provisioner.forecast().await.unwrap();
    assert_eq!(foretold[0].would, Would::After("net".into()));
    assert_eq!(foretold[1].would, Would::Create("nothing is there".into()));
    let first = apply(&provisioner).await;
    let made = site.read("made");
    let lines: Vec<&str> = made.lines().collect();
    assert!(lines[0].contains(" net-0 "), "{made}");
    assert!(lines[1].ends_with(" web-1 small net-0"), "{made}");
    assert!(lines[2].contains(" dns-2 "), "{made}");
    assert_eq!(apply(&provisioner).await, first);
    assert!(matches!(provisioner.forecast().await.unwrap()[0].would, Would::Nothing(_)));
    assert_eq!((site.made(), site.tried()), (3, 3));
}

#[tokio::test]
async fn what_waits_for_one_that_is_not_ready_is_not_begun() {
    let site = Site::open();
    site.write("before", "if [ $ONLYONCE_KEY = web ]; then exit 1; fi");
    let all = site.apply(&network_and_web()).await;
    assert_eq!(all.iter().map(Became::word).collect::<Vec<_>>(), ["unknown", "ready", "planned"]);
    assert_eq!(all[2], Became::Waits("web".into()));
    assert_eq!(site.made(), 1);

    // It is there and recorded, and that is not enough.
    let (site, web) = (Site::open(), "key = \"web\"\n");
    let plan = network_and_web().replace(web, &format!("{web}ready = \"exit 20\"\n"));
    let all = site.apply(&plan).await;
    assert_eq!(all.iter().map(Became::word).collect::<Vec<_>>(), ["created", "ready", "planned"]);
    assert_eq!(all[2], Became::Waits("web".into()));
    assert_eq!((site.made(), site.tried()), (2, 2));
}

/// Case B133. What was begun and takes long is waited for, and not taken for somebody else's.
#[tokio::test]
async fn one_that_takes_long_is_made_once_and_waited_for_again() {
    let (site, slow) =
        (Site::open(), one("ready = \"cat state; exit 10\"\nready_within = \"10ms\""));
    site.write("state", "booting");
    for _ in 0..2 {
        let Became::NotReady { receipt, why } = site.apply_one(&slow).await else { panic!() };
        assert_eq!((receipt.id.as_str(), why.as_str()), ("web-0", "booting"));
    }
    let quick = one("ready = \"echo $ONLYONCE_ID > asked\"");
    assert_eq!(ready(&site.apply_one(&quick).await), "web-0");
    assert_eq!(site.read("asked").trim(), "web-0");
    assert_eq!((site.made(), site.tried()), (1, 1));
}

#[tokio::test]
async fn of_applies_at_once_one_makes_it_and_the_others_wait() {
    let site = Site::open();
    // Whoever makes it is at it until all have begun.
    site.write("before", "while [ ! -e go ]; do sleep 0.01; done");
    let mut all = tokio::task::JoinSet::new();
    let provisioner = site.provisioner(&network_and_web()).await;
    for _ in 0..4 {
        let provisioner = provisioner.clone();
        all.spawn(async move { apply(&provisioner).await });
    }
    while site.tried() == 0 {
        tokio::task::yield_now().await;
    }
    site.write("go", "");
    let mut ends = Vec::new();
    while let Some(end) = all.join_next().await {
        ends.push(end.unwrap());
    }
    let ids = |end: &Vec<onlyonce_provision::Applied>| {
        end.iter().map(|it| ready(&it.became).to_owned()).collect::<Vec<_>>()
    };
    assert!(ends.iter().all(|end| ids(end) == ["web-1", "net-0", "dns-2"]), "{ends:?}");
    assert_eq!((site.made(), site.tried()), (3, 3));
}

#[tokio::test]
async fn after_a_stop_nothing_is_begun_and_what_was_begun_ends() {
    let site = Site::open();
    let provisioner = site.provisioner(&network_and_web()).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut stop = Some(stop);
    let tell = |_: &str, step: &Step| {
        if matches!(step, Step::Creating { .. }) {
            drop(stop.take());
        }
    };
    let stopped = async move {
        let _ = stopped.await;
    };
    let all = provisioner.apply(4, Duration::ZERO, stopped, tell).await;
    assert_eq!(ready(&all[1].became), "net-0");
    assert_eq!(all[0].became, Became::Stopped);
    assert_eq!(site.made(), 1);
}
