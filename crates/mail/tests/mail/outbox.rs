//! Rows of an outbox on their way to the spool and back, where each call of the table may be lost,
//! or its answer, and each sender may be the last one that did anything.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce_core::{Reply, Timestamp, Verdict};
use onlyonce_mail::{Became, Feed, Rules, Shelf};
use onlyonce_store::outbox::{Counted, Outbox, Posted, Told};
use onlyonce_store::{BoxFuture, StoreError, StoreErrorKind};

use crate::{ANN, Shop, TEXT};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Done,
    Lost,
    /// It is carried out, and its answer is lost.
    Unanswered,
}

#[derive(Clone, Debug)]
struct Row {
    posted: Posted,
    is_ours: bool,
    told: Option<Told>,
}

/// A table in memory, whose calls are decided about one by one.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<Vec<Row>>>,
    fates: Arc<Mutex<Vec<Call>>>,
    /// More rows than this do not come in time; zero is no limit.
    large: usize,
}

impl Table {
    fn with(to: &[&str]) -> Self {
        let table = Self::default();
        for (number, to) in (1..).zip(to) {
            let message = TEXT.to_vec();
            let (key, sender) = ("welcome".to_owned(), "shop@shop.example".to_owned());
            let (posted, taken) = (Timestamp::from_millis(1_764_000_000_000), Timestamp::default());
            let recipient = (*to).to_owned();
            let is_unknown = false;
            let posted =
                Posted { number, key, sender, recipient, message, posted, taken, is_unknown };
            table.rows.lock().unwrap().push(Row { posted, is_ours: false, told: None });
        }
        table
    }

    /// The fates of the calls to come; those after them are done.
    fn fates(&self, fates: &[Call]) {
        *self.fates.lock().unwrap() = fates.iter().rev().copied().collect();
    }

    /// A call that is given up once more rows would come than can.
    fn page(
        &self,
        does: impl FnOnce(&mut Vec<Row>) -> Vec<Posted>,
    ) -> Result<Vec<Posted>, StoreError> {
        let page = self.call(does)?;
        let comes = self.large == 0 || page.len() <= self.large;
        comes.then_some(page).ok_or_else(|| StoreError::new(StoreErrorKind::Unknown, "too late"))
    }

    fn call<T>(&self, does: impl FnOnce(&mut Vec<Row>) -> T) -> Result<T, StoreError> {
        let fate = self.fates.lock().unwrap().pop().unwrap_or(Call::Done);
        let lost = || StoreError::new(StoreErrorKind::Unknown, "nobody answers");
        if fate == Call::Lost {
            return Err(lost());
        }
        let done = does(&mut self.rows.lock().unwrap());
        if fate == Call::Done { Ok(done) } else { Err(lost()) }
    }

    fn told(&self) -> Vec<Option<Told>> {
        self.rows.lock().unwrap().iter().map(|it| it.told).collect()
    }
}

fn has_ended(row: &Row) -> bool {
    matches!(row.told, Some(Told::Sent | Told::Refused))
}

