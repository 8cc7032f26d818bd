//! Where a store is, as it is written on the command line, and opening it. The only file that
//! names stores.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use onlyonce_core::{Floor, Secret, StateKind, Timestamp};
use onlyonce_etcd::Etcd;
use onlyonce_journal::{Journal, JournalErrorKind, Settings, Start};
use onlyonce_mysql::Mysql;
use onlyonce_postgres::{Address, AddressError, Postgres};
use onlyonce_redis::Redis;
use onlyonce_sqlite::Sqlite;
use onlyonce_store::{Check, OpenError, OpenErrorKind, Store, StoreError, Warning};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved::{self, Mark};
use crate::risk;
use crate::set::{self, Set};

/// How far ahead of ours a client's clock may be: what a strict start adds to the present.
pub(crate) const KEY_AHEAD_MAX: Duration = onlyonce_core::limits::KEY_AHEAD_MAX;

/// A store's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A journal in this folder.
    Journal(PathBuf),
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Address),
    /// A MariaDB or MySQL database.
    Mysql(onlyonce_mysql::Address),
    /// Redis: a server, sentinels or a cluster.
    Redis(onlyonce_redis::Target),
    /// A cluster of etcd.
    Etcd(onlyonce_etcd::Target),
    /// Several of one kind, one a line of this file.
    Spread(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("journal", dir)) if !dir.is_empty() => Ok(Self::Journal(dir.into())),
            Some(("sqlite", file)) if !file.is_empty() => Ok(Self::Sqlite(file.into())),
            Some(("spread", file)) if !file.is_empty() => Ok(Self::Spread(file.into())),
            Some(("postgres" | "postgresql", _)) => {
                text.parse().map(Self::Postgres).map_err(|error: AddressError| error.to_string())
            }
            Some(("mysql" | "mariadb", _)) => {
                let parsed = text.parse().map(Self::Mysql);
                parsed.map_err(|error: onlyonce_mysql::AddressError| error.to_string())
            }
            Some((scheme, rest)) if scheme.starts_with("redis") && rest.starts_with("//") => {
                text.parse().map(Self::Redis)
            }
            Some(("etcd" | "etcds", rest)) if rest.starts_with("//") => {
                text.parse().map(Self::Etcd)
            }
            _ => Err("it must be journal:DIR, such as journal:./onlyonce-data, sqlite:FILE, \
                      postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE, redis://HOST, \
                      etcd://HOST,HOST,HOST or spread:FILE"
                .to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(dir) => write!(f, "journal:{}", dir.display()),
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Self::Postgres(address) => address.fmt(f),
            Self::Mysql(address) => address.fmt(f),
            Self::Redis(target) => target.fmt(f),
            Self::Etcd(target) => target.fmt(f),
            Self::Spread(file) => write!(f, "spread:{}", file.display()),
        }
    }
}

