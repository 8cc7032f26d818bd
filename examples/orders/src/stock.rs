//! The stock and its reservations. A reservation, its confirmation and the record that the order is
//! answered are one transaction: they are there together, or none of them is.

use std::time::Duration;

use onlyonce::{Attempt, Ran};
use onlyonce_consume::{Inbox, Message, later, never};
use onlyonce_core::{Cause, Key, Policy, Reply};
use onlyonce_postgres::{Transactions, TxError};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

/// How long the database may take for an order.
const PATIENCE: Duration = Duration::from_secs(5);
/// Confirmed, and sold out.
const CONFIRMED: u16 = 201;
const SOLD_OUT: u16 = 409;

/// What an order asks for.
#[derive(Deserialize)]
struct Order {
    order: String,
    item: String,
    quantity: i32,
}

/// The stock in a database, which is that of the records too.
pub(crate) struct Stock {
    config: Config,
    once: Transactions,
    inbox: Inbox,
    policy: Policy,
}

/// Why there is no answer, or none that is known.
enum Failed {
    /// Nothing was committed.
    Before(String),
    /// The database was asked to commit, and has not answered.
    Committing,
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Before(error.to_string())
    }
}

impl From<TxError> for Failed {
    fn from(error: TxError) -> Self {
        if error.may_have_happened() { Self::Committing } else { Self::Before(error.to_string()) }
    }
}

impl Stock {
    pub(crate) fn new(
        url: &str,
        once: Transactions,
        inbox: Inbox,
        policy: Policy,
    ) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { config: url.parse()?, once, inbox, policy })
    }

    /// Reserves what a message asks for, and confirms it, under the claim of this attempt.
    pub(crate) async fn reserve(&self, message: &Message, attempt: Attempt) -> Ran {
        let Ok(order) = serde_json::from_slice::<Order>(&message.body) else {
            return never("it is no order");
        };
        if message.id.as_ref() != Some(&order.order) || order.quantity < 1 {
            return never("its number or its quantity is none");
        }
        let Ok(key) = Key::new(order.order.clone()) else { return never("its number is no key") };
        match timeout(PATIENCE, self.reserved(&order, &key, attempt)).await {
            Ok(Ok(reply)) => Ran::Happened(reply),
            Ok(Err(Failed::Before(why))) => later(why),
            Ok(Err(Failed::Committing)) => Ran::CannotTell(Cause::ConnectionLost),
            Err(_) => Ran::CannotTell(Cause::TimedOut),
        }
    }

    /// A connection for each order is slow and simple: what it leaves behind ends with it.
    async fn reserved(&self, order: &Order, key: &Key, attempt: Attempt) -> Result<Reply, Failed> {
        let (mut client, connection) = self.config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let reserved = self.in_transaction(&mut client, order, key, attempt).await;
        drop(client);
        let _ = connection.await;
        reserved
    }

    /// Should an attempt be late, because another one was granted meanwhile, its completion does
    /// not count, and its reservation goes with it.
    async fn in_transaction(
        &self,
        client: &mut Client,
        order: &Order,
        key: &Key,
        attempt: Attempt,
    ) -> Result<Reply, Failed> {
        let tx = client.transaction().await?;
        let Order { order, item, quantity } = order;
        let take = "UPDATE stock SET free = free - $2 WHERE item = $1 AND free >= $2";
        let reply = if tx.execute(take, &[item, quantity]).await? == 0 {
            Reply::kept(SOLD_OUT, "sold out")
        } else {
            let insert = "INSERT INTO reservations (number, item, quantity, confirmation) \
                          VALUES ($1, $2, $3, gen_random_uuid()::text) RETURNING confirmation";
            let row = tx.query_one(insert, &[order, item, quantity]).await?;
            Reply::kept(CONFIRMED, confirmation(order, row.get(0)))
        };
        let id = self.inbox.id(key);
        self.once.complete(&tx, id, attempt.fence, reply.clone(), &self.policy).await?;
        self.once.commit(tx).await?;
        Ok(reply)
    }
}

fn confirmation(order: &str, number: &str) -> String {
    serde_json::json!({ "order": order, "confirmation": number }).to_string()
}
