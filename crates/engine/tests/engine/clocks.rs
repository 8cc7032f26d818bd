//! Machines whose clocks are wrong, on a store whose clock all of them go by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use onlyonce::core::{ClaimId, Floor, Holder, KeyId, Outcome, Phase, Policy, Timestamp};
use onlyonce::store::{BoxFuture, Store as _};
use onlyonce::{
    Answer, Claimed, EngineError, EngineEvent, Ran, Request, Runtime, Settings, Sweeper, Uptime,
    direct,
};
use onlyonce_tokio::TokioRuntime;

use crate::support::*;

/// How long the policy remembers.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A machine whose clock is wrong by so many milliseconds, and does not run backwards.
struct Wrong {
    inner: TokioRuntime,
    by: AtomicI64,
    told: AtomicU64,
    /// How often the host was booted since.
    boots: AtomicU64,
}

impl Wrong {
    fn by_minutes(minutes: i64) -> Arc<Self> {
        let by = AtomicI64::new(minutes * 60_000);
        let (told, boots) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { inner: TokioRuntime::new(), by, told, boots })
    }
}

impl Runtime for Wrong {
    fn now(&self) -> Timestamp {
        let now = self.inner.now().as_millis().saturating_add_signed(self.by.load(SeqCst));
        Timestamp::from_millis(self.told.fetch_max(now, SeqCst).max(now))
    }

    fn steady(&self) -> Duration {
        self.inner.steady()
    }

