//! Stores that are measured alone: three members of etcd on this machine, and an SQLite file.

use std::sync::Arc;
use std::time::Duration;

use onlyonce_core::Floor;
use onlyonce_etcd::{Etcd, Target};
use onlyonce_sqlite::Sqlite;
use onlyonce_testbed::EtcdCluster;
use tempfile::TempDir;

use crate::Bench;
use crate::load::Engines;

/// What the records are kept in.
#[allow(dead_code, reason = "held until the end")]
enum Kept {
    Members(EtcdCluster),
    File(TempDir),
}

pub(crate) struct Alone {
    engines: Engines,
    _kept: Kept,
}

pub(crate) async fn etcd() -> Alone {
    let mut cluster = tokio::task::block_in_place(EtcdCluster::start);
    let at: Vec<String> =
        cluster.members().iter().map(|member| member.address().to_string()).collect();
    let target: Target = format!("etcd://{}", at.join(",")).parse().unwrap();
    Etcd::init(&target, Floor::NONE).await.unwrap();
    let store = Etcd::open(&target).await.unwrap();
    let engines = Engines::on(Arc::new(store)).await;
    Alone { engines, _kept: Kept::Members(cluster) }
}

pub(crate) async fn sqlite() -> Alone {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("once.db");
    Sqlite::init(&file, Floor::NONE).unwrap();
    let store = Sqlite::open(&file).unwrap();
    let engines = Engines::on(Arc::new(store)).await;
    Alone { engines, _kept: Kept::File(folder) }
}

impl Bench for Alone {
    fn engines(&self) -> &Engines {
        &self.engines
    }

    async fn commits(&mut self) -> Option<u64> {
        None
    }

    async fn bare(&mut self, _: usize, _: usize, _: Duration) -> Option<f64> {
        None
    }

    async fn plain(&mut self, _: usize, _: Duration) -> Option<f64> {
        None
    }
}