impl Outbox for Table {
    fn take(&self, now: Timestamp, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>> {
        let taken = self.page(|rows| {
            let waiting = rows.iter_mut().filter(|it| !it.is_ours).take(most);
            let take = |row: &mut Row| {
                row.is_ours = true;
                row.posted.taken = now;
                row.posted.clone()
            };
            waiting.map(take).collect()
        });
        Box::pin(std::future::ready(taken))
    }

    fn ours(&self, after: i64, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>> {
        let ours = self.page(|rows| {
            let is_asked = |row: &&Row| row.is_ours && !has_ended(row) && after < row.posted.number;
            let posted = |it: &Row| {
                let is_unknown = it.told == Some(Told::Unknown);
                Posted { is_unknown, ..it.posted.clone() }
            };
            rows.iter().filter(is_asked).take(most).map(posted).collect()
        });
        Box::pin(std::future::ready(ours))
    }

    fn tell<'a>(
        &'a self,
        number: i64,
        told: Told,
        _said: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let done = self.call(|rows| {
            let row = rows.iter_mut().find(|it| it.posted.number == number).unwrap();
            if !has_ended(row) {
                row.told = Some(told);
            }
        });
        Box::pin(std::future::ready(done))
    }

    fn counts(&self) -> BoxFuture<'_, Result<Vec<Counted>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

impl Shop {
    fn feed(&self, table: &Table) -> Feed {
        let (spool, engine) = (self.spool.clone(), self.engine.clone());
        Feed::new(Box::new(table.clone()), spool, engine, crate::secret())
    }

    /// What a sender does that brings rows, sends once, and tells the rows.
    async fn feeds(&self, table: &Table) -> bool {
        let mut feed = self.feed(table);
        let filled = feed.fill(self.engine.now()).await.is_ok();
        let names = self.spool.names(Shelf::Queue).unwrap();
        let to = |name: &String| self.spool.read(Shelf::Queue, name).unwrap().to().to_string();
        let names: Vec<_> = names.iter().map(|name| (name.clone(), to(name))).collect();
        let became = self.run().await;
        for (name, to) in names {
            feed.became(&name, &became[&to]);
        }
        filled && feed.write().await.is_ok()
    }
}

/// Wherever a sender ends, the next one goes on: each row has one message.
#[tokio::test]
async fn a_row_is_sent_once_whichever_call_of_its_table_is_lost() {
    const ALL: [&str; 3] = [ANN, "bob@mail.example", "carl@mail.example"];
    for at in 0..6 {
        for fate in [Call::Lost, Call::Unanswered] {
            let (shop, table) = (Shop::open(false).await, Table::with(&ALL));
            let mut fates = vec![Call::Done; at];
            // From there on nothing is answered, until there is another sender.
            fates.extend([fate; 20]);
            table.fates(&fates);
            shop.feeds(&table).await;
            table.fates(&[]);
            assert!(shop.feeds(&table).await, "{fate:?} at call {at}");
            assert_eq!(table.told(), [Some(Told::Sent); 3], "{fate:?} at call {at}");
            assert_eq!(shop.server.all_ended(), 3, "{fate:?} at call {at}");
        }
    }
}

/// A file of the spool was damaged: its row waits for a person, and the others do not.
#[tokio::test]
async fn a_row_whose_file_is_damaged_holds_up_no_other() {
    const ALL: [&str; 3] = ["bob@mail.example", ANN, "carl@mail.example"];
    let (shop, table) = (Shop::open(false).await, Table::with(&ALL));
    let mut feed = shop.feed(&table);
    table.rows.lock().unwrap().truncate(1);
    feed.fill(shop.engine.now()).await.unwrap();
    let [name] = &shop.spool.names(Shelf::Queue).unwrap()[..] else { panic!() };
    let path = shop.dir.path().join("queue").join(name);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    table.rows.lock().unwrap().extend(Table::with(&ALL).rows.lock().unwrap().drain(1..));
    // Also by a sender that begins: to it the row is one that was taken and may not be there.
    let mut feed = shop.feed(&table);
    for _ in 0..2 {
        let error = feed.fill(shop.engine.now()).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("row 1"), "{error}");
        assert_eq!(shop.count(Shelf::Queue), 3, "the others are there");
    }
    std::fs::write(&path, &whole).unwrap();
    feed.fill(shop.engine.now()).await.unwrap();
    assert!(shop.feeds(&table).await);
    assert_eq!((table.told(), shop.server.all_ended()), (vec![Some(Told::Sent); 3], 3));
}

/// Rows that were taken by such a call are ours, and come in smaller parts too.
#[tokio::test]
async fn messages_that_are_too_large_to_come_together_come_one_by_one() {
    let all: Vec<String> = (1..=30).map(|it| format!("r{it}@mail.example")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for large in [1, 3] {
        let shop = Shop::open(false).await;
        let table = Table { large, ..Table::with(&all) };
        let mut feed = shop.feed(&table);
        let mut failed = 0;
        while feed.fill(shop.engine.now()).await.is_err() {
            failed += 1;
            assert!(failed < 20, "it never ends");
        }
        assert!(0 < failed);
        assert_eq!(shop.count(Shelf::Queue), 30);
    }
}

/// One sender whose table comes and goes.
#[tokio::test]
async fn a_row_that_was_taken_by_an_unanswered_call_is_brought_by_the_same_sender() {
    let (shop, table) = (Shop::open(false).await, Table::with(&[ANN]));
    let mut feed = shop.feed(&table);
    table.fates(&[Call::Done, Call::Unanswered]);
    assert!(feed.fill(shop.engine.now()).await.is_err());
    assert_eq!(shop.count(Shelf::Queue), 0);
    feed.fill(shop.engine.now()).await.unwrap();
    assert_eq!(shop.count(Shelf::Queue), 1);
}

#[tokio::test]
async fn a_row_is_told_of_a_doubt_and_of_its_end() {
    let (shop, table) = (Shop::open(false).await, Table::with(&[ANN]));
    shop.server.manner(crate::unlike(crate::At::End, crate::Does::Closes));
    assert!(shop.feeds(&table).await);
    assert_eq!(table.told(), [Some(Told::Unknown)]);
    // The person who looked says that it was not sent.
    let [name] = &shop.spool.names(Shelf::Queue).unwrap()[..] else { panic!() };
    shop.says(Verdict::NotExecuted).await;
    shop.server.manner(|_, _| crate::Does::Usual);
    assert!(shop.feeds(&table).await);
    assert_eq!((table.told(), shop.server.all_ended()), (vec![Some(Told::Sent)], 2));
    // What a late word of another sender says changes nothing.
    let mut feed = shop.feed(&table);
    feed.became(name, &Became::Unknown("late".into()));
    feed.write().await.unwrap();
    assert_eq!(table.told(), [Some(Told::Sent)]);
}

/// The next attempt may be an hour away, or be refused for now: the row says what is true before.
#[tokio::test]
async fn a_row_that_nobody_knew_of_is_told_that_this_is_over() {
    let reply = Reply::kept(250, "found in the queue");
    for (verdict, told) in [
        (Verdict::NotExecuted, Told::Taken),
        (Verdict::RunAgain, Told::Taken),
        (Verdict::Happened(reply), Told::Sent),
    ] {
        for is_new in [false, true] {
            let (shop, table) = (Shop::open(false).await, Table::with(&[ANN]));
            let mut feed = shop.feed(&table);
            feed.fill(shop.engine.now()).await.unwrap();
            shop.server.manner(crate::unlike(crate::At::End, crate::Does::Closes));
            let [name] = &shop.spool.names(Shelf::Queue).unwrap()[..] else { panic!() };
            feed.became(name, &shop.run().await[ANN]);
            for _ in 0..2 {
                feed.fill(shop.engine.now()).await.unwrap();
                assert_eq!(table.told(), [Some(Told::Unknown)], "{verdict:?}: nobody knows yet");
            }
            shop.says(verdict.clone()).await;
            if is_new {
                feed = shop.feed(&table);
            }
            feed.fill(shop.engine.now()).await.unwrap();
            assert_eq!(table.told(), [Some(told)], "{verdict:?}, by another sender: {is_new}");
            // The next attempt makes a doubt of its own, which is told too.
            feed.became(name, &shop.run().await[ANN]);
            feed.fill(shop.engine.now()).await.unwrap();
            let next = if told == Told::Taken { Told::Unknown } else { told };
            assert_eq!(table.told(), [Some(next)], "{verdict:?}");
        }
    }
}

/// However many there are of which nobody knows still, each of the others has its turn.
#[tokio::test]
async fn of_many_rows_that_nobody_knew_of_each_is_told() {
    let all: Vec<String> = (0..310).map(|it| format!("r{it}@mail.example")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (shop, table) = (Shop::open(false).await, Table::with(&all));
    let mut feed = shop.feed(&table);
    feed.fill(shop.engine.now()).await.unwrap();
    for name in shop.spool.names(Shelf::Queue).unwrap() {
        feed.became(&name, &Became::Unknown("nobody knows".into()));
    }
    // Ten of them go on, as if a person had said so.
    let mut lost = crate::unlike(crate::At::End, crate::Does::Closes);
    shop.server.manner(move |at, to| {
        let goes_on = at == crate::At::Rcpt && to.len() == ANN.len() - 1;
        if goes_on { crate::Does::Says("451 4.3.0 later") } else { lost(at, to) }
    });
    shop.run().await;
    for _ in 0..2 {
        feed.fill(shop.engine.now()).await.unwrap();
    }
    let told = table.told();
    assert!(told[..10].iter().all(|it| *it == Some(Told::Taken)), "{told:?}");
    assert!(told[10..].iter().all(|it| *it == Some(Told::Unknown)), "{told:?}");
}

/// A code for a login is worth nothing after ten minutes, whether a sender ran meanwhile or not.
#[tokio::test]
async fn a_row_is_tried_for_as_long_as_was_allowed_from_when_it_was_written() {
    let hour = Some(Duration::from_secs(60 * 60));
    let rules = Rules { try_for: hour, ..Rules::default() };
    let shop = Shop { rules, ..Shop::open(false).await };
    let table = Table::with(&[ANN, "bob@mail.example"]);
    table.rows.lock().unwrap()[1].posted.posted = shop.engine.now();
    assert!(shop.feeds(&table).await);
    assert_eq!(table.told(), [Some(Told::Refused), Some(Told::Sent)]);
    assert_eq!((shop.server.ended(ANN).len(), shop.server.all_ended()), (0, 1));
    // A database whose clock is ahead makes nobody try for longer.
    let over = Rules { try_for: Some(Duration::ZERO), ..Rules::default() };
    let (shop, table) = (Shop { rules: over, ..shop }, Table::with(&["carl@mail.example"]));
    table.rows.lock().unwrap()[0].posted.posted = shop.engine.now().plus(Duration::from_secs(9));
    assert!(shop.feeds(&table).await);
    assert_eq!((table.told(), shop.server.all_ended()), (vec![Some(Told::Refused)], 1));
}

/// What was sent before its store was made anew may have been sent: it is not sent again.
#[tokio::test]
async fn a_row_that_was_taken_before_the_store_was_made_is_not_sent() {
    let (shop, table) = (Shop::open(false).await, Table::with(&[ANN]));
    table.take(Timestamp::from_millis(1), 1).await.unwrap();
    let store = Arc::new(onlyonce_store::MemoryStore::new());
    let floor = onlyonce_core::Floor::at(shop.engine.now());
    onlyonce_store::Store::raise_floor(&*store, floor).await.unwrap();
    let runtime = Arc::new(onlyonce_tokio::TokioRuntime::new());
    let settings = onlyonce::Settings::default();
    let engine = onlyonce::Engine::start(store, runtime, settings, None).await.unwrap();
    let shop = Shop { engine, ..shop };
    assert!(shop.feeds(&table).await);
    assert_eq!((table.told(), shop.server.all_ended()), (vec![Some(Told::Unknown)], 0));
    // One that nobody had taken can be sent, however old it is.
    let fresh = Table::with(&["bob@mail.example"]);
    while shop.engine.now() <= floor.time() {
        tokio::task::yield_now().await;
    }
    assert!(shop.feeds(&fresh).await);
    assert_eq!((fresh.told(), shop.server.all_ended()), (vec![Some(Told::Sent)], 1));
}
