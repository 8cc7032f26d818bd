//! A connection that has been looked through.

use std::sync::Arc;

use onlyonce_core::Secret;
use onlyonce_store::OpenErrorKind::{Foreign, Unavailable};
use onlyonce_store::{OpenError, StoreError, Warning};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::{Address, CONNECT_MAX};
use crate::door::{self, Checked};
use crate::error::{not_applied, refused_way, text};

/// What all connections of a store have in common.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) address: Arc<Address>,
    /// As it is told to people.
    pub(crate) place: Arc<str>,
}

/// A connection that may be used.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// What begins a transaction.
    pub(crate) begin: String,
    pub(crate) secret: Secret,
    /// What the operator should know.
    pub(crate) warnings: Vec<Warning>,
}

/// Ends a transaction. Its time is not bounded, since nobody could tell then whether a standby has
/// it: the server would answer as if it had.
pub(crate) const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// What begins a transaction: its settings end with it. The isolation is the one in which a
/// conflict is seen as one.
fn begin(checked: &Checked) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = '8s'; \
         SET LOCAL synchronous_commit = {}",
        checked.synchronous_commit
    )
}

/// What drives a connection.
type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

impl Way {
    pub(crate) fn to(address: Address) -> Self {
        Self { place: address.to_string().into(), address: Arc::new(address) }
    }

    /// A new connection, not looked through.
    pub(crate) async fn connect(&self) -> Result<Client, OpenError> {
        let (client, connection) = self.reach().await?;
        // It ends with its client; what it ends with, the client's calls tell.
        drop(tokio::spawn(connection));
        Ok(client)
    }

    /// The same, and what drives it.
    pub(crate) async fn reach(&self) -> Result<(Client, Driver), OpenError> {
        let failed = |text: String| OpenError::new(Unavailable, &*self.place, text);
        let tls = self.address.tls().map_err(failed)?;
        let connecting = tokio::time::timeout(CONNECT_MAX, self.address.config().connect(tls));
        let connected = connecting.await.map_err(|_| failed("it does not answer".to_owned()))?;
        connected.map_err(|error| {
            let hint = refused_way(&error, self.address.is_encrypted());
            failed(format!("{}{hint}", text(&error)))
        })
    }

    /// A new connection to the store.
    pub(crate) async fn open(&self) -> Result<Session, OpenError> {
        let looking = async {
            let client = self.connect().await?;
            let checked = door::check(&client, self).await?;
            let begin = begin(&checked);
            let Checked { secret, warnings, .. } = checked;
            Ok(Session { client, begin, secret, warnings })
        };
        let late = |_| OpenError::new(Unavailable, &*self.place, "it does not answer in time");
        tokio::time::timeout(2 * CONNECT_MAX, looking).await.map_err(late)?
    }

    /// A new connection to the store that has this secret.
    pub(crate) async fn reopen(&self, secret: &Secret) -> Result<Session, StoreError> {
        let opened = self.open().await.and_then(|session| {
            if session.secret == *secret {
                return Ok(session);
            }
            Err(OpenError::new(Foreign, &*self.place, "another store is there by now"))
        });
        opened.map_err(|error| not_applied("the store", &error.to_string()))
    }
}
