//! What is looked at before a cluster is used: who its members are, and whether it is well.

use std::time::Duration;

use onlyonce_store::{Check, Checks, Found, Need, OpenError, OpenErrorKind, Warning};
use tokio::time::timeout;
use tonic::Status;

use crate::client::Client;
use crate::error::{fault, refused_way};
use crate::layout::Layout;
use crate::members::Members;
use crate::sync;
use crate::target::Target;

const MEMBER: Need = Need::new("member", "answers");
const VERSION: Need = Need::new("version", "3.4 or newer");
const VOTER: Need = Need::new("voter", "yes");
const LEADER: Need = Need::new("leader", "yes");
const ALARMS: Need = Need::new("alarms", "none");
const VOTERS: Need = Need::new("voting members", "3 or more");
const SYNC: Need = Need::new("fsync", "before a write is confirmed");
const CLUSTER: Need = Need::new("cluster", "one for all members");

/// All that is looked at at a member.
const NEEDS: [Need; 8] = [MEMBER, VERSION, VOTER, LEADER, ALARMS, VOTERS, SYNC, CLUSTER];

/// How long a member may take to be looked at.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// The oldest version that is let in.
const OLDEST: (u32, u32) = (3, 4);

/// A cluster that was let in.
pub(crate) struct Seen {
    /// Which one it is.
    pub(crate) cluster: u64,
    /// What the operator should know.
    pub(crate) warnings: Vec<Warning>,
}

/// Looks at the cluster through each member of the URL, and prefers one that is good.
///
/// # Errors
/// No member can be reached, or what breaks a promise of a store.
pub(crate) async fn look(members: &Members, target: &Target) -> Result<Seen, OpenError> {
    let mut warnings = Vec::new();
    let mut failed = Vec::new();
    let mut found: Option<(u64, String)> = None;
    for Looked { place, cluster, checks } in each(members, target).await {
        match checks.verdict() {
            Ok(()) => {
                if found.is_none() {
                    found = cluster.map(|cluster| (cluster, place));
                }
                let risks = checks.accepted();
                warnings.extend(risks.map(|it| Warning { risk: it.risk, text: it.why.clone() }));
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
    let away = |text| Warning { risk: None, text: format!("not reached: {text}") };
    warnings.extend(failed.into_iter().map(away));
    warnings.sort_unstable();
    warnings.dedup();
    Ok(Seen { cluster, warnings })
}

/// Everything that is looked at at each member, and the cluster if it would be let in.
pub(crate) async fn doctor(members: &Members, target: &Target) -> (Vec<Check>, Option<u64>) {
    let looked = each(members, target).await;
    let good = looked.iter().find(|it| it.checks.verdict().is_ok());
    let cluster = good.and_then(|it| it.cluster);
    let mut told: Vec<Check> = looked.into_iter().flat_map(|it| it.checks.finish(&NEEDS)).collect();
    // One that is away is done without as long as there is another.
    let away = told.iter_mut().filter(|it| it.found == Found::Refused(OpenErrorKind::Unavailable));
    if cluster.is_some() {
        away.for_each(|check| check.found = Found::Unasked);
    }
    (told, cluster)
}

/// A member that was looked at.
struct Looked {
    place: String,
    /// Which cluster it belongs to, if it says so.
    cluster: Option<u64>,
    checks: Checks,
}

/// Looks at each member.
async fn each(members: &Members, target: &Target) -> Vec<Looked> {
    let mut all: Vec<Looked> = Vec::new();
    for (place, client) in members.each().await {
        let mut checks = Checks::at(place);
        let looked = timeout(LOOK_MAX, one(place, client, target, &mut checks)).await;
        let looked = looked.unwrap_or_else(|_| Err(failure(place, "it does not answer")));
        if let Err(error) = &looked {
            checks.failed(MEMBER, error);
        }
        let cluster = looked.ok();
        if let Some(cluster) = cluster {
            let first = all.iter().find_map(|it| it.cluster).unwrap_or(cluster);
            let why = "it belongs to another cluster than the members named before it";
            let fix = "name the members of one cluster";
            checks.must(CLUSTER, format!("{cluster:x}"), cluster == first, why, fix);
        }
        all.push(Looked { place: place.to_owned(), cluster, checks });
    }
    all
}

/// Which cluster it is, by one member.
async fn one(
    place: &str,
    client: Client,
    target: &Target,
    checks: &mut Checks,
) -> Result<u64, OpenError> {
    let unavailable = |status: Status| failure(place, fault(place, &status).text());
    let health = client.health().await.map_err(|status| {
        let hint = refused_way(target, &status);
        failure(place, &format!("{}{hint}", fault(place, &status).text()))
    })?;
    checks.good(MEMBER, "yes");
    let version = &health.version;
    let why = format!("its version is {version}, and 3.4 is the oldest that is known");
    checks.must(VERSION, version, OLDEST <= number(version), &why, "use a newer one");
    if health.is_learner {
        let why = "it is a learner, which has no vote";
        // It does not answer what is asked further on.
        let kind = OpenErrorKind::Refused;
        return Err(checks.refuse(kind, VOTER, "no", why, "name voting members"));
    }
    checks.good(VOTER, "yes");
    if health.leader == 0 {
        let why = "it has no leader: too few members reach each other";
        let fix = "start the others, and look at the network between them";
        return Err(checks.refuse(OpenErrorKind::Unavailable, LEADER, "none", why, fix));
    }
    checks.good(LEADER, "yes");
    let alarms = client.alarms().await.map_err(unavailable)?.alarms;
    let alarm = alarms.first().map(|alarm| match alarm.kind {
        1 => "NOSPACE: there is no room left",
        2 => "CORRUPT: a member has other data than the rest",
        _ => "of an unknown kind",
    });
    let why = format!("an alarm is raised: {}", alarm.unwrap_or_default());
    let fix = "see `etcdctl alarm list`, mend it, then `etcdctl alarm disarm`";
    checks.must(ALARMS, alarm.unwrap_or("none"), alarm.is_none(), &why, fix);
    let listed = client.members().await.map_err(unavailable)?.members;
    let voters = listed.iter().filter(|member| !member.is_learner).count();
    let what = format!("the cluster has {voters} voting member(s), so it is lost with a disk");
    let says = voters.to_string();
    if voters < 3 && target.accept_single {
        checks.take("single", VOTERS, says, &format!("{what} (`accept=single`)"), "have three");
    } else {
        let fix = "have three, or take the risk by `accept=single`";
        checks.must(VOTERS, says, 3 <= voters, &what, fix);
    }
    // One that has no room takes no write to see it by.
    if alarm.is_none() {
        let layout = Layout::new(&target.prefix);
        let syncs = sync::look(&client, &layout).await.map_err(unavailable)?;
        let why = "it does not sync its log (--unsafe-no-fsync): what was confirmed is lost in a \
                   crash";
        let fix = "start it without that";
        if let Some(syncs) = syncs {
            checks.must(SYNC, if syncs { "yes" } else { "no" }, syncs, why, fix);
        }
    }
    Ok(health.header.map(|header| header.cluster).unwrap_or_default())
}

fn failure(place: &str, text: &str) -> OpenError {
    OpenError::new(OpenErrorKind::Unavailable, place, text)
}

fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}
