//! Swaps that come together are written by one statement of many rows. Each is told for itself all
//! the same, also if somebody comes between.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use onlyonce_conformance::{answered, block_on, claimed, id};
use onlyonce_core::{Record, Revision};
use onlyonce_mysql::Mysql;
use onlyonce_store::{BoxFuture, Filter, Store as _, StoreError, Swap};
use onlyonce_testbed::{MariaDb as Server, until};

use crate::common::{RUNTIME, claim, database, init, open};

/// Swaps of one transaction.
const TOGETHER: std::ops::Range<u64> = 1..9;
/// A swap of a transaction before it that waits, so that they come together.
const FIRST: u64 = 900;

type Told<'a> = BoxFuture<'a, Result<Swap, StoreError>>;

/// A server that waits for two locks: at the row of [`FIRST`], and at that which comes first of
/// [`TOGETHER`] in the order of ids.
struct Stall {
    server: Server,
    name: String,
    /// Whoever has the locks.
    conn: Conn,
}

impl Stall {
    /// The locks are not held yet.
    fn at(event: &str) -> (Self, Mysql) {
        let server = Server::start();
        let name = database(&server);
        init(&server, &name).unwrap();
        let slow = TOGETHER.map(id).min().unwrap();
        let wait = |what| format!("GET_LOCK('{what}', 10) + RELEASE_LOCK('{what}')");
        let (first, second) = (wait("first"), wait("second"));
        server.sql(
            &name,
            &format!(
                "CREATE TRIGGER stall BEFORE {event} ON onlyonce_records FOR EACH ROW SET @stall = \
                 CASE NEW.id WHEN x'{}' THEN {first} WHEN x'{slow}' THEN {second} ELSE 0 END",
                id(FIRST)
            ),
        );
        let conn = RUNTIME.block_on(Conn::from_url(server.url(&name))).unwrap();
        let store = open(&server, &name).unwrap();
        (Self { server, name, conn }, store)
    }

    fn sql(&mut self, sql: &str) {
        RUNTIME.block_on(self.conn.query_drop(sql)).unwrap();
    }

    fn hold(&mut self) {
        self.sql("DO GET_LOCK('first', 10), GET_LOCK('second', 10)");
    }

    fn until_one_waits(&self) {
        let waiting = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'";
        until("one waits", || (!self.server.sql(&self.name, waiting).is_empty()).then_some(()));
    }

    fn release(&mut self, what: &str) {
        self.sql(&format!("DO RELEASE_LOCK('{what}')"));
    }

    fn statements(&self, what: &str) -> u64 {
        let told = self.server.sql(&self.name, &format!("SHOW GLOBAL STATUS LIKE '{what}'"));
        told.split('\t').nth(1).unwrap().parse().unwrap()
    }
}

/// Puts a swap into the queue.
fn asked<'a>(
    store: &'a Mysql,
    number: u64,
    expected: Option<Revision>,
    next: Option<Record>,
) -> (u64, Told<'a>) {
    let mut swap = store.swap(id(number), expected, next);
    let polled = swap.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending));
    (number, swap)
}

