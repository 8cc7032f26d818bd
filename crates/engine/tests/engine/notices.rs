//! Notices of the store: duplicates that wait in another process than the first request runs in.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use onlyonce::core::{Phase, Reply, StateKind};
use onlyonce::store::Want;
use onlyonce::{Answer, EngineEvent, Ran, Settings};
use tokio::task::JoinHandle;

use crate::support::*;

/// Two processes on one store. The one here looks by itself every `poll_every` seconds if no
/// notices come.
async fn two(poll_every: u64) -> (Shop, Shop) {
    let there = Shop::open_on(Arc::new(FaultyStore::with_clock()), Settings::default()).await;
    let settings = Settings { poll_every: seconds(poll_every), ..Settings::default() };
    let here = Shop::open_on(Arc::new(there.store.another_line()), settings).await;
    (here, there)
}

impl Shop {
    fn tell(&self, tell: impl FnOnce(&onlyonce::store::Teller)) {
        tell(self.store.teller().as_ref().unwrap());
    }

    /// Duplicates that wait here for an hour, once all of them have looked and wait.
    async fn wait_here(&self, count: usize) -> Vec<JoinHandle<Answer>> {
        let ask = |_| self.ask_aside(seconds(1), seconds(3_600), Ran::Happened(confirmed()));
        let waiting = (0..count).map(ask).collect();
        pass(seconds(1)).await;
        waiting
    }

    fn noticed(&self) -> usize {
        self.log.count(|event| matches!(event, EngineEvent::Noticed { .. }))
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_in_another_process_is_told_and_looked_at_once_for_all_who_wait() {
    let (here, there) = two(3_600).await;
    here.tell(|teller| teller.flows());
    let ticket = there.claim(Phase::Committing).await;
    let waiting = here.wait_here(50).await;
    let before = here.store.calls();
    ticket.complete(confirmed()).await.unwrap();
    pass(seconds(1)).await;
    assert!(waiting.iter().all(|one| !one.is_finished()), "nobody was told yet");
    here.tell(|teller| teller.tell(request().id));
    for one in waiting {
        assert_eq!(one.await.unwrap(), Answer::Replayed(confirmed()));
    }
    assert_eq!(here.store.calls(), before + 1);
    assert_eq!((here.noticed(), here.charges()), (1, 0));
    assert_eq!(here.log.count(|event| *event == EngineEvent::NoticesFlow), 1);
}

#[tokio::test(start_paused = true)]
async fn the_store_hears_of_a_key_once_and_when_nobody_waits_any_more() {
    let (here, there) = two(3_600).await;
    let id = request().id;
    let ticket = there.claim(Phase::Committing).await;
    let waiting = here.wait_here(3).await;
    let teller = here.store.teller().take().unwrap();
    assert_eq!(teller.wants().await, Some(vec![Want::Begin(id)]));
    assert_eq!(teller.wanted(), [id]);
    ticket.complete(confirmed()).await.unwrap();
    teller.tell(id);
    for one in waiting {
        one.await.unwrap();
    }
    assert_eq!(teller.wants().await, Some(vec![Want::End(id)]));
    drop(here);
    assert_eq!(teller.wants().await, None, "the engine is gone");
}

#[tokio::test(start_paused = true)]
async fn a_notice_without_an_end_wakes_nobody() {
    let (here, there) = two(3_600).await;
    here.tell(|teller| teller.flows());
    let ticket = there.claim(Phase::Committing).await;
    let waiting = here.wait_here(1).await;
    let before = here.store.calls();
    here.tell(|teller| teller.tell(request().id));
    pass(seconds(1)).await;
    assert_eq!(here.store.calls(), before + 1, "it was looked at");
    assert!(!waiting[0].is_finished());
    let busy = Reply::kept(429, "later");
    ticket.release(false, Some(busy)).await.unwrap();
    here.tell(|teller| teller.tell(request().id));
    pass(seconds(1)).await;
    assert!(waiting[0].is_finished());
    assert_eq!((here.noticed(), here.charges()), (1, 0), "who waits never runs");
    assert_eq!(here.state().await, Some(StateKind::Released));
}

#[tokio::test(start_paused = true)]
async fn while_notices_come_a_waiter_looks_seldom_and_often_once_they_are_lost() {
    let (here, there) = two(1).await;
    let looks = |during| {
        let (here, before) = (&here, here.store.gets.load(SeqCst));
        async move {
            pass(seconds(during)).await;
            here.store.gets.load(SeqCst) - before
        }
    };
    // Its holder renews it all the time.
    let holding = there.ask_aside(seconds(1_000), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    let waiting = here.wait_here(1).await;
    assert_eq!(looks(60).await, 60, "none came yet");
    here.tell(|teller| teller.flows());
    pass(seconds(5)).await;
    assert_eq!(looks(60).await, 12, "every five seconds");
    here.tell(|teller| teller.lost("cut"));
    pass(seconds(5)).await;
    assert_eq!(looks(60).await, 60, "by itself again");
    let lost = EngineEvent::NoticesLost { why: "cut".to_owned() };
    assert_eq!(here.log.count(|event| *event == lost), 1);
    assert_eq!(holding.await.unwrap(), Answer::Reply(confirmed()));
    pass(seconds(2)).await;
    assert!(waiting[0].is_finished());
    assert_eq!((here.noticed(), here.charges()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_is_lost_at_most_doubles_the_wait() {
    let (here, there) = two(1).await;
    here.tell(|teller| teller.flows());
    let ticket = there.claim(Phase::Committing).await;
    let waiting = here.wait_here(1).await;
    pass(seconds(3)).await;
    ticket.complete(confirmed()).await.unwrap();
    pass(seconds(4)).await;
    assert!(waiting[0].is_finished());
    assert_eq!(here.noticed(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_none_came_is_looked_at_when_they_come_again() {
    let (here, there) = two(3_600).await;
    let ticket = there.claim(Phase::Committing).await;
    let waiting = here.wait_here(2).await;
    here.tell(|teller| teller.lost("cut"));
    ticket.complete(confirmed()).await.unwrap();
    pass(seconds(1)).await;
    assert!(!waiting[0].is_finished());
    here.tell(|teller| teller.flows());
    for one in waiting {
        assert_eq!(one.await.unwrap(), Answer::Replayed(confirmed()));
    }
    assert_eq!((here.noticed(), here.charges()), (1, 0));
}