impl Place {
    /// All risks that can be taken with a store of any kind.
    pub(crate) fn risks() -> impl Iterator<Item = &'static str> {
        let redis = onlyonce_redis::RISKS.into_iter();
        let others = onlyonce_etcd::RISKS.into_iter().chain(onlyonce_mysql::RISKS);
        let postgres = onlyonce_postgres::RISKS.into_iter();
        // One that databases of two kinds know by the same name is one.
        let more = postgres.filter(|risk| !onlyonce_mysql::RISKS.contains(risk));
        redis.chain(others).chain(more)
    }

    /// The same place, with the risks that a flag takes.
    pub(crate) fn taking(&self) -> Self {
        let mut place = self.clone();
        for risk in risk::taken().iter().map(|risk| risk.name()) {
            // That there is no such risk here is told at the start.
            let _ = match &mut place {
                Self::Journal(_) | Self::Sqlite(_) | Self::Spread(_) => false,
                Self::Postgres(address) => address.accept(risk),
                Self::Mysql(address) => address.accept(risk),
                Self::Redis(target) => target.accept(risk),
                Self::Etcd(target) => target.accept(risk),
            };
        }
        place
    }

    /// Makes a new store there, and says what to keep of it.
    pub(crate) async fn init(&self, first: bool) -> Result<String, Failure> {
        let start = if first { Start::First } else { strict() };
        self.make(start, None).await?;
        Ok(match self {
            Self::Journal(dir) => format!(
                "made a journal in {}\nkeep its file `secret` with your backups: without it no \
                 record can be found",
                dir.display()
            ),
            Self::Sqlite(file) => format!(
                "made a store in {}\nits secret is in it: back it up as a whole, and let nobody \
                 else read it",
                file.display()
            ),
            Self::Postgres(_) => format!(
                "made a store in {self}, schema onlyonce\nits secret is in it: back it up as a \
                 whole\na proxy needs no more than GRANT USAGE ON SCHEMA onlyonce and GRANT \
                 SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce"
            ),
            Self::Mysql(_) => format!(
                "made a store in {self}, tables onlyonce_*\nits secret is in it: back it up as a \
                 whole\na proxy needs no more than GRANT SELECT, INSERT, UPDATE, DELETE on each \
                 of onlyonce_records, onlyonce_revisions and onlyonce_store"
            ),
            Self::Redis(_) | Self::Etcd(_) => {
                format!("made a store in {self}\nits secret is in it: let nobody else read it")
            }
            Self::Spread(_) => format!(
                "made the stores of {self}, as one\ntheir secret is in each: let nobody else \
                 read it"
            ),
        })
    }

    /// Makes a new store there, with this secret or a new one.
    pub(crate) async fn make(&self, start: Start, secret: Option<&Secret>) -> Result<(), Failure> {
        let floor = floor(start);
        let settings = Settings::default();
        let made = match (&self.taking(), secret) {
            (Self::Journal(dir), None) => return Ok(Journal::init(dir, settings, start)?),
            (Self::Journal(dir), Some(secret)) => {
                return Ok(Journal::init_with(dir, settings, start, secret)?);
            }
            (Self::Sqlite(file), None) => Sqlite::init(file, floor),
            (Self::Sqlite(file), Some(secret)) => Sqlite::init_with(file, floor, secret),
            (Self::Postgres(address), None) => Postgres::init(address.clone(), floor).await,
            (Self::Postgres(address), Some(secret)) => {
                Postgres::init_with(address.clone(), floor, secret).await
            }
            (Self::Mysql(address), None) => Mysql::init(address.clone(), floor).await,
            (Self::Mysql(address), Some(secret)) => {
                Mysql::init_with(address.clone(), floor, secret).await
            }
            (Self::Redis(target), None) => Redis::init(target, floor).await,
            (Self::Redis(target), Some(secret)) => Redis::init_with(target, floor, secret).await,
            (Self::Etcd(target), None) => Etcd::init(target, floor).await,
            (Self::Etcd(target), Some(secret)) => Etcd::init_with(target, floor, secret).await,
            (Self::Spread(file), secret) => return set::make(file, start, secret).await,
        };
        made.map_err(|error| self.failure(&error))
    }

    /// Opens the store there, for this process and, but for a journal, for others too.
    ///
    /// Refused is one that is being moved, or was: see [`moved`].
    pub(crate) async fn open(&self, settings: Settings) -> Result<Opened, Failure> {
        let opened = self.open_marked(settings).await?;
        moved::refuse(opened.store(), &self.to_string()).await?;
        Ok(opened)
    }

    /// The same, also if it is being moved: for who moves it.
    pub(crate) async fn open_marked(&self, settings: Settings) -> Result<Opened, Failure> {
        match &self.taking() {
            Self::Journal(dir) => {
                Ok(Opened::Journal { journal: Journal::open(dir, settings)?, dir: dir.clone() })
            }
            Self::Sqlite(file) => {
                Sqlite::open(file).map(Opened::Sqlite).map_err(|error| self.failure(&error))
            }
            Self::Postgres(address) => {
                let opened = Postgres::open(address.clone()).await;
                opened.map(Opened::Postgres).map_err(|error| self.failure(&error))
            }
            Self::Mysql(address) => {
                let opened = Mysql::open(address.clone()).await;
                opened.map(Opened::Mysql).map_err(|error| self.failure(&error))
            }
            Self::Redis(target) => {
                let settings = onlyonce_redis::Settings { key_ahead_max: KEY_AHEAD_MAX };
                let opened = Redis::open(target, settings).await;
                opened.map(Opened::Redis).map_err(|error| self.failure(&error))
            }
            Self::Etcd(target) => {
                let opened = Etcd::open(target).await;
                opened.map(Opened::Etcd).map_err(|error| self.failure(&error))
            }
            Self::Spread(file) => Set::open(file).await.map(Opened::Spread),
        }
    }

    /// The same, also if a snapshot has brought it to another cluster: for who makes it safe.
    pub(crate) async fn open_restored(&self) -> Result<Opened, Failure> {
        if let Self::Spread(file) = self {
            return Set::open_restored(file).await.map(Opened::Spread);
        }
        let Self::Etcd(target) = self.taking() else {
            return self.open_marked(Settings::default()).await;
        };
        let opened = Etcd::open_restored(&target).await;
        opened.map(Opened::Etcd).map_err(|error| self.failure(&error))
    }

    /// The mark of the store there, if it has one, also while another process has the journal.
    pub(crate) async fn mark(&self) -> Result<Option<Mark>, Failure> {
        if let Self::Journal(dir) = self {
            return onlyonce_journal::peek(dir, moved::ID)?.as_ref().map(Mark::of).transpose();
        }
        let opened = self.open_marked(Settings::default()).await?;
        let mark = Mark::read(&*opened.store()).await;
        opened.close();
        mark
    }

    /// The same; if it is a journal and another process has that, its folder.
    pub(crate) async fn open_or_find(&self) -> Result<Result<Opened, &Path>, Failure> {
        if let Self::Journal(dir) = self {
            return match Journal::open(dir, Settings::default()) {
                Ok(journal) => {
                    moved::refuse(Arc::new(journal.clone()), &self.to_string()).await?;
                    Ok(Ok(Opened::Journal { journal, dir: dir.clone() }))
                }
                Err(error) if error.kind() == JournalErrorKind::Locked => Ok(Err(dir)),
                Err(error) => Err(error.into()),
            };
        }
        self.open(Settings::default()).await.map(Ok)
    }

    /// Everything that is looked at when the store there is opened, each with what was found.
    pub(crate) async fn doctor(&self) -> Vec<Check> {
        match &self.taking() {
            Self::Journal(dir) => onlyonce_journal::doctor(dir),
            Self::Sqlite(file) => onlyonce_sqlite::doctor(file),
            Self::Postgres(address) => onlyonce_postgres::doctor(address.clone()).await,
            Self::Mysql(address) => onlyonce_mysql::doctor(address.clone()).await,
            Self::Redis(target) => onlyonce_redis::doctor(target).await,
            Self::Etcd(target) => onlyonce_etcd::doctor(target).await,
            Self::Spread(file) => set::doctor(file).await,
        }
    }

    /// The secret of the store there, whoever has it open.
    pub(crate) async fn secret(&self) -> Result<Secret, Failure> {
        match self {
            Self::Journal(dir) => Ok(Journal::read_secret(dir)?),
            Self::Sqlite(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::Etcd(_)
            | Self::Spread(_) => {
                let opened = self.open(Settings::default()).await?;
                let secret = opened.secret().clone();
                opened.close();
                Ok(secret)
            }
        }
    }

    pub(crate) fn failure(&self, error: &OpenError) -> Failure {
        let exit = match error.kind() {
            OpenErrorKind::Exists => Exit::Refused,
            OpenErrorKind::Missing
            | OpenErrorKind::Foreign
            | OpenErrorKind::Newer
            | OpenErrorKind::Older
            | OpenErrorKind::Refused
            | OpenErrorKind::Unavailable => Exit::StoreUnavailable,
        };
        let failure = Failure::new(exit, error.to_string());
        if error.kind() == OpenErrorKind::Missing {
            return failure.with_hint(format!("`onlyonce store init --first --store {self}`"));
        }
        failure
    }
}