    fn uptime(&self) -> Option<Uptime> {
        let boots = self.boots.load(SeqCst);
        let since_boot = if boots == 0 { self.steady() } else { Duration::ZERO };
        let boot = u128::from(boots).to_be_bytes();
        Some(Uptime { boot, time_namespace: 1, since_boot })
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
async fn a_machine_whose_clock_is_put_forward_while_it_runs_ends_nobodys_claim() {
    let store = FaultyStore::with_clock();
    let machine = Wrong::by_minutes(0);
    let line = Arc::new(store.another_line());
    let shop = Shop::try_open(line, Settings::default(), machine.clone()).await.unwrap();
    let other = Shop::open_on(Arc::new(store.another_line()), Settings::default()).await;
    let ticket = other.claim(Phase::Committing).await;
    machine.by.store(30 * 60_000, SeqCst);
    for _ in 0..2 {
        assert!(off(shop.engine.now(), store.time()) < seconds(1));
        assert!(matches!(shop.look().await, Outcome::InFlight { .. }));
        Sweeper::new(shop.engine.clone(), policy()).pass().await.unwrap();
        pass(seconds(14)).await;
    }
    ticket.complete(confirmed()).await.unwrap();
    let floor = store.floor().await.unwrap();
    assert!(!floor.is_above(Some(store.time().minus(MONTH))), "{floor:?}");
}

/// Commands that each live for a moment, on a store that has no clock of its own. After a boot
/// nothing but the clock can tell how long a floor has been raised.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_put_forward_between_two_commands_is_no_wait_for_the_floor() {
    for (boots, deletes) in [(0, 0), (1, 1)] {
        let machine = Wrong::by_minutes(0);
        let store: Arc<FaultyStore> = Arc::default();
        let shop = Shop::try_open(store, Settings::default(), machine.clone()).await.unwrap();
        let timed = Request { key_time: Some(shop.engine.now()), ..request() };
        let charge = shop.charge(Duration::ZERO, Ran::Happened(confirmed()));
        shop.engine.once(&timed, &policy(), seconds(5), charge).await.unwrap();
        pass(MONTH + Duration::from_secs(24 * 3_600)).await;
        let sweep = async || {
            let mut sweeper = Sweeper::new(shop.engine.clone(), policy()).handing_on();
            sweeper.pass().await.unwrap().deleted
        };
        // What is due becomes a tombstone, and the floor is raised.
        assert_eq!(sweep().await, 0);
        machine.by.store(10 * 60_000, SeqCst);
        machine.boots.store(boots, SeqCst);
        assert_eq!(sweep().await, deletes, "{boots} boots");
        pass(seconds(120)).await;
        machine.by.store(20 * 60_000, SeqCst);
        assert_eq!(sweep().await, 1 - deletes, "{boots} boots");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_only_sweeps_goes_by_the_stores_clock_as_it_is_then() {
    let store = Arc::new(FaultyStore::with_clock());
    let shop = Shop::open_on(Arc::clone(&store), Settings::default()).await;
    store.stepped.lock().unwrap().0 = seconds(1_800);
    pass(seconds(61)).await;
    Sweeper::new(shop.engine.clone(), policy()).pass().await.unwrap();
    assert_eq!(store.floor().await.unwrap(), Floor::at(store.time().minus(MONTH)));
}

#[tokio::test(start_paused = true)]
async fn a_clock_is_read_once_a_minute_however_many_claims_there_are() {
    for (store, in_two_minutes) in [(FaultyStore::with_clock(), 2), (FaultyStore::default(), 0)] {
        let store = Arc::new(store);
        let shop = Shop::open_on(Arc::clone(&store), Settings::default()).await;
        let at_start = store.clocks.load(SeqCst);
        for second in 0..140_u8 {
            let other = Request { id: KeyId::from_bytes([second; 16]), ..request() };
            let run = direct(|_attempt| async { Ran::Happened(confirmed()) });
            shop.engine.once(&other, &policy(), seconds(1), run).await.unwrap();
            pass(seconds(1)).await;
        }
        assert_eq!(store.clocks.load(SeqCst) - at_start, in_two_minutes);
    }
}

/// Another server has taken over, whose clock is ten minutes behind.
#[tokio::test(start_paused = true)]
async fn where_the_stores_clock_goes_back_nothing_takes_longer_and_the_time_goes_on() {
    let mut store = FaultyStore::with_clock();
    store.stepped.get_mut().unwrap().0 = seconds(600);
    let store = Arc::new(store);
    let shop = Shop::open_on(Arc::clone(&store), Settings::default()).await;
    store.stepped.lock().unwrap().0 = Duration::ZERO;
    pass(seconds(61)).await;
    let before = shop.engine.now();
    let running = shop.ask_aside(seconds(60), seconds(1), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    // It waits for five seconds and not until the clock is there.
    let begun = tokio::time::Instant::now();
    assert!(matches!(shop.ask(seconds(1)).await, Ok(Answer::Refused(Outcome::InFlight { .. }))));
    assert_eq!(begun.elapsed().as_secs(), 5);
    // With the store away it says so as soon as ever.
    store.down.store(true, SeqCst);
    let begun = tokio::time::Instant::now();
    let other = Request { id: KeyId::from_bytes([8; 16]), ..request() };
    shop.engine.claim(&other, &policy(), Phase::Committing).await.unwrap_err();
    assert!(begun.elapsed() <= seconds(3), "{:?}", begun.elapsed());
    store.down.store(false, SeqCst);
    assert_eq!(running.await.unwrap(), Answer::Reply(confirmed()));
    let after = shop.engine.now();
    assert!(before < after && seconds(60 * 9) < after.since(store.time()), "it nears it slowly");
    pass(seconds(20 * 60)).await;
    assert!(off(shop.engine.now(), store.time()) < seconds(1), "and is there then");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_over_for_its_holder_when_its_time_has_passed_whatever_the_stores_clock_does() {
    let mut store = FaultyStore::with_clock();
    store.stepped.get_mut().unwrap().0 = seconds(600);
    let store = Arc::new(store);
    let shop = Shop::open_on(Arc::clone(&store), Settings::default()).await;
    let long = Policy { lease: seconds(120), ..policy() };
    let claimed = shop.engine.claim(&request(), &long, Phase::Committing).await.unwrap();
    let Claimed::Granted(ticket) = claimed else { panic!("{claimed:?}") };
    store.stepped.lock().unwrap().0 = Duration::ZERO;
    pass(seconds(61)).await;
    let other = Request { id: KeyId::from_bytes([8; 16]), ..request() };
    shop.engine.claim(&other, &long, Phase::Prepared).await.unwrap();
    assert!(!ticket.lease_left().is_zero());
    pass(seconds(60)).await;
    assert_eq!(ticket.lease_left(), Duration::ZERO);
}

/// A record of before is ahead of the store's clock: those who start later agree all the same.
#[tokio::test(start_paused = true)]
async fn a_number_ahead_of_the_stores_clock_does_not_part_those_who_start_later() {
    let mut store = FaultyStore::with_clock();
    store.stepped.get_mut().unwrap().0 = seconds(600);
    let early = Shop::open_on(Arc::new(store.another_line()), Settings::default()).await;
    store.stepped.get_mut().unwrap().0 = seconds(600);
    assert_eq!(early.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    let newest = store.revision_max().await.unwrap();
    store.stepped.get_mut().unwrap().0 = Duration::ZERO;
    let mut shops = Vec::new();
    for _ in 0..3 {
        let line = store.another_line();
        line.stepped.lock().unwrap().0 = Duration::ZERO;
        let shop = Shop::open_on(Arc::new(line), Settings::default()).await;
        assert!(newest < shop.engine.now().as_millis());
        shops.push(shop);
        pass(seconds(300)).await;
    }
    pass(seconds(900)).await;
    for shop in &shops {
        assert!(off(shop.engine.now(), store.time()) < seconds(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stores_clock_that_goes_far_ahead_is_an_alarm_and_is_not_followed() {
    let store = Arc::new(FaultyStore::with_clock());
    let shop = Shop::open_on(Arc::clone(&store), Settings::default()).await;
    let alarms = || shop.log.count(|event| matches!(event, EngineEvent::ClockStepped { .. }));
    for (hours, followed) in [(0, true), (1, true), (2, false), (24 * 365, false)] {
        store.stepped.lock().unwrap().0 = seconds(hours * 3_600);
        let before = alarms();
        pass(seconds(61)).await;
        shop.engine.claim(&request(), &policy(), Phase::Prepared).await.unwrap();
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
    // The last reading is good for some minutes, since no clock goes that wrong.
    pass(seconds(61)).await;
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    pass(seconds(3_600)).await;
    let charge = shop.charge(seconds(1), Ran::Happened(confirmed()));
    let other = Request { id: KeyId::from_bytes([8; 16]), ..request() };
    let refused = shop.engine.once(&other, &policy(), seconds(1), charge).await;
    assert!(refused.is_err_and(|error| error.is_transient()));
    assert_eq!(shop.charges(), 1);
    store.stepped.lock().unwrap().1 = Duration::ZERO;
    let charge = shop.charge(seconds(1), Ran::Happened(confirmed()));
    let answer = shop.engine.once(&other, &policy(), seconds(1), charge).await;
    assert_eq!((answer, shop.charges()), (Ok(Answer::Reply(confirmed())), 2));
}
