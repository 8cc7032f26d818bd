//! The facts of a store, which are looked at before it is used, and what a doctor tells of all.

use std::sync::Arc;

use onlyonce_store::{Check, Checks, Need, OpenError, OpenErrorKind, StoreError};
use redis::Value;

use crate::door;
use crate::error::{Fault, nonsense};
use crate::layout::{BUCKETS, Layout};
use crate::link::Link;
use crate::map::{Map, Part};
use crate::script;
use crate::target::Target;

/// The format of what is kept. A program refuses another.
pub(crate) const FORMAT: &[u8] = b"1";

const STORE: Need = Need::new("store", "made by `onlyonce store init`");
const FORMAT_KNOWN: Need = Need::new("format", "one that this program knows");
const SECRET: Need = Need::new("secret", "32 bytes");
const PARTS: Need = Need::new("parts of the store", "all of 64");
const NEEDS: [Need; 4] = [STORE, FORMAT_KNOWN, SECRET, PARTS];

/// Format and secret.
pub(crate) async fn read(
    link: &Link,
    layout: &Layout,
) -> Result<Option<(Vec<u8>, Vec<u8>)>, Fault> {
    let mut command = redis::cmd("HMGET");
    command.arg(layout.store()).arg("format").arg("secret");
    let Value::Array(parts) = link.ask(&command).await? else { return Err(nonsense(link.place())) };
    let mut parts = parts.into_iter().map(|part| script::bytes(part).flatten());
    Ok(parts.next().flatten().map(|format| (format, parts.next().flatten().unwrap_or_default())))
}

/// The store's secret, if it is a store that this program knows.
///
/// # Errors
/// There is none, it is a newer program's, or it cannot be read.
pub(crate) async fn look(
    link: &Link,
    layout: &Layout,
    place: &str,
    checks: &mut Checks,
) -> Result<[u8; 32], OpenError> {
    let found = read(link, layout).await.map_err(|fault| failed(place, fault))?;
    let Some((format, secret)) = found else {
        let fix = "`onlyonce store init` makes one";
        let kind = OpenErrorKind::Missing;
        return Err(checks.refuse(kind, STORE, "none", "there is no store here", fix));
    };
    checks.good(STORE, "there");
    let told = show(&format);
    if format != FORMAT {
        let why = format!("its format is {told}, and this program knows 1");
        let fix = "use a newer onlyonce";
        return Err(checks.refuse(OpenErrorKind::Newer, FORMAT_KNOWN, told, &why, fix));
    }
    checks.good(FORMAT_KNOWN, told);
    let Ok(secret) = <[u8; 32]>::try_from(secret) else {
        let kind = OpenErrorKind::Foreign;
        return Err(checks.refuse(kind, SECRET, "something else", "its secret is none", ""));
    };
    checks.good(SECRET, "there");
    Ok(secret)
}

/// Everything that is looked at when the store is opened, at each server, with what was found.
/// Nothing is changed.
pub async fn doctor(target: &Target) -> Vec<Check> {
    let target = Arc::new(target.clone());
    let layout = Arc::new(Layout::new(&target.prefix));
    let map = Map::new(&target, &layout);
    let place = target.to_string();
    let (mut told, mut seen) = (Vec::new(), Vec::new());
    for part in (0..BUCKETS).map(Part::Bucket).chain([Part::Store]) {
        match map.server(part).await {
            Ok(server) if seen.contains(&server.address) => {}
            Ok(server) => {
                seen.push(server.address.clone());
                told.extend(server.doctor().await);
            }
            Err(error) => {
                told.extend(door::unreached(&place, &error).finish(&door::NEEDS));
                break;
            }
        }
    }
    let mut checks = Checks::at(&*place);
    // A server that was refused is not asked for more, and its own checks say why.
    if told.iter().all(|check| check.error().is_none())
        && let Err(error) = parts(&map, &layout, &place, &mut checks).await
    {
        checks.failed(STORE, &error);
    }
    told.extend(checks.finish(&NEEDS));
    told
}

/// The facts, and whether every part of the store is there.
async fn parts(
    map: &Map,
    layout: &Layout,
    place: &str,
    checks: &mut Checks,
) -> Result<(), OpenError> {
    let facts = map.server(Part::Store).await?.link(0).await?;
    look(&facts, layout, place, checks).await?;
    let mut there = 0;
    for bucket in 0..BUCKETS {
        let link = map.server(Part::Bucket(bucket)).await?.link(bucket).await?;
        let mut command = redis::cmd("HEXISTS");
        command.arg(layout.facts(bucket)).arg("revision");
        let exists = link.ask(&command).await.map_err(|fault| failed(place, fault))?;
        there += u8::from(exists == Value::Int(1));
    }
    let says = there.to_string();
    let why = "a part of the store is gone: it was emptied";
    let fix = "make a new store with another prefix, without --first";
    checks.must(PARTS, says, there == BUCKETS, why, fix);
    Ok(())
}

fn failed(place: &str, fault: Fault) -> OpenError {
    OpenError::new(OpenErrorKind::Unavailable, place, StoreError::from(fault).to_string())
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(20).collect()
}