fn told(swaps: Vec<(u64, Told<'_>)>) -> BTreeMap<u64, Swap> {
    swaps.into_iter().map(|(number, swap)| (number, block_on(swap).unwrap())).collect()
}

fn found(store: &Mysql, number: u64) -> Option<Record> {
    block_on(store.get(id(number))).unwrap()
}

#[test]
fn swaps_that_come_together_are_few_statements_and_each_is_told_for_itself() {
    let (mut stall, store) = Stall::at("INSERT");
    // It is not lowered by what comes after it.
    claim(&store, 9_000);
    for number in 100..300 {
        claim(&store, number);
    }
    let stale = Some(claimed(4).revision);
    let next = |number| answered(&claimed(number), 7_000, "order");
    stall.hold();
    let first = asked(&store, FIRST, None, Some(claimed(5)));
    stall.until_one_waits();
    let mut swaps = Vec::new();
    for number in 300..400 {
        swaps.push(asked(&store, number, None, Some(claimed(number))));
    }
    for number in 100..110 {
        swaps.push(asked(&store, number, None, Some(claimed(8_000))));
    }
    for number in 110..210 {
        swaps.push(asked(&store, number, Some(claimed(number).revision), Some(next(number))));
    }
    for number in 210..220 {
        swaps.push(asked(&store, number, stale, Some(next(number))));
    }
    for number in 400..405 {
        swaps.push(asked(&store, number, stale, Some(next(number))));
    }
    for number in 220..225 {
        swaps.push(asked(&store, number, Some(claimed(number).revision), None));
        swaps.push(asked(&store, number + 10, stale, None));
        swaps.push(asked(&store, number + 300, None, None));
    }
    let before = stall.statements("Com_insert");
    stall.release("first");
    assert_eq!(block_on(first.1).unwrap(), Swap::Done);
    let told = told(swaps);
    assert_eq!(stall.statements("Com_insert") - before, 2, "110 rows");
    for (number, told) in told {
        let (is, expect) = match number {
            300..400 => (Some(claimed(number)), Swap::Done),
            110..210 => (Some(next(number)), Swap::Done),
            220..225 | 520..525 => (None, Swap::Done),
            400..405 => (None, Swap::Conflict(None)),
            _ => (Some(claimed(number)), Swap::Conflict(Some(claimed(number)))),
        };
        assert_eq!(told, expect, "key {number}");
        assert_eq!(found(&store, number), is, "key {number}");
    }
    assert_eq!(block_on(store.revision_max()), Ok(claimed(9_000).revision.get()));
}

#[test]
fn a_row_that_is_to_be_changed_and_is_gone_is_not_made() {
    let (mut stall, store) = Stall::at("INSERT");
    let gone = TOGETHER.min_by_key(|&it| id(it)).unwrap();
    TOGETHER.filter(|&it| it != gone).for_each(|it| claim(&store, it));
    let next = |number: u64| answered(&claimed(number), 7_000, "order");
    stall.hold();
    let first = asked(&store, FIRST, None, Some(claimed(5)));
    stall.until_one_waits();
    let change = |it| asked(&store, it, Some(claimed(it).revision), Some(next(it)));
    let swaps = TOGETHER.map(change).collect();
    stall.release("first");
    assert_eq!(block_on(first.1).unwrap(), Swap::Done);
    stall.release("second");
    for (number, told) in told(swaps) {
        let is_gone = number == gone;
        let expect = if is_gone { Swap::Conflict(None) } else { Swap::Done };
        assert_eq!(told, expect, "key {number}");
        assert_eq!(found(&store, number), (!is_gone).then(|| next(number)), "key {number}");
    }
}

#[test]
fn a_row_of_another_revision_than_expected_is_not_changed() {
    let (mut stall, store) = Stall::at("INSERT");
    let stale = TOGETHER.max_by_key(|&it| id(it)).unwrap();
    TOGETHER.for_each(|it| claim(&store, it));
    let next = |number: u64| answered(&claimed(number), 7_000, "order");
    stall.hold();
    let first = asked(&store, FIRST, None, Some(claimed(5)));
    stall.until_one_waits();
    let expected = |it| if it == stale { claimed(it + 1).revision } else { claimed(it).revision };
    let change = |it| asked(&store, it, Some(expected(it)), Some(next(it)));
    let swaps = TOGETHER.map(change).collect();
    stall.release("first");
    assert_eq!(block_on(first.1).unwrap(), Swap::Done);
    stall.release("second");
    for (number, told) in told(swaps) {
        let is = if number == stale { claimed(number) } else { next(number) };
        let conflict = Swap::Conflict(Some(is.clone()));
        assert_eq!(told, if number == stale { conflict } else { Swap::Done }, "key {number}");
        assert_eq!(found(&store, number), Some(is), "key {number}");
    }
}

/// More than one list of ids names.
#[test]
fn each_of_many_swaps_that_do_not_take_place_is_told_what_stands_there() {
    let (mut stall, store) = Stall::at("INSERT");
    let keys = 1_000..1_600;
    let first: Vec<_> = keys.clone().map(|it| asked(&store, it, None, Some(claimed(it)))).collect();
    told(first);
    stall.hold();
    let first = asked(&store, FIRST, None, Some(claimed(5)));
    stall.until_one_waits();
    let again = keys.map(|it| asked(&store, it, None, Some(claimed(5)))).collect();
    stall.release("first");
    assert_eq!(block_on(first.1).unwrap(), Swap::Done);
    for (number, told) in told(again) {
        assert_eq!(told, Swap::Conflict(Some(claimed(number))), "key {number}");
    }
    let listed = block_on(store.list(Filter::default(), None)).unwrap();
    assert_eq!(listed.records.len(), 601);
}

#[test]
fn a_row_that_somebody_makes_in_between_is_not_told_as_ours() {
    let (mut stall, ours) = Stall::at("INSERT");
    let other = open(&stall.server, &stall.name).unwrap();
    stall.hold();
    let first = asked(&ours, FIRST, None, Some(claimed(5)));
    stall.until_one_waits();
    let swaps = TOGETHER.map(|it| asked(&ours, it, None, Some(claimed(it)))).collect();
    stall.release("first");
    assert_eq!(block_on(first.1).unwrap(), Swap::Done);
    stall.until_one_waits();
    let theirs = TOGETHER.max_by_key(|&it| id(it)).unwrap();
    let swap = other.swap(id(theirs), None, Some(claimed(50)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
    stall.release("second");
    for (number, told) in told(swaps) {
        let is_theirs = number == theirs;
        let expect = if is_theirs { Swap::Conflict(Some(claimed(50))) } else { Swap::Done };
        assert_eq!(told, expect, "key {number}");
        let is = if is_theirs { claimed(50) } else { claimed(number) };
        assert_eq!(found(&ours, number), Some(is), "key {number}");
    }
}

#[test]
fn a_row_that_comes_to_be_as_it_was_expected_is_changed_and_told_so_or_neither() {
    let (mut stall, ours) = Stall::at("UPDATE");
    let other = open(&stall.server, &stall.name).unwrap();
    let late = TOGETHER.max_by_key(|&it| id(it)).unwrap();
    TOGETHER.filter(|&it| it != late).for_each(|it| claim(&ours, it));
    claim(&ours, FIRST);
    let next = |number: u64| answered(&claimed(number), 7_000, "order");
    let change = |number| asked(&ours, number, Some(claimed(number).revision), Some(next(number)));
    stall.hold();
    let first = change(FIRST);
    stall.until_one_waits();
    let swaps = TOGETHER.map(change).collect();
    stall.release("first");
    assert_eq!(block_on(first.1).unwrap(), Swap::Done);
    stall.until_one_waits();
    // It is made while the statement waits for a row before it.
    claim(&other, late);
    stall.release("second");
    for (number, told) in told(swaps) {
        let is = found(&ours, number).unwrap();
        match told {
            Swap::Done => assert_eq!(is, next(number), "key {number}"),
            Swap::Conflict(found) => {
                assert_eq!((number, &is), (late, &claimed(late)));
                assert_eq!(found.as_ref().unwrap_or(&is), &is, "key {number}");
            }
        }
    }
}
