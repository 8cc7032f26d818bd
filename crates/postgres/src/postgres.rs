//! The database as a store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use onlyonce_core::{Floor, KeyId, Record, Revision, Secret, StateKind, Timestamp};
use onlyonce_store::{
    BoxFuture, Cursor, Due, Filter, OpenError, OpenErrorKind, Page, Row, Store, StoreError, Swap,
    Teller, Warning, row,
};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::sync::mpsc::unbounded_channel;
use tokio_postgres::types::Type;

use crate::address::Address;
use crate::door;
use crate::error::{not_applied, of_statement, text, unknown};
use crate::notice;
use crate::others::Others;
use crate::queue::{Ask, Queue};
use crate::reader::Reader;
use crate::schema;
use crate::session::{COMMIT, Way};
use crate::transaction::Transactions;
use crate::writer::Writer;

/// The largest reply that is kept, in bytes.
pub(crate) const REPLY_MAX: usize = 16 << 20;
/// How long raising the floor may take.
const FLOOR_MAX: Duration = Duration::from_secs(20);

/// Records in a database, for all processes that can reach it. Cheap to clone; all clones are one.
///
/// It is a [`Store`]: a swap returns once the server has confirmed it. Its work is done on the
/// tokio runtime that it was opened on; it may be awaited anywhere.
#[derive(Clone)]
pub struct Postgres {
    runtime: Handle,
    way: Way,
    queue: Queue,
    reader: Arc<Reader>,
    secret: Secret,
    warnings: Arc<[Warning]>,
    others: Arc<Others>,
}

impl Postgres {
    /// Makes a new store with a new secret in a schema `onlyonce` of the database. Keys with a
    /// time below `floor` are refused; [`Floor::NONE`] if there was never a store before.
    ///
    /// # Errors
    /// There is one already, a setting would break what a store promises, or the server refuses.
    pub async fn init(address: Address, floor: Floor) -> Result<(), OpenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| {
            let text = format!("no random numbers: {error}");
            OpenError::new(OpenErrorKind::Unavailable, address.to_string(), text)
        })?;
        Self::init_with(address, floor, &Secret::from_bytes(secret)).await
    }

    /// The same with this secret, which is that of the store whose records are to be moved here:
    /// key ids are made with it.
    ///
    /// # Errors
    /// As [`Postgres::init`].
    pub async fn init_with(
        address: Address,
        floor: Floor,
        secret: &Secret,
    ) -> Result<(), OpenError> {
        let way = Way::to(address);
        let mut client = way.connect().await?;
        door::init(&mut client, &way, secret.as_bytes(), floor).await
    }

    /// Makes in a store what [`Transactions`] and the functions for other languages need, or makes
    /// the functions anew. A new store has them; the address is that of its owner.
    ///
    /// # Errors
    /// As [`Postgres::open`], or the server refuses.
    pub async fn install_functions(address: Address) -> Result<(), OpenError> {
        let way = Way::to(address);
        let mut client = way.connect().await?;
        door::install(&mut client, &way).await
    }

    /// Opens the store in the database, also while other processes have it.
    ///
    /// # Errors
    /// There is none, it is a newer program's, the server cannot be reached, or a setting would
    /// break what a store promises: the error names it.
    pub async fn open(address: Address) -> Result<Self, OpenError> {
        let (way, runtime) = (Way::to(address), Handle::current());
        let mut session = way.open().await?;
        let warnings = std::mem::take(&mut session.warnings).into();
        let secret = session.secret.clone();
        let mut slot = [0; 1];
        getrandom::fill(&mut slot).map_err(|error| {
            let text = format!("no random numbers: {error}");
            OpenError::new(OpenErrorKind::Unavailable, &*way.place, text)
        })?;
        let (sender, ops) = unbounded_channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let others = Arc::new(Others::default());
        let writer = Writer {
            way: way.clone(),
            secret: secret.clone(),
            slot: i16::from(slot[0]) % schema::SLOTS,
            ops,
            waiting: Arc::clone(&waiting),
            session: Some(session),
            later: VecDeque::new(),
            aside: Arc::default(),
            others: Arc::clone(&others),
        };
        drop(runtime.spawn(writer.run()));
        let reader = Reader { way: way.clone(), secret: secret.clone(), session: Mutex::new(None) };
        let queue = Queue { ops: sender, bytes: waiting };
        Ok(Self { runtime, way, queue, reader: Arc::new(reader), secret, warnings, others })
    }

    /// The store's secret.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What the operator should know of it: risks that were accepted.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What claims and completes in transactions of the caller's own, on the same database.
    pub fn transactions(&self) -> Transactions {
        Transactions::new(&self.way.place, &self.secret)
    }

    /// How many keys have a record in this state. Reads the index of all that it counts.
    ///
    /// # Errors
    /// The server does not say.
    pub async fn count(&self, state: StateKind) -> Result<u64, StoreError> {
        let reader = Arc::clone(&self.reader);
        let count = self.there(async move {
            reader.number(schema::COUNT_STATE, &[(&(state as i16), Type::INT2)]).await
        });
        Ok(u64::try_from(count.await?).unwrap_or_default())
    }

    /// Does a read on the runtime, whoever waits for it.
    async fn there<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.runtime.spawn(work).await.unwrap_or_else(|error| {
            let place = &self.way.place;
            Err(not_applied(place, &format!("the runtime has ended: {error}")))
        })
    }

    async fn swap_now(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Swap, StoreError> {
        if let Some(next) = &next {
            assert!(expected < Some(next.revision), "a write must raise the revision");
        }
        // No row has a revision above what can be counted, so such a swap is in conflict.
        let expected = expected.map(|revision| i64::try_from(revision.get()).unwrap_or(i64::MAX));
        let next = next.map(|record| Row::of(id, &record)).transpose()?;
        let told = self.queue.ask(&self.way.place, Ask { id, expected, next })?;
        let lost = |_| Err(unknown(&self.way.place, "the store was closed meanwhile"));
        told.await.unwrap_or_else(lost)
    }
}

