//! The stores that proxies share while they are tortured: a real server of each kind, and the way
//! to it, which can be cut.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use clap::ValueEnum;
use onlyonce_testbed::{EtcdCluster, MariaDb, Postgres, Redis, Relay, Way};

use crate::random::Random;

/// How long a fault lasts at most, in milliseconds.
const LASTS_MAX: u64 = 900;
/// After so many more bytes at most a connection is cut: a batch or two.
const BYTES_MAX: u64 = 20_000;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Postgres,
    Mysql,
    Redis,
    Etcd,
    Sqlite,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Postgres, Self::Mysql, Self::Redis, Self::Etcd, Self::Sqlite];

    /// As it is written on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
            Self::Sqlite => "sqlite",
        }
    }
}

/// What can happen to a server or to the way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Killed, and started again on its data. Of a cluster it is the leader.
    Kill,
    /// Stands still, and goes on. Of a cluster it is the leader.
    Freeze,
    /// The leader is cut off from the others, and not from its clients.
    Partition,
    /// All connections are cut after some more bytes of questions: before a commit.
    CutQuestion,
    /// All connections are cut after some more bytes of answers: after a commit.
    CutAnswer,
    /// Nothing that the server answers arrives any more; then all connections are cut.
    LoseAnswers,
    /// Nothing gets through, and no connection is closed.
    Hold,
}

impl Fault {
    /// What can happen to every server.
    const ALL: [Self; 5] =
        [Self::Kill, Self::CutQuestion, Self::CutAnswer, Self::LoseAnswers, Self::Hold];
}

enum Server {
    Postgres(Postgres),
    Mysql(MariaDb),
    Redis(Redis),
    Etcd(EtcdCluster),
    File,
}

/// A store of a kind, and the way to it.
pub(crate) struct Backend {
    server: Server,
    relays: Vec<Relay>,
    pub(crate) url: String,
}

impl Backend {
    /// Starts a server of its own and makes a store in it.
    pub(crate) fn start(kind: Kind, binary: &Path, folder: &Path) -> Result<Self, String> {
        let to = |address: SocketAddr| vec![Relay::to(address)];
        let (mut server, relays) = match kind {
            Kind::Postgres => {
                let server = Postgres::start();
                let relays = to(server.address());
                (Server::Postgres(server), relays)
            }
            Kind::Mysql => {
                let server = MariaDb::start();
                server.sql("mysql", "CREATE DATABASE shop");
                let relays = to(server.address());
                (Server::Mysql(server), relays)
            }
            Kind::Redis => {
                let server = Redis::start();
                let relays = to(server.address());
                (Server::Redis(server), relays)
            }
            Kind::Etcd => {
                let mut server = EtcdCluster::start();
                let relays = server.members().iter().map(|it| Relay::to(it.address())).collect();
                (Server::Etcd(server), relays)
            }
            Kind::Sqlite => (Server::File, Vec::new()),
        };
        let at: Vec<String> = relays.iter().map(|relay| relay.address().to_string()).collect();
        let at = at.join(",");
        let url = match &mut server {
            Server::Postgres(_) => format!("postgres://postgres@{at}/postgres"),
            Server::Mysql(_) => format!("mysql://root@{at}/shop"),
            Server::Redis(_) => format!("redis://{at}"),
            Server::Etcd(_) => format!("etcd://{at}"),
            Server::File => format!("sqlite:{}", folder.join("once.db").display()),
        };
        let made = Command::new(binary)
            .args(["store", "init", "--first", "--store", &url])
            .stdout(Stdio::null())
            .status();
        if !made.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(format!("the store {url} could not be made: {made:?}"));
        }
        Ok(Self { server, relays, url })
    }

    /// A fault that can happen to it, by chance; a file has none.
    pub(crate) fn any_fault(&self, random: &mut Random) -> Option<Fault> {
        let mut faults = Fault::ALL.to_vec();
        match self.server {
            Server::Postgres(_) => {}
            Server::Mysql(_) | Server::Redis(_) => faults.push(Fault::Freeze),
            Server::Etcd(_) => faults.extend([Fault::Freeze, Fault::Partition]),
            Server::File => return None,
        }
        let at = random.below(faults.len() as u64);
        faults.get(at as usize).copied()
    }

    /// Lets it happen, and ends it again. Blocks meanwhile.
    pub(crate) fn suffer(&mut self, fault: Fault, random: &mut Random) {
        let lasts = Duration::from_millis(1 + random.below(LASTS_MAX));
        let bytes = random.below(BYTES_MAX) as usize;
        // All ways lead to one server, but for members of a cluster.
        let relay = random.below(self.relays.len() as u64) as usize;
        let relay = &self.relays[relay];
        match fault {
            Fault::Kill => return self.kill(lasts),
            Fault::Freeze => return self.freeze(lasts),
            Fault::Partition => return self.partition(lasts),
            Fault::CutQuestion => relay.cut_after(Way::ToServer, bytes),
            Fault::CutAnswer => relay.cut_after(Way::ToClient, bytes),
            Fault::LoseAnswers => relay.lose(Way::ToClient),
            Fault::Hold => relay.hold(),
        }
        sleep(lasts);
        if matches!(fault, Fault::LoseAnswers) {
            relay.break_off();
        }
        relay.mend();
    }

    fn kill(&mut self, lasts: Duration) {
        match &mut self.server {
            Server::Postgres(server) => {
                server.kill();
                sleep(lasts);
                server.restart();
            }
            Server::Mysql(server) => {
                server.kill();
                sleep(lasts);
                server.restart();
            }
            Server::Redis(server) => {
                server.kill();
                sleep(lasts);
                server.restart();
            }
            Server::Etcd(cluster) => {
                let leader = cluster.await_leader();
                let member = &mut cluster.members()[leader];
                member.kill();
                sleep(lasts);
                member.restart();
            }
            Server::File => {}
        }
    }

    fn freeze(&mut self, lasts: Duration) {
        let server = match &mut self.server {
            Server::Mysql(server) => server.server(),
            Server::Redis(server) => server.server(),
            Server::Etcd(cluster) => {
                let leader = cluster.await_leader();
                cluster.members()[leader].server()
            }
            // It has a process for each connection.
            Server::Postgres(_) | Server::File => return,
        };
        server.freeze();
        sleep(lasts);
        server.thaw();
    }

    fn partition(&mut self, lasts: Duration) {
        if let Server::Etcd(cluster) = &mut self.server {
            cluster.isolate(cluster.await_leader());
            // Longer than an election takes, so that both sides go on by themselves.
            sleep(2 * lasts + Duration::from_secs(1));
            cluster.mend();
        }
    }
}