/// A store that is open. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) enum Opened {
    /// A journal, which this process has alone, and its folder.
    Journal { journal: Journal, dir: PathBuf },
    /// An SQLite file.
    Sqlite(Sqlite),
    /// A PostgreSQL database.
    Postgres(Postgres),
    /// A MariaDB or MySQL database.
    Mysql(Mysql),
    /// Redis.
    Redis(Redis),
    /// A cluster of etcd.
    Etcd(Etcd),
    /// Several of one kind.
    Spread(Set),
}

impl Opened {
    /// What its key ids are made with.
    pub(crate) fn secret(&self) -> &Secret {
        match self {
            Self::Journal { journal, .. } => journal.secret(),
            Self::Sqlite(sqlite) => sqlite.secret(),
            Self::Postgres(postgres) => postgres.secret(),
            Self::Mysql(mysql) => mysql.secret(),
            Self::Redis(redis) => redis.secret(),
            Self::Etcd(etcd) => etcd.secret(),
            Self::Spread(set) => set.secret(),
        }
    }

    /// The journal and its folder, if it is one.
    pub(crate) fn journal(&self) -> Option<(&Journal, &Path)> {
        match self {
            Self::Journal { journal, dir } => Some((journal, dir)),
            Self::Sqlite(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::Etcd(_)
            | Self::Spread(_) => None,
        }
    }

    /// How many keys have a record, where that is known at once.
    pub(crate) fn keys(&self) -> Option<usize> {
        self.journal().map(|(journal, _)| journal.stats().keys)
    }

    /// How many keys have a record.
    pub(crate) async fn records(&self) -> Result<u64, Failure> {
        match self {
            Self::Journal { journal, .. } => Ok(journal.stats().keys as u64),
            Self::Sqlite(sqlite) => Ok(sqlite.count(None)?),
            Self::Postgres(postgres) => {
                let mut sum = 0;
                for state in StateKind::ALL {
                    sum += postgres.count(state).await?;
                }
                Ok(sum)
            }
            Self::Mysql(mysql) => {
                let mut sum = 0;
                for state in StateKind::ALL {
                    sum += mysql.count(state).await?;
                }
                Ok(sum)
            }
            Self::Redis(redis) => Ok(redis.count(None).await?),
            Self::Etcd(etcd) => Ok(etcd.count(None).await?),
            Self::Spread(set) => set::count(set, false).await,
        }
    }

    /// Says of a store that is safe to use again that it belongs where it is now.
    pub(crate) async fn settle_in(&self) -> Result<(), Failure> {
        let all = if let Self::Spread(set) = self { set.opened().collect() } else { vec![self] };
        for opened in all {
            if let Self::Etcd(etcd) = opened {
                etcd.settle_in().await?;
            }
        }
        Ok(())
    }

    /// How many outcomes nobody knows.
    pub(crate) async fn unknown(&self) -> Result<u64, Failure> {
        match self {
            Self::Journal { journal, .. } => Ok(journal.stats().unknown as u64),
            Self::Sqlite(sqlite) => Ok(sqlite.count(Some(StateKind::Unknown))?),
            Self::Postgres(postgres) => Ok(postgres.count(StateKind::Unknown).await?),
            Self::Mysql(mysql) => Ok(mysql.count(StateKind::Unknown).await?),
            Self::Redis(redis) => Ok(redis.count(Some(StateKind::Unknown)).await?),
            Self::Etcd(etcd) => Ok(etcd.count(Some(StateKind::Unknown)).await?),
            Self::Spread(set) => set::count(set, true).await,
        }
    }

    /// Calls `tell` once if nothing is written any more: then this process should end.
    pub(crate) fn on_poison(&self, tell: impl FnOnce(&str) + Send + 'static) {
        match self {
            Self::Journal { journal, .. } => journal.on_poison(tell),
            Self::Sqlite(sqlite) => sqlite.on_poison(tell),
            Self::Spread(set) => set.on_poison(Box::new(tell)),
            // Their servers look after their own disks.
            Self::Postgres(_) | Self::Mysql(_) | Self::Redis(_) | Self::Etcd(_) => {}
        }
    }

    /// Writes what was asked for so far, and lets it go.
    pub(crate) fn close(&self) {
        match self {
            Self::Journal { journal, .. } => journal.close(),
            Self::Sqlite(sqlite) => sqlite.close(),
            Self::Spread(set) => set.opened().for_each(Self::close),
            Self::Postgres(_) | Self::Mysql(_) | Self::Redis(_) | Self::Etcd(_) => {}
        }
    }

    /// The store itself.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Journal { journal, .. } => Arc::new(journal.clone()),
            Self::Sqlite(sqlite) => Arc::new(sqlite.clone()),
            Self::Postgres(postgres) => Arc::new(postgres.clone()),
            Self::Mysql(mysql) => Arc::new(mysql.clone()),
            Self::Redis(redis) => Arc::new(redis.clone()),
            Self::Etcd(etcd) => Arc::new(etcd.clone()),
            Self::Spread(set) => Arc::new(set.spread.clone()),
        }
    }

    /// What the operator should know of it: risks that were accepted.
    pub(crate) fn warnings(&self) -> &[Warning] {
        match self {
            Self::Journal { .. } | Self::Sqlite(_) => &[],
            Self::Postgres(postgres) => postgres.warnings(),
            Self::Mysql(mysql) => mysql.warnings(),
            Self::Redis(redis) => redis.warnings(),
            Self::Etcd(etcd) => etcd.warnings(),
            Self::Spread(set) => set.warnings(),
        }
    }
}

