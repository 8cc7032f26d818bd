//! Which server has which bucket: the one, the master that sentinels know, or a cluster's masters.

use std::sync::Arc;
use std::time::Duration;

use onlyonce_store::{OpenError, OpenErrorKind};
use redis::{AsyncConnectionConfig, Value};
use tokio::sync::RwLock;
use tokio::time::timeout;

use crate::layout::{BUCKETS, Layout};
use crate::script;
use crate::server::{Address, Server, client};
use crate::slot::slot;
use crate::target::{Kind, Target};

/// How long a sentinel or a node may take to say who has what.
const TELL_MAX: Duration = Duration::from_secs(2);

/// What is kept at one place: a bucket, or the store's own facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Bucket(u8),
    Store,
}

/// Who has what.
pub(crate) struct Map {
    target: Arc<Target>,
    layout: Arc<Layout>,
    route: RwLock<Route>,
}

#[derive(Default)]
struct Route {
    /// The server of each bucket, and last that of the store's facts. Empty if nobody knows.
    servers: Vec<Arc<Server>>,
    stale: bool,
}

impl Map {
    pub(crate) fn new(target: &Arc<Target>, layout: &Arc<Layout>) -> Self {
        let route = RwLock::default();
        Self { target: Arc::clone(target), layout: Arc::clone(layout), route }
    }

    /// The server that has this.
    ///
    /// # Errors
    /// Nobody says who has it.
    pub(crate) async fn server(&self, part: Part) -> Result<Arc<Server>, OpenError> {
        let at = match part {
            Part::Bucket(bucket) => usize::from(bucket),
            Part::Store => usize::from(BUCKETS),
        };
        {
            let route = self.route.read().await;
            if let (false, Some(server)) = (route.stale, route.servers.get(at)) {
                return Ok(Arc::clone(server));
            }
        }
        let mut route = self.route.write().await;
        if route.stale || route.servers.is_empty() {
            // While nobody answers, the old map is not used: it led to the wrong place.
            let addresses = self.look().await?;
            let mut servers: Vec<Arc<Server>> = Vec::new();
            for address in addresses {
                let known = servers.iter().chain(&route.servers);
                let known = known.into_iter().find(|server| server.address == address).cloned();
                let server = match known {
                    Some(server) => server,
                    None => Arc::new(Server::new(address, &self.target)?),
                };
                servers.push(server);
            }
            *route = Route { servers, stale: false };
        }
        Ok(Arc::clone(&route.servers[at]))
    }

    /// The buckets that are where this one is.
    pub(crate) async fn neighbours(&self, bucket: u8) -> Vec<u8> {
        let route = self.route.read().await;
        let Some(server) = route.servers.get(usize::from(bucket)) else { return vec![bucket] };
        (0..BUCKETS)
            .filter(|other| {
                route.servers.get(usize::from(*other)).is_some_and(|it| Arc::ptr_eq(it, server))
            })
            .collect()
    }

    /// The map led to the wrong place: it is made again before it is used.
    pub(crate) async fn doubt(&self) {
        if self.target.kind != Kind::Single {
            self.route.write().await.stale = true;
        }
    }

    /// The address of each bucket's server, and last that of the store's facts.
    async fn look(&self) -> Result<Vec<Address>, OpenError> {
        let everywhere = |address: &Address| vec![address.clone(); usize::from(BUCKETS) + 1];
        let mut said = Vec::new();
        for (host, port) in &self.target.hosts {
            let place = format!("redis {host}:{port}");
            let told = match &self.target.kind {
                Kind::Single => return Ok(everywhere(&(host.clone(), *port))),
                Kind::Sentinel(name) => self.ask_sentinel(host, *port, name, &place).await,
                Kind::Cluster => self.ask_node(host, *port, &place).await,
            };
            match told {
                Ok(Told::Master(address)) => return Ok(everywhere(&address)),
                Ok(Told::Slots(slots)) => match self.spread(&slots) {
                    Some(addresses) => return Ok(addresses),
                    None => said.push(format!("{place}: some of the slots are served by nobody")),
                },
                Err(error) => said.push(error.to_string()),
            }
        }
        let place = self.target.to_string();
        Err(OpenError::new(OpenErrorKind::Unavailable, place, said.join("; ")))
    }

    async fn ask_sentinel(
        &self,
        host: &str,
        port: u16,
        name: &str,
        place: &str,
    ) -> Result<Told, OpenError> {
        // The password is the master's; sentinels have their own, or none as here.
        let bare = Target {
            user: None,
            password: None,
            tls: false,
            ca: None,
            ..Target::clone(&self.target)
        };
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let answer = ask(host, port, &bare, place, &command).await?;
        let wrong = |text: &str| OpenError::new(OpenErrorKind::Unavailable, place, text);
        let Value::Array(parts) = answer else {
            return Err(wrong("it watches no master of this name"));
        };
        let mut parts = parts.into_iter().filter_map(script::text);
        match (parts.next(), parts.next().and_then(|port| port.parse().ok())) {
            (Some(host), Some(port)) => Ok(Told::Master((host, port))),
            _ => Err(wrong("what it says of the master is not understood")),
        }
    }

    async fn ask_node(&self, host: &str, port: u16, place: &str) -> Result<Told, OpenError> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let answer = ask(host, port, &self.target, place, &command).await?;
        let Value::Array(ranges) = answer else {
            let text = "what it says of the slots is not understood";
            return Err(OpenError::new(OpenErrorKind::Unavailable, place, text));
        };
        Ok(Told::Slots(ranges.into_iter().filter_map(|range| Slots::read(range, host)).collect()))
    }

    /// Who has each bucket and the facts, if all of them are served.
    fn spread(&self, slots: &[Slots]) -> Option<Vec<Address>> {
        let buckets = (0..BUCKETS).map(|bucket| self.layout.facts(bucket));
        let keys = buckets.chain([self.layout.store()]);
        keys.map(|key| {
            let wanted = slot(&key);
            let range = slots.iter().find(|it| it.from <= wanted && wanted <= it.until)?;
            Some(range.master.clone())
        })
        .collect()
    }
}

/// What servers say about who has what.
enum Told {
    Master(Address),
    Slots(Vec<Slots>),
}

struct Slots {
    from: u16,
    until: u16,
    master: Address,
}

impl Slots {
    /// A range of the answer to `CLUSTER SLOTS`: from, until, the master, replicas.
    fn read(range: Value, asked: &str) -> Option<Self> {
        let Value::Array(parts) = range else { return None };
        let mut parts = parts.into_iter();
        let mut number = || script::text(parts.next()?)?.parse().ok();
        let (from, until) = (number()?, number()?);
        let Value::Array(master) = parts.next()? else { return None };
        let mut master = master.into_iter();
        let host = script::text(master.next()?).filter(|host| !host.is_empty());
        let port = script::text(master.next()?)?.parse().ok()?;
        // A node that does not know its own name means the one by which it was asked.
        let host = host.unwrap_or_else(|| asked.to_owned());
        Some(Self { from, until, master: (host, port) })
    }
}

async fn ask(
    host: &str,
    port: u16,
    target: &Target,
    place: &str,
    command: &redis::Cmd,
) -> Result<Value, OpenError> {
    let unavailable = |text: String| OpenError::new(OpenErrorKind::Unavailable, place, text);
    let client = client(host, port, target, place)?;
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let asking = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.send_packed_command(command).await.and_then(Value::extract_error)
    };
    match timeout(TELL_MAX, asking).await {
        Ok(answer) => answer.map_err(|error| unavailable(error.to_string())),
        Err(_) => Err(unavailable("it does not answer".to_owned())),
    }
}
