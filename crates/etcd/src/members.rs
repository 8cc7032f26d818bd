//! The members of a cluster: one is used until it fails, then the next.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onlyonce_store::{OpenError, OpenErrorKind, StoreErrorKind};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::client::Client;
use crate::error::{Fault, fault};
use crate::target::Target;
use crate::wire::{Login, Txn, TxnDone};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take. etcd itself gives up after five seconds and two elections.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// When no further member is tried for one call.
const TRY_UNTIL: Duration = Duration::from_secs(10);
/// How often a connection is tried out, and how long that may take: a member that stands still is
/// left then.
const ALIVE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(3));

/// The members that a URL names.
pub(crate) struct Members {
    list: Vec<Member>,
    /// The one in use.
    at: AtomicUsize,
}

struct Member {
    place: String,
    endpoint: Endpoint,
    /// Where it is, if it is spoken to without TLS.
    plain: Option<Arc<str>>,
    login: Option<Login>,
    client: Mutex<Option<Client>>,
}

impl Members {
    pub(crate) fn new(target: &Target) -> Result<Self, OpenError> {
        let wrong =
            |text: String| OpenError::new(OpenErrorKind::Unavailable, target.to_string(), text);
        let login = target.user.as_ref().map(|name| Login {
            name: name.clone(),
            password: target.password.clone().unwrap_or_default(),
        });
        let mut list = Vec::new();
        for (url, host) in target.urls().into_iter().zip(&target.hosts) {
            let endpoint = Endpoint::from_shared(url).map_err(|error| wrong(error.to_string()))?;
            let mut endpoint = endpoint
                .connect_timeout(CONNECT_MAX)
                .http2_keep_alive_interval(ALIVE.0)
                .keep_alive_timeout(ALIVE.1)
                .keep_alive_while_idle(true);
            if target.tls {
                let tls = tls(target).map_err(wrong)?;
                endpoint = endpoint.tls_config(tls).map_err(|error| wrong(error.to_string()))?;
            }
            let place = format!("etcd {host}");
            let plain = (!target.tls).then(|| Arc::from(host.as_str()));
            let (login, client) = (login.clone(), Mutex::default());
            list.push(Member { place, endpoint, plain, login, client });
        }
        Ok(Self { list, at: AtomicUsize::new(0) })
    }

    /// A transaction that changes something: another member is tried only as long as it certainly
    /// did not take place.
    pub(crate) async fn write(&self, txn: Txn) -> Result<TxnDone, Fault> {
        let call = |client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        self.call(call, false).await
    }

    /// A transaction that only reads.
    pub(crate) async fn read(&self, txn: Txn) -> Result<TxnDone, Fault> {
        let call = |client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        self.call(call, true).await
    }

    /// A call to whichever member answers. `again` says that repeating it is harmless.
    pub(crate) async fn call<T, F>(
        &self,
        call: impl Fn(Client) -> F,
        again: bool,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        let mut last = None;
        for _ in 0..self.list.len() {
            if TRY_UNTIL < begun.elapsed() {
                break;
            }
            let at = self.at.load(Ordering::Relaxed);
            let member = &self.list[at % self.list.len()];
            let client = member.client().await;
            let fault = match timeout(ANSWER_MAX, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => fault(&member.place, &status),
                Err(_) => {
                    // The connection goes with the client, and with it what was asked.
                    *member.client.lock().await = None;
                    let text = format!("{}: no answer within {ANSWER_MAX:?}", member.place);
                    Fault::of_member(StoreErrorKind::Unknown, text)
                }
            };
            if !fault.elsewhere {
                return Err(fault);
            }
            let next = (at + 1) % self.list.len();
            let _ = self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            if fault.is_unknown() && !again {
                return Err(fault);
            }
            last = Some(fault);
        }
        Err(last.unwrap_or_else(|| {
            Fault::new(StoreErrorKind::NotApplied, "no member was tried".to_owned())
        }))
    }

    /// Each member with a client of it, for what is asked of all.
    pub(crate) async fn each(&self) -> Vec<(&str, Client)> {
        let mut each = Vec::new();
        for member in &self.list {
            each.push((member.place.as_str(), member.client().await));
        }
        each
    }

    /// Lets the first of those that are good be the one in use.
    pub(crate) fn prefer(&self, place: &str) {
        if let Some(at) = self.list.iter().position(|member| member.place == place) {
            self.at.store(at, Ordering::Relaxed);
        }
    }
}

/// Whom we trust, and who we are.
fn tls(target: &Target) -> Result<ClientTlsConfig, String> {
    let read = |file: &PathBuf| {
        std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
    };
    let tls = ClientTlsConfig::new();
    let tls = match &target.ca {
        Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
        None => tls.with_native_roots(),
    };
    let (Some(cert), Some(key)) = (&target.cert, &target.key) else { return Ok(tls) };
    Ok(tls.identity(Identity::from_pem(read(cert)?, read(key)?)))
}

impl Member {
    async fn client(&self) -> Client {
        let mut client = self.client.lock().await;
        let made = || {
            let channel = self.endpoint.connect_lazy();
            Client::new(channel, self.plain.clone(), self.login.clone())
        };
        client.get_or_insert_with(made).clone()
    }
}
