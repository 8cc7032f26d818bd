//! Machines whose clocks are wrong, on a store whose clock all of them go by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use onlyonce::core::{ClaimId, Holder, Outcome, Phase, Timestamp};
use onlyonce::store::BoxFuture;
use onlyonce::{Answer, EngineError, EngineEvent, Ran, Runtime, Settings};
use onlyonce_tokio::TokioRuntime;

use crate::support::*;

/// A machine whose clock is wrong by so many milliseconds, and does not run backwards.
struct Wrong {
    inner: TokioRuntime,
    by: AtomicI64,
    told: AtomicU64,
}

impl Wrong {
    fn by_minutes(minutes: i64) -> Arc<Self> {
        let by = AtomicI64::new(minutes * 60_000);
        Arc::new(Self { inner: TokioRuntime::new(), by, told: AtomicU64::new(0) })
    }
}

impl Runtime for Wrong {
    fn now(&self) -> Timestamp {
        let now = self.inner.now().as_millis().saturating_add_signed(self.by.load(SeqCst));
        Timestamp::from_millis(self.told.fetch_max(now, SeqCst).max(now))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }

    fn claim_id(&self) -> ClaimId {
        self.inner.claim_id()
    }

    fn holder(&self) -> Holder {
        self.inner.holder()
    }
}

/// Shops on one store, on machines whose clocks are wrong by so many minutes.
async fn shops<const N: usize>(minutes: [i64; N]) -> [Shop; N] {
    let store = FaultyStore::with_clock();
    let mut shops = Vec::new();
    for by in minutes {
        let (line, wrong) = (Arc::new(store.another_line()), Wrong::by_minutes(by));
        shops.push(Shop::try_open(line, Settings::default(), wrong).await.unwrap());
    }
    shops.try_into().ok().unwrap()
}

fn off(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

/// Case B58.
#[tokio::test(start_paused = true)]
async fn machines_whose_clocks_are_minutes_apart_agree_on_how_long_a_claim_lasts() {
    for holder in 0..3 {
        let shops = shops([-5, 0, 5]).await;
        let ticket = shops[holder].claim(Phase::Committing).await;
        let lease = policy().lease;
        pass(lease - seconds(2)).await;
        for shop in &shops {
            let Outcome::InFlight { lease_until } = shop.look().await else {
                panic!("taken over early: {:?}", shop.look().await)
            };
            let left = lease_until.since(shop.engine.now());
            assert!(seconds(1) < left && left < seconds(3), "{left:?}");
        }
        // Nobody renews it: for all of them it is over soon after.
        std::mem::forget(ticket);
        pass(policy().skew_max + seconds(3)).await;
        for shop in &shops {
            let outcome = shop.look().await;
            assert!(matches!(outcome, Outcome::OutcomeUnknown { .. }), "{outcome:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_duplicates_at_machines_whose_clocks_are_minutes_apart_make_one_charge() {
    let shops = shops([-5, 5, 0, 59]).await;
    let ask = |at: usize| shops[at % 4].ask(seconds(2));
    let answers = futures_util::future::join_all((0..50).map(ask)).await;
    for answer in answers {
        let (Answer::Reply(reply) | Answer::Replayed(reply)) = answer.unwrap() else { panic!() };
        assert_eq!(reply, confirmed());
    }
    assert_eq!(shops.iter().map(Shop::charges).sum::<usize>(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_forward_while_the_process_runs_is_corrected_within_a_minute() {
    let store = Arc::new(FaultyStore::with_clock());
    let machine = Wrong::by_minutes(0);
    let shop = Shop::try_open(Arc::clone(&store), Settings::default(), machine.clone());
    let shop = shop.await.unwrap();
    machine.by.store(30 * 60_000, SeqCst);
    assert!(seconds(1_700) < off(shop.engine.now(), store.time()));
    shop.look().await;
    // It has told that time, and does not run backwards.
    let told = shop.engine.now();
    pass(seconds(29 * 60)).await;
    assert!(off(shop.engine.now(), told) < seconds(1), "it stands still");
    pass(seconds(120)).await;
    shop.look().await;
    assert!(off(shop.engine.now(), store.time()) < seconds(1));
}

#[tokio::test(start_paused = true)]
async fn a_stores_clock_that_goes_far_ahead_is_an_alarm_and_is_not_followed() {
    let store = Arc::new(FaultyStore::with_clock());
    let shop = Shop::open_on(Arc::clone(&store), Settings::default()).await;
    let alarms = || shop.log.count(|event| matches!(event, EngineEvent::ClockStepped { .. }));
    for (hours, followed) in [(0, true), (1, true), (2, false), (24 * 365, false)] {
        store.stepped.lock().unwrap().0 = seconds(hours * 3_600);
        let before = alarms();
        pass(seconds(31)).await;
        shop.look().await;
        assert_eq!(off(shop.engine.now(), store.time()) < seconds(1), followed, "{hours} h");
        assert_eq!(alarms() - before, usize::from(!followed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_cannot_be_read_well_enough_is_refused_and_nothing_runs() {
    let store = Arc::new(FaultyStore::with_clock());
    let shop = Shop::open_on(Arc::clone(&store), Settings::default()).await;
    store.stepped.lock().unwrap().1 = seconds(3);
    let start = Shop::try_open(Arc::clone(&store), Settings::default(), Wrong::by_minutes(0)).await;
    let Err(error) = start else { panic!("it has started") };
    assert!(matches!(error, EngineError::ClockUncertain { .. }), "{error}");
    pass(seconds(31)).await;
    let charge = shop.charge(seconds(1), Ran::Happened(confirmed()));
    let refused = shop.engine.once(&request(), &policy(), seconds(1), charge).await;
    assert!(refused.is_err_and(|error| error.is_transient()));
    assert_eq!(shop.charges(), 0);
    store.stepped.lock().unwrap().1 = Duration::ZERO;
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
}
