//! What goes on when the process is killed: each scene leads to a place and dies there.

use std::time::Duration;

use crate::bench::{Bench, Place, until};
use crate::caller::{Answer, Caller, Saw};
use crate::shop::Manner;

/// The configuration of every scene: what differs has a route of its own.
pub(crate) const CONFIG: &str = "[[route]]\npath = \"/renewed\"\n[route.policy]\nlease = \"1s\"\n\n\
    [[route]]\npath = \"/expired\"\n[route.policy]\nretention = \"100ms\"\n";

/// The configuration under which what is released is soon forgotten.
pub(crate) const FORGETFUL: &str =
    "[policy]\nretention = \"100ms\"\nremember = \"100ms\"\nskew_max = \"10ms\"\n";

/// Longer than answers are kept where they are not kept long; only time itself ends that.
pub(crate) const OVER: Duration = Duration::from_millis(500);

/// A body that no socket takes at once if nobody reads it, in bytes.
const LARGE_REQUEST: usize = 12 << 20;
/// An answer of which a few fill a segment, in bytes.
const LARGE_ANSWER: usize = 15 << 20;

/// What came of a scene until the process was dead.
pub(crate) struct Played {
    /// What the caller saw who asked when it died.
    pub(crate) saw: Saw,
    /// What the shop said, as somebody was told whole before.
    pub(crate) told: Option<Answer>,
    pub(crate) path: &'static str,
    /// The length of the request, in bytes.
    pub(crate) length: usize,
}

impl Played {
    fn saw(saw: Saw) -> Self {
        Self { saw, told: None, path: "/orders", length: 0 }
    }

    /// Nobody asked when it died; this was told before.
    pub(crate) fn told(told: Answer) -> Self {
        Self { told: Some(told), ..Self::saw(Saw::Nothing) }
    }
}

/// Asks, and dies of it.
fn asks(bench: &mut Bench, place: Place, manner: Manner, path: &str, key: &str) -> Saw {
    bench.shop.manner(manner);
    let proxy = bench.proxy();
    bench.kill_at(place);
    let caller = Caller::ask(proxy, path, key, 0);
    bench.died(place);
    caller.saw()
}

pub(crate) fn first(bench: &mut Bench, place: Place, key: &str) -> Played {
    Played::saw(asks(bench, place, Manner::Answer, "/orders", key))
}

pub(crate) fn large(bench: &mut Bench, place: Place, key: &str) -> Played {
    // A shop that does not read is what keeps a part of it back.
    let is_whole = place.says.contains(&"the-end");
    bench.shop.manner(if is_whole { Manner::Answer } else { Manner::Unread });
    let proxy = bench.proxy();
    bench.kill_at(place);
    let caller = Caller::ask(proxy, "/orders", key, LARGE_REQUEST);
    bench.died(place);
    Played { length: LARGE_REQUEST, ..Played::saw(caller.saw()) }
}

pub(crate) fn streamed(bench: &mut Bench, place: Place, key: &str) -> Played {
    bench.shop.manner(Manner::Stream);
    let proxy = bench.proxy();
    bench.kill_at(place);
    let caller = Caller::ask(proxy, "/orders", key, 0);
    // The last piece comes once the first is seen, if it does not die before.
    until("a piece or the end", || (caller.has("piece-1") || caller.is_over()).then_some(()));
    bench.shop.let_go();
    bench.died(place);
    Played::saw(caller.saw())
}

pub(crate) fn refused(bench: &mut Bench, place: Place, key: &str) -> Played {
    Played::saw(asks(bench, place, Manner::Refuse, "/orders", key))
}

pub(crate) fn cut(bench: &mut Bench, place: Place, key: &str) -> Played {
    Played::saw(asks(bench, place, Manner::Cut, "/orders", key))
}

pub(crate) fn renewed(bench: &mut Bench, place: Place, key: &str) -> Played {
    let saw = asks(bench, place, Manner::Hold, "/renewed", key);
    Played { path: "/renewed", ..Played::saw(saw) }
}

pub(crate) fn waited(bench: &mut Bench, place: Place, key: &str) -> Played {
    bench.shop.manner(Manner::Hold);
    let proxy = bench.proxy();
    let first = Caller::ask(proxy, "/orders", key, 0);
    bench.shop.began(key);
    first.hang_up();
    let ask = || Caller::ask(proxy, "/orders", key, 0);
    let joined = Place { name: "wait.joined", says: &[] };
    let second = if place.name == joined.name {
        bench.kill_at(place);
        ask()
    } else {
        let second = bench.passes(joined, ask);
        bench.kill_at(place);
        bench.shop.let_go();
        second
    };
    bench.died(place);
    Played::saw(second.saw())
}

pub(crate) fn replayed(bench: &mut Bench, place: Place, key: &str) -> Played {
    bench.shop.manner(Manner::Answer);
    let told = bench.asks("/orders", key, 0);
    let saw = asks(bench, place, Manner::Answer, "/orders", key);
    Played { saw, ..Played::told(told) }
}

pub(crate) fn buried(bench: &mut Bench, place: Place, key: &str) -> Played {
    let granted = Place { name: "engine.swap.after", says: &["Claim("] };
    let saw = asks(bench, granted, Manner::Answer, "/orders", key);
    bench.kill_at(place);
    bench.start_doomed();
    bench.died(place);
    Played::saw(saw)
}

/// Stops it, and starts it again to die of its first sweep.
pub(crate) fn sweeps(bench: &mut Bench, place: Place) {
    bench.stop();
    bench.kill_at(place);
    bench.start_doomed();
    bench.died(place);
}

pub(crate) fn expired(bench: &mut Bench, place: Place, key: &str) -> Played {
    bench.shop.manner(Manner::Answer);
    let told = bench.asks("/expired", key, 0);
    std::thread::sleep(OVER);
    sweeps(bench, place);
    Played { path: "/expired", ..Played::told(told) }
}

pub(crate) fn forgotten(bench: &mut Bench, place: Place, key: &str) -> Played {
    bench.shop.manner(Manner::Refuse);
    let refused = bench.asks("/orders", key, 0);
    assert_eq!(refused.status, 429, "{refused:?}");
    std::thread::sleep(OVER);
    sweeps(bench, place);
    Played::saw(Saw::Nothing)
}

pub(crate) fn rolled(bench: &mut Bench, place: Place, key: &str) -> Played {
    bench.shop.manner(Manner::Answer);
    let told = bench.asks("/orders", key, 0);
    bench.kill_at(place);
    bench.shop.manner(Manner::Large(LARGE_ANSWER));
    for number in 0.. {
        if bench.is_dead() {
            break;
        }
        let proxy = bench.proxy();
        // It dies of one of them, and what this one sees depends on who is faster.
        if let Some(caller) = Caller::try_ask(proxy, "/orders", &format!("{key}-{number}"), 0) {
            drop(caller.saw());
        }
    }
    bench.died(place);
    Played::told(told)
}

pub(crate) fn reclaimed(bench: &mut Bench, place: Place, key: &str) -> Played {
    bench.shop.manner(Manner::Answer);
    let told = bench.asks("/orders", key, 0);
    bench.shop.manner(Manner::Large(LARGE_ANSWER));
    for number in 0.. {
        if 1 < bench.segments() {
            break;
        }
        bench.asks("/expired", &format!("{key}-{number}"), 0);
    }
    std::thread::sleep(OVER);
    sweeps(bench, place);
    Played::told(told)
}
