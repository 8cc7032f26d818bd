//! The stock and its reservations, each with the confirmation that was given for it.

use std::time::Duration;

use onlyonce::Ran;
use onlyonce_consume::{Message, later, never};
use onlyonce_core::{Cause, Reply};
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

/// The stock in a database.
pub(crate) struct Stock {
    config: Config,
}

/// How far a reservation got.
enum Reserved {
    /// Committed, or found: this is its confirmation.
    Confirmed(String),
    SoldOut,
}

/// Why it did not get there.
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

impl Stock {
    pub(crate) fn new(url: &str) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { config: url.parse()? })
    }

    /// Reserves what a message asks for, and confirms it.
    pub(crate) async fn reserve(&self, message: &Message) -> Ran {
        let Ok(order) = serde_json::from_slice::<Order>(&message.body) else {
            return never("it is no order");
        };
        if message.id.as_ref() != Some(&order.order) || order.quantity < 1 {
            return never("its number or its quantity is none");
        }
        match timeout(PATIENCE, self.reserved(&order)).await {
            Ok(Ok(Reserved::Confirmed(text))) => Ran::Happened(Reply::kept(CONFIRMED, text)),
            Ok(Ok(Reserved::SoldOut)) => Ran::Happened(Reply::kept(SOLD_OUT, "sold out")),
            Ok(Err(Failed::Before(why))) => later(why),
            Ok(Err(Failed::Committing)) => Ran::CannotTell(Cause::ConnectionLost),
            Err(_) => Ran::CannotTell(Cause::TimedOut),
        }
    }

    /// A connection for each order is slow and simple: what it leaves behind ends with it.
    async fn reserved(&self, order: &Order) -> Result<Reserved, Failed> {
        let (mut client, connection) = self.config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let reserved = in_transaction(&mut client, order).await;
        drop(client);
        let _ = connection.await;
        reserved
    }
}

/// Stock and reservation change together; whoever reserves again finds the first confirmation.
async fn in_transaction(client: &mut Client, order: &Order) -> Result<Reserved, Failed> {
    let transaction = client.transaction().await?;
    let Order { order, item, quantity } = order;
    let insert = "INSERT INTO reservations (number, item, quantity, confirmation) \
                  VALUES ($1, $2, $3, gen_random_uuid()::text) \
                  ON CONFLICT (number) DO NOTHING RETURNING confirmation";
    let Some(row) = transaction.query_opt(insert, &[order, item, quantity]).await? else {
        let found = "SELECT confirmation FROM reservations WHERE number = $1";
        let row = transaction.query_one(found, &[order]).await?;
        return Ok(Reserved::Confirmed(confirmation(order, row.get(0))));
    };
    let confirmed = confirmation(order, row.get(0));
    let take = "UPDATE stock SET free = free - $2 WHERE item = $1 AND free >= $2";
    if transaction.execute(take, &[item, quantity]).await? == 0 {
        // The reservation goes with the transaction.
        return Ok(Reserved::SoldOut);
    }
    transaction.commit().await.map_err(|_| Failed::Committing)?;
    Ok(Reserved::Confirmed(confirmed))
}

fn confirmation(order: &str, number: &str) -> String {
    serde_json::json!({ "order": order, "confirmation": number }).to_string()
}
