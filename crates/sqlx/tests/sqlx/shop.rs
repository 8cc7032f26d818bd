//! A shop whose orders and records are in one database, and whose customers call by sqlx: at our
//! door, and at that of the store's own crate.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use onlyonce_core::Timestamp;
use onlyonce_sqlx::Refused;
use tokio::runtime::Runtime;

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

static ORDERS: AtomicU64 = AtomicU64::new(0);

#[allow(clippy::disallowed_methods, reason = "a test's clock")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

/// An answer that is another each time.
pub(crate) fn content(key: &str) -> String {
    format!("{key}, {}", ORDERS.fetch_add(1, Ordering::SeqCst))
}

/// The name of an outcome, as SQL tells it.
pub(crate) fn name(refused: &Refused) -> &'static str {
    match refused {
        Refused::InFlight { .. } => "in-flight",
        Refused::Mismatch => "mismatch",
        Refused::OutcomeUnknown { .. } => "outcome-unknown",
        Refused::Gone { .. } => "gone",
        Refused::Expired => "expired",
    }
}

/// What every shop does in a transaction, whatever the database. `$self` has `begin`, which begins
/// one on a connection, at a level; `$connect` makes a connection.
macro_rules! shop {
    ($shop:ty, $db:ty, $levels:expr) => {
        impl $shop {
            /// Orders once, on this connection.
            pub(crate) async fn ask(
                conn: &mut <$db as sqlx::Database>::Connection,
                ask: Ask<'_>,
            ) -> Result<Told, TxError> {
                let (scope, key) =
                    (Scope::new(SCOPE).unwrap(), Key::new(ask.key.to_owned()).unwrap());
                let content = ask.content.as_bytes();
                let request = Request { scope: &scope, key: &key, content };
                let mut tx =
                    Self::begin(conn, $levels[ask.level]).await.map_err(|it| failed(&it))?;
                let told = match claim(&mut tx, request, &ask.policy).await? {
                    Claimed::Granted(granted) => {
                        write(&mut tx, "orders", ask.key).await?;
                        let content = shop::content(ask.key);
                        if ask.end != End::CommitHalf {
                            let reply = Reply::kept(201, content.clone());
                            granted.complete(&mut tx, &reply).await?;
                        }
                        Told::Ran(content)
                    }
                    Claimed::Replay(reply) => {
                        let content = reply.content().unwrap().to_vec();
                        Told::Replayed(String::from_utf8(content).unwrap())
                    }
                    Claimed::Refused(why) => Told::Refused(shop::name(&why).to_owned()),
                };
                write(&mut tx, "visits", ask.key).await?;
                if ask.end == End::RollBack {
                    return tx.rollback().await.map(|()| told).map_err(|error| failed(&error));
                }
                commit(tx).await?;
                Ok(told)
            }
        }

        async fn write(
            tx: &mut Transaction<'_, $db>,
            table: &str,
            key: &str,
        ) -> Result<(), TxError> {
            let insert = AssertSqlSafe(format!("INSERT INTO {table} VALUES ('{key}')"));
            let written = sqlx::raw_sql(insert).execute(&mut **tx).await;
            written.map(drop).map_err(|error| failed(&error))
        }

        impl transactions::Shop for $shop {
            fn store(&self) -> &dyn Store {
                &self.store
            }

            fn secret(&self) -> &Secret {
                self.store.secret()
            }

            fn now(&self) -> Timestamp {
                shop::now()
            }

            fn doors(&self) -> usize {
                1
            }

            fn levels(&self) -> usize {
                $levels.len()
            }

            fn sees_what_is_not_committed(&self, level: usize) -> bool {
                $levels[level] == "READ UNCOMMITTED"
            }

            async fn order(&self, ask: Ask<'_>) -> Result<Told, TxError> {
                let mut conn = self.connect().await.map_err(|error| failed(&error))?;
                let told = Self::ask(&mut conn, ask).await;
                conn.close().await.unwrap();
                told
            }

            async fn complete(&self, _: usize, key: &str, fence: Fence) -> Result<(), TxError> {
                let mut conn = self.connect().await.map_err(|error| failed(&error))?;
                let mut tx = Self::begin(&mut conn, $levels[0]).await.unwrap();
                write(&mut tx, "orders", key).await?;
                let (scope, reply) = (Scope::new(SCOPE).unwrap(), Reply::kept(201, "done"));
                let (key, policy) = (Key::new(key.to_owned()).unwrap(), Policy::default());
                let fence = i64::try_from(fence.get()).unwrap();
                complete(&mut tx, &scope, &key, fence, &reply, &policy).await?;
                commit(tx).await
            }

            async fn pause(&self, tries: u32) {
                tokio::time::sleep(Duration::from_millis(5) * tries.min(40)).await;
            }

            fn counts(&self) -> Counts {
                let count = |table: &str| {
                    self.sql(&format!("SELECT count(*) FROM {table}")).parse().unwrap()
                };
                let records = count(&format!("{} WHERE state = 3", Self::RECORDS));
                Counts { orders: count("orders"), records, visits: count("visits") }
            }
        }
    };
}

pub(crate) use shop;