/// The present time as the store has it, if it has a clock, else as this machine has it.
pub(crate) async fn time_of(store: &dyn Store) -> Result<Timestamp, StoreError> {
    Ok(store.clock().await?.unwrap_or_else(now))
}

/// The present time.
#[allow(clippy::disallowed_methods, reason = "the tools have no engine to ask")]
pub(crate) fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// A start that assumes there was another store before.
pub(crate) fn strict() -> Start {
    Start::Strict { floor: Floor::at(now().plus(KEY_AHEAD_MAX)) }
}

const fn floor(start: Start) -> Floor {
    match start {
        Start::First => Floor::NONE,
        Start::Strict { floor } => floor,
    }
}

/// Opens the journal, or makes it first; says whether it did.
pub(crate) async fn open_or_create(
    dir: &Path,
    settings: Settings,
    start: Start,
) -> Result<(Journal, bool), Failure> {
    let (journal, created) = Journal::open_or_create(dir, settings, start)?;
    moved::refuse(Arc::new(journal.clone()), &Place::Journal(dir.into()).to_string()).await?;
    Ok((journal, created))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_kind_and_place() {
        assert_eq!("journal:./a:b".parse(), Ok(Place::Journal("./a:b".into())));
        assert_eq!("sqlite:/a/b.db".parse(), Ok(Place::Sqlite("/a/b.db".into())));
        for named in ["journal:./a:b", "sqlite:/a/b.db", "spread:/etc/stores"] {
            assert_eq!(named.parse::<Place>().unwrap().to_string(), named);
        }
        let named: Place = "postgres://anna:geheim@db.example/shop".parse().unwrap();
        assert_eq!(named.to_string(), "postgres://anna@db.example:5432/shop");
        let named: Place = "mysql://anna:geheim@db.example/shop".parse().unwrap();
        assert_eq!(named.to_string(), "mysql://anna@db.example:3306/shop");
        for named in ["redis+cluster://a:1,b:2?prefix=shop", "etcd://a:1?accept=single"] {
            assert_eq!(named.parse::<Place>().unwrap().to_string(), named);
        }
        for wrong in
            ["", "journal:", "sqlite:", "redis:x", "etcd://", "./data", "journals:x", "postgres:x"]
        {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