/// In a transaction of its own, with the settings of all writes.
async fn raise_floor(reader: &Reader, to: Floor) -> Result<(), StoreError> {
    let place = &reader.way.place;
    let session = reader.way.reopen(&reader.secret).await?;
    let client = &session.client;
    let lost = |error| unknown(place, &text(&error));
    client.batch_execute(&session.begin).await.map_err(lost)?;
    let to = row::millis(to.time());
    let raised = client.query_typed(schema::RAISE_FLOOR, &[(&to, Type::INT8)]).await;
    raised.map_err(|error| of_statement(place, &error))?;
    client.batch_execute(COMMIT).await.map_err(lost)
}

impl Store for Postgres {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move { reader.get(id).await }))
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(self.swap_now(id, expected, next))
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let floor = reader.number(schema::FLOOR, &[]).await?;
            Ok(Floor::at(row::timestamp(floor)))
        }))
    }

    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let now = reader.number(schema::CLOCK, &[]).await?;
            Ok(Some(row::timestamp(now)))
        }))
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let raising = tokio::time::timeout(FLOOR_MAX, raise_floor(&reader, to));
            let late = |_| unknown(&reader.way.place, "it does not answer");
            raising.await.map_err(late)?
        }))
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let revision = reader.number(schema::REVISION_MAX, &[]).await?;
            Ok(u64::try_from(revision).unwrap_or_default())
        }))
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move { reader.due(due, limit).await }))
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move { reader.page(filter, after).await }))
    }

    fn notices(&self, teller: Teller) {
        let telling = notice::run(self.way.clone(), Arc::clone(&self.others), teller);
        drop(self.runtime.spawn(telling));
    }

    fn reply_max(&self) -> usize {
        REPLY_MAX
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}
