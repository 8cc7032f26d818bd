//! Whether a member syncs what it writes: its own count of syncs stands still if it does not.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;

use crate::client::Client;
use crate::layout::Layout;
use crate::wire::{Compare, Op, Txn};

/// The page of counts, and the line that says how often the log was synced. With
/// `--unsafe-no-fsync` a member leaves before it counts.
const PAGE: &str = "/metrics";
const COUNT: &str = "etcd_disk_wal_fsync_duration_seconds_count ";
/// How much is written between two looks. A member may answer a write while it still syncs it, but
/// takes the next one only after that.
const WRITES: usize = 2;
/// How long the page may take. Who hands on gRPC alone may never answer.
const PAGE_MAX: Duration = Duration::from_secs(1);

/// Whether a member syncs; nothing if it does not tell. No key is changed.
///
/// # Errors
/// It takes no write.
pub(crate) async fn look(client: &Client, layout: &Layout) -> Result<Option<bool>, Status> {
    let Some(before) = count(client).await else { return Ok(None) };
    // A key that is there and is not: the write is in the log all the same.
    let key = layout.store();
    let never = Txn {
        when: vec![Compare::absent(key.clone()), Compare::present(key.clone())],
        then: vec![Op::put(key, [])],
        ..Txn::default()
    };
    for _ in 0..WRITES {
        client.txn(never.clone()).await?;
    }
    Ok(count(client).await.map(|after| before < after))
}

async fn count(client: &Client) -> Option<f64> {
    let page = timeout(PAGE_MAX, client.page(PAGE)).await.ok()??;
    let count = page.lines().find_map(|line| line.strip_prefix(COUNT))?.trim();
    // From a million on it is written as `1.5e+06`.
    count.parse::<f64>().ok()
}
