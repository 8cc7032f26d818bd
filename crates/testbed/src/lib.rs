//! Real servers for tests: started on free loopback ports in temporary folders, killed, frozen,
//! started again, and cut off by a [`Relay`].
//!
//! Mail servers have more: [`MailRelay`] loses a word of a session or the answer to it, and a
//! [`MailSink`] behind them counts what arrives. They need the superuser.
//!
//! A server belongs to its test. It ends when it is dropped, also by a panic, and when the test's
//! process ends in any other way. No service of the machine is used or changed. A server that is
//! not installed fails its test with the command that installs it.
//!
//! An [`Authority`] has PostgreSQL, Redis, etcd, RabbitMQ and NATS listen with TLS too.
//!
//! `ONLYONCE_TEST_REDIS_SERVER`, `ONLYONCE_TEST_ETCD`, `ONLYONCE_TEST_POSTGRES`,
//! `ONLYONCE_TEST_MARIADB`, `ONLYONCE_TEST_MOTO` and `ONLYONCE_TEST_RABBITMQ` name other programs
//! to be tried than the ones in the search path.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test ends where its server fails"
)]

mod etcd;
mod mail;
mod mariadb;
mod moto;
mod nats;
mod pgbouncer;
mod port;
mod postgres;
mod process;
mod program;
mod rabbitmq;
mod redis;
mod relay;
mod relay_owner;
mod tls;

pub use etcd::{Etcd, EtcdCluster};
pub use mail::{Arrived, Cut, Dovecot, Exim, Fate, MailRelay, MailSink, Postfix, Word};
pub use mariadb::MariaDb;
pub use moto::Moto;
pub use nats::Nats;
pub use pgbouncer::PgBouncer;
pub use port::Port;
pub use postgres::Postgres;
pub use process::{Server, until};
pub use program::find;
pub use rabbitmq::{RabbitMq, url as rabbitmq_url};
pub use redis::{Redis, RedisCluster, Sentinel};
pub use relay::{Relay, Way};
pub use tls::{Authority, Pair};
