//! What is looked at before a cluster is used: who its members are, and whether it is well.

use std::time::Duration;

use onlyonce_store::{OpenError, OpenErrorKind};
use tokio::time::timeout;
use tonic::Status;

use crate::client::Client;
use crate::error::fault;
use crate::members::Members;
use crate::target::Target;

/// How long a member may take to be looked at.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// The oldest version that is let in.
const OLDEST: (u32, u32) = (3, 4);

/// A cluster that was let in.
pub(crate) struct Seen {
    /// Which one it is.
    pub(crate) cluster: u64,
    /// What the operator should know.
    pub(crate) warnings: Vec<String>,
}

/// Looks at the cluster through each member of the URL, and prefers one that is good.
///
/// # Errors
/// No member can be reached, or what breaks a promise of a store.
pub(crate) async fn look(members: &Members, target: &Target) -> Result<Seen, OpenError> {
    let mut warnings = Vec::new();
    let mut failed = Vec::new();
    let mut found: Option<(u64, String)> = None;
    for (place, client) in members.each().await {
        let looked = timeout(LOOK_MAX, one(place, client, target)).await;
        match looked.unwrap_or_else(|_| Err(failure(place, "it does not answer"))) {
            Ok((cluster, _)) if found.as_ref().is_some_and(|(other, _)| *other != cluster) => {
                let text = "it belongs to another cluster than the members named before it";
                return Err(OpenError::new(OpenErrorKind::Refused, place, text));
            }
            Ok((cluster, more)) => {
                if found.is_none() {
                    found = Some((cluster, place.to_owned()));
                }
                warnings.extend(more);
            }
            Err(error) if error.kind() == OpenErrorKind::Refused => return Err(error),
            Err(error) => failed.push(error.to_string()),
        }
    }
    let Some((cluster, place)) = found else {
        let text = failed.join("; ");
        return Err(OpenError::new(OpenErrorKind::Unavailable, target.to_string(), text));
    };
    members.prefer(&place);
    warnings.extend(failed.into_iter().map(|text| format!("not reached: {text}")));
    warnings.sort_unstable();
    warnings.dedup();
    Ok(Seen { cluster, warnings })
}

/// Which cluster it is, by one member.
async fn one(
    place: &str,
    client: Client,
    target: &Target,
) -> Result<(u64, Vec<String>), OpenError> {
    let unavailable = |status: Status| failure(place, fault(place, &status).text());
    let refuse = |text: String| Err(OpenError::new(OpenErrorKind::Refused, place, text));
    let health = client.health().await.map_err(unavailable)?;
    if number(&health.version) < OLDEST {
        let version = health.version;
        return refuse(format!("its version is {version}, and 3.4 is the oldest that is known"));
    }
    if health.is_learner {
        return refuse("it is a learner, which has no vote: name voting members".to_owned());
    }
    if health.leader == 0 {
        return Err(failure(place, "it has no leader: too few members reach each other"));
    }
    if let Some(alarm) = client.alarms().await.map_err(unavailable)?.alarms.first() {
        let name = match alarm.kind {
            1 => "NOSPACE: there is no room left",
            2 => "CORRUPT: a member has other data than the rest",
            _ => "of an unknown kind",
        };
        let text = "; see `etcdctl alarm list`, mend it, then `etcdctl alarm disarm`";
        return refuse(format!("an alarm is raised: {name}{text}"));
    }
    let listed = client.members().await.map_err(unavailable)?.members;
    let voters = listed.iter().filter(|member| !member.is_learner).count();
    let mut warnings = Vec::new();
    if voters < 3 {
        let what = format!("the cluster has {voters} voting member(s), so it is lost with a disk");
        if !target.accept_single {
            return refuse(format!("{what}: have three, or take the risk by `accept=single`"));
        }
        warnings.push(format!("{what} (`accept=single`)"));
    }
    let cluster = health.header.map(|header| header.cluster).unwrap_or_default();
    Ok((cluster, warnings))
}

fn failure(place: &str, text: &str) -> OpenError {
    OpenError::new(OpenErrorKind::Unavailable, place, text)
}

fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}
