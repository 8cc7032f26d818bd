//! A server, and the few connections to it that calls share.

use std::sync::Arc;
use std::time::Duration;

use onlyonce_store::{Check, OpenError, OpenErrorKind};
use redis::aio::PubSub;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    TlsCertificates,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::link::Link;
use crate::target::Target;

/// Connections to one server. Calls on one of them go out together and are answered in order, so
/// one would do; the answers of a server that syncs are fastest with some.
const LINKS: usize = 4;
/// For how long a server that was not reached is not tried again: calls that wait for one
/// connection would otherwise each wait for a failure of their own.
const PAUSE: Duration = Duration::from_millis(200);

/// Where a server is.
pub(crate) type Address = (String, u16);

/// A server.
pub(crate) struct Server {
    pub(crate) address: Address,
    place: String,
    client: Client,
    target: Arc<Target>,
    slots: [Mutex<Slot>; LINKS],
}

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Open(Arc<Link>),
    Failed(Instant, OpenError),
}

impl Server {
    pub(crate) fn new(address: Address, target: &Arc<Target>) -> Result<Self, OpenError> {
        let (host, port) = &address;
        let place = format!("redis {host}:{port}");
        let client = client(host, *port, target, &place)?;
        let target = Arc::clone(target);
        Ok(Self { address, place, client, target, slots: Default::default() })
    }

    /// A connection for this bucket; always the same one as long as it holds, so that the calls
    /// for a key stay in order.
    ///
    /// # Errors
    /// The server cannot be reached, or is not what it must be.
    pub(crate) async fn link(&self, bucket: u8) -> Result<Arc<Link>, OpenError> {
        let mut slot = self.slots[usize::from(bucket) % LINKS].lock().await;
        match &*slot {
            Slot::Open(link) if !link.is_broken() => {
                if link.is_stale() {
                    let (link, target) = (Arc::clone(link), Arc::clone(&self.target));
                    tokio::spawn(async move { link.look_again(&target).await });
                }
                return Ok(Arc::clone(link));
            }
            Slot::Failed(at, error) if at.elapsed() < PAUSE => return Err(error.clone()),
            Slot::Open(_) | Slot::Failed(..) | Slot::Empty => {}
        }
        match Link::open(&self.client, &self.place, &self.target).await {
            Ok(link) => {
                let link = Arc::new(link);
                *slot = Slot::Open(Arc::clone(&link));
                Ok(link)
            }
            Err(error) => {
                *slot = Slot::Failed(Instant::now(), error.clone());
                Err(error)
            }
        }
    }

    /// Which server it is, as it is told to people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// A connection of its own for what is published.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn subscriber(&self) -> Result<PubSub, OpenError> {
        let opened = self.client.get_async_pubsub().await;
        opened.map_err(|error| {
            OpenError::new(OpenErrorKind::Unavailable, &*self.place, error.to_string())
        })
    }

    /// Everything that is looked at when a connection is opened, each with what was found.
    pub(crate) async fn doctor(&self) -> Vec<Check> {
        Link::doctor(&self.client, &self.place, &self.target).await
    }
}

/// A client of one server, which connects when it is asked to.
pub(crate) fn client(
    host: &str,
    port: u16,
    target: &Target,
    place: &str,
) -> Result<Client, OpenError> {
    let refuse = |text: String| OpenError::new(OpenErrorKind::Unavailable, place, text);
    let mut settings = RedisConnectionInfo::default().set_db(target.database);
    if let Some(user) = &target.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &target.password {
        settings = settings.set_password(password);
    }
    let address = match target.tls {
        false => ConnectionAddr::Tcp(host.to_owned(), port),
        true => {
            // Only the first call in a process has an effect; the others find it done.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let host = host.to_owned();
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        }
    };
    let info: ConnectionInfo =
        address.into_connection_info().map_err(|error| refuse(error.to_string()))?;
    let info = info.set_redis_settings(settings);
    let made = match &target.ca {
        None => Client::open(info),
        Some(file) => {
            let read = std::fs::read(file);
            let pem = read.map_err(|error| refuse(format!("{}: {error}", file.display())))?;
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) })
        }
    };
    made.map_err(|error| refuse(error.to_string()))
}
