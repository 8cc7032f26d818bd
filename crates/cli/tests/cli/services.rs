//! Several record services on one store that processes share: a claim that was made at one of them
//! counts at all, whichever of them is asked next or is dead by then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::process::{Service, until};
use crate::service::{ask, claim, token};
use crate::shared::Shared;

const EACH: u32 = 8;

fn start(store: &Shared) -> Service {
    let token = token(&store.folder);
    Service::start(&["--listen", "127.0.0.1:0", "--token-file", &token, "--store", &store.url])
}

fn done(key: &str, fence: &Value, order: usize) -> Value {
    json!({ "key": key, "fence": fence, "reply": { "status": 201, "json": { "order": order } } })
}

/// Duplicates at both services at once, of which one may go on.
fn of_simultaneous_claims_at_two_services_one_is_granted(store: &Shared) {
    let services = [start(store), start(store)];
    let orders = AtomicUsize::new(0);
    for round in 0..6 {
        let key = format!("tap {round}");
        thread::scope(|scope| {
            for attempt in 1..=EACH {
                let (services, orders, key) = (&services, &orders, &key);
                scope.spawn(move || {
                    let at = usize::try_from(attempt).unwrap() % 2;
                    let (status, told) = ask(&services[at].url, "claim", &claim(key, attempt));
                    if told["outcome"] == "granted" {
                        let order = orders.fetch_add(1, Ordering::SeqCst);
                        // Its end is recorded by the other service.
                        let done = done(key, &told["fence"], order);
                        assert_eq!(ask(&services[1 - at].url, "complete", &done).0, 200);
                    } else {
                        assert!(status == 409 || told["outcome"] == "replay", "{told}");
                    }
                });
            }
        });
        assert_eq!(orders.load(Ordering::SeqCst), round + 1, "orders after {key}");
        for service in &services {
            let (_, told) = ask(&service.url, "claim", &claim(&key, EACH + 1));
            assert_eq!(told["reply"]["json"]["order"], json!(round), "{told}");
        }
    }
    services.into_iter().for_each(Service::stop);
}

/// A lost answer is not a lost claim, and who waits at one service is told by the other.
fn a_claim_outlives_the_service_that_granted_it(store: &Shared) {
    let (first, second) = (start(store), start(store));
    let (_, granted) = ask(&first.url, "claim", &claim("tap", 1));
    first.kill();
    let (_, again) = ask(&second.url, "claim", &claim("tap", 1));
    assert_eq!((&again["outcome"], &again["fence"]), (&json!("granted"), &granted["fence"]));
    assert_eq!(ask(&second.url, "claim", &claim("tap", 2)).0, 409);

    let third = start(store);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let asked = json!({ "key": "tap", "fingerprint": "f", "wait_ms": 20_000 });
            ask(&third.url, "wait", &asked)
        });
        assert_eq!(ask(&second.url, "complete", &done("tap", &granted["fence"], 7)).0, 200);
        let (status, told) = waiting.join().unwrap();
        assert_eq!((status, &told["reply"]["json"]["order"]), (200, &json!(7)), "{told}");
    });
    until("the record at both", || {
        [&second, &third]
            .iter()
            .all(|it| ask(&it.url, "claim", &claim("tap", 3)).1["outcome"] == "replay")
            .then_some(())
    });
}

#[test]
fn of_simultaneous_claims_at_two_services_on_one_sqlite_file_one_is_granted() {
    of_simultaneous_claims_at_two_services_one_is_granted(&Shared::sqlite());
}

#[test]
fn a_claim_in_an_sqlite_file_outlives_the_service_that_granted_it() {
    a_claim_outlives_the_service_that_granted_it(&Shared::sqlite());
}

#[test]
fn of_simultaneous_claims_at_two_services_on_one_postgres_one_is_granted() {
    of_simultaneous_claims_at_two_services_one_is_granted(&Shared::postgres());
}

#[test]
fn a_claim_in_postgres_outlives_the_service_that_granted_it() {
    a_claim_outlives_the_service_that_granted_it(&Shared::postgres());
}

#[test]
fn of_simultaneous_claims_at_two_services_on_one_mariadb_one_is_granted() {
    of_simultaneous_claims_at_two_services_one_is_granted(&Shared::mariadb());
}

#[test]
fn a_claim_in_mariadb_outlives_the_service_that_granted_it() {
    a_claim_outlives_the_service_that_granted_it(&Shared::mariadb());
}

#[test]
fn of_simultaneous_claims_at_two_services_on_one_redis_one_is_granted() {
    of_simultaneous_claims_at_two_services_one_is_granted(&Shared::redis());
}

#[test]
fn a_claim_in_redis_outlives_the_service_that_granted_it() {
    a_claim_outlives_the_service_that_granted_it(&Shared::redis());
}

#[test]
fn of_simultaneous_claims_at_two_services_on_one_etcd_one_is_granted() {
    of_simultaneous_claims_at_two_services_one_is_granted(&Shared::etcd());
}

#[test]
fn a_claim_in_etcd_outlives_the_service_that_granted_it() {
    a_claim_outlives_the_service_that_granted_it(&Shared::etcd());
}
