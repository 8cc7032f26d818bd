//! What is looked at before a server is used: whether it keeps what it confirms.

use std::collections::HashMap;

use onlyonce_store::{Checks, Need, OpenError};

use crate::target::{Kind, Target};

const SERVER: Need = Need::new("server", "answers");
const VERSION: Need = Need::new("redis_version", "6.2 or newer");
const ROLE: Need = Need::new("role", "master");
const CLUSTER: Need = Need::new("cluster-enabled", "as the address says");
const POLICY: Need = Need::new("maxmemory-policy", "noeviction, or volatile-*");
const APPENDS: Need = Need::new("appendonly", "yes");
const LAST_WRITE: Need = Need::new("aof_last_write_status", "ok");
const REWRITE: Need = Need::new("no-appendfsync-on-rewrite", "no");
const SYNC: Need = Need::new("appendfsync", "always");
const REPLICAS: Need = Need::new("replicas", "as many as the address asks for");
const FAILOVER: Need = Need::new("failover", "none: no replica follows, and no sentinel watches");

/// All that is looked at at a server.
pub(crate) const NEEDS: [Need; 11] = [
    SERVER, VERSION, ROLE, CLUSTER, POLICY, APPENDS, LAST_WRITE, REWRITE, SYNC, REPLICAS, FAILOVER,
];

/// How many replicas must be there for it to take a write. Nothing is refused for it.
const MIN_REPLICAS: &str = "min-replicas-to-write";

/// The oldest version that is let in: the first that has all that is used.
const OLDEST: (u32, u32) = (6, 2);

/// What a server tells about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(HashMap<String, String>);

impl Told {
    /// Reads the answer to `INFO`.
    pub(crate) fn parse(info: &str) -> Self {
        let lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Which history of writes it is on: another after a failover, and after a restart.
    pub(crate) fn history(&self) -> &str {
        self.get("master_replid")
    }

    /// Whether it was a replica and was promoted, since it last started.
    pub(crate) fn was_promoted(&self) -> bool {
        self.get("master_replid2").bytes().any(|digit| digit != b'0')
    }

    /// How many replicas follow it.
    pub(crate) fn replicas(&self) -> u32 {
        self.get("connected_slaves").parse().unwrap_or_default()
    }

    /// How many of them could take its place. One that is sent its first copy could not yet, and
    /// who only copies, as `redis-cli --rdb` does, never goes on from there.
    fn heirs(&self) -> u32 {
        let is_copying = |at: &u32| {
            let told = self.get(&format!("slave{at}"));
            told.contains("state=") && !told.contains("state=online")
        };
        (0..self.replicas()).filter(|at| !is_copying(at)).fold(0, |count, _| count + 1)
    }
}

/// The settings that `INFO` does not tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(HashMap<String, String>);

impl Asked {
    /// Those that are asked for.
    pub(crate) const NAMES: [&str; 3] = [SYNC.name, REWRITE.name, MIN_REPLICAS];

    pub(crate) fn new(pairs: HashMap<String, String>) -> Self {
        Self(pairs)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Looks at a server: what keeps it from being a store, and what the operator should know of it.
pub(crate) fn look(place: &str, target: &Target, told: &Told, asked: &Asked) -> Checks {
    let mut checks = Checks::at(place);
    checks.good(SERVER, "yes");
    let version = told.get("redis_version");
    let why = format!("its version is {version}, and 6.2 is the oldest that is known");
    checks.must(VERSION, version, OLDEST <= number(version), &why, "use a newer one");
    let master = format!("{}:{}", told.get("master_host"), told.get("master_port"));
    let fix = format!("its master is {master}");
    let role = told.get("role");
    checks.must(ROLE, role, role == "master", "it is a replica", &fix);
    cluster(&mut checks, target, told);
    let policy = told.get("maxmemory_policy");
    // What is evicted under volatile-* are keys that expire, and none of ours do.
    let keeps = policy == "noeviction" || policy.starts_with("volatile-");
    let why =
        format!("maxmemory-policy is {policy}, which deletes records when the memory is used up");
    checks.must(POLICY, policy, keeps, &why, "it must be noeviction");
    let appends = told.get("aof_enabled") == "1";
    let why = "appendonly is no, so what was confirmed is lost in a crash";
    checks.must(APPENDS, if appends { "yes" } else { "no" }, appends, why, "it must be yes");
    let last = told.get("aof_last_write_status");
    let why = "its last write to the append-only file failed";
    checks.must(LAST_WRITE, last, last == "ok", why, "look at its log and its disk");
    durability(&mut checks, target, asked);
    replicas(&mut checks, target, told);
    failover(&mut checks, target, told, asked);
    checks
}

/// What could not be reached.
pub(crate) fn unreached(place: &str, error: &OpenError) -> Checks {
    let mut checks = Checks::at(place);
    checks.failed(SERVER, error);
    checks
}

fn cluster(checks: &mut Checks, target: &Target, told: &Told) {
    let is_node = told.get("cluster_enabled") == "1";
    let says = if is_node { "yes" } else { "no" };
    let (fits, why, fix) = match (is_node, &target.kind) {
        (true, Kind::Single | Kind::Sentinel(_)) => {
            (false, "it is a node of a cluster", "say redis+cluster://")
        }
        (false, Kind::Cluster) => (false, "it is no node of a cluster", "say redis://"),
        (true, Kind::Cluster) | (false, Kind::Single | Kind::Sentinel(_)) => (true, "", ""),
    };
    checks.must(CLUSTER, says, fits, why, fix);
}

fn durability(checks: &mut Checks, target: &Target, asked: &Asked) {
    let [Some(sync), Some(on_rewrite)] = [SYNC, REWRITE].map(|need| asked.get(need.name)) else {
        let says = "it does not tell";
        if target.accept_unchecked {
            let why = "it does not tell its settings: whether it syncs before it confirms is not \
                       known (`accept=unchecked`)";
            checks.take("unchecked", SYNC, says, why, "allow CONFIG GET");
        } else {
            let fix = "allow that, or make sure of appendfsync always and \
                       no-appendfsync-on-rewrite no, and say so by `accept=unchecked`";
            let why = "it does not tell its settings (CONFIG GET)";
            checks.must(SYNC, says, false, why, fix);
        }
        return;
    };
    let why = format!(
        "no-appendfsync-on-rewrite is {on_rewrite}, so nothing is synced while the file is \
         rewritten"
    );
    checks.must(REWRITE, on_rewrite, on_rewrite == "no", &why, "it must be no");
    match sync {
        "always" => checks.good(SYNC, sync),
        "everysec" if target.accept_everysec => {
            let why = "appendfsync is everysec: what was confirmed within the last second or two \
                       before a crash may run again (`accept=everysec`)";
            checks.take("everysec", SYNC, sync, why, "`CONFIG SET appendfsync always`");
        }
        "everysec" => {
            let why = "appendfsync is everysec, so what was confirmed within the last second or \
                       two is lost in a crash";
            let fix = "it must be always, unless `accept=everysec` takes that risk";
            checks.must(SYNC, sync, false, why, fix);
        }
        other => {
            let why = format!("appendfsync is {other}, so what was confirmed is lost in a crash");
            checks.must(SYNC, other, false, &why, "it must be always");
        }
    }
}

fn replicas(checks: &mut Checks, target: &Target, told: &Told) {
    let (has, wants) = (told.replicas(), target.replicas);
    if has < wants {
        let why = format!("`replicas={wants}` is asked for, and {has} follow it");
        let fix = "no write would be confirmed before there are so many";
        checks.must(REPLICAS, has.to_string(), false, &why, fix);
    } else {
        checks.good(REPLICAS, has.to_string());
    }
}

/// A replica that takes the master's place lacks what that had confirmed and not yet sent. With
/// `replicas` it has got that, but need not have it on its disk, and another may be promoted.
fn failover(checks: &mut Checks, target: &Target, told: &Told, asked: &Asked) {
    let (heirs, is_watched) = (told.heirs(), matches!(target.kind, Kind::Sentinel(_)));
    let least = asked.get(MIN_REPLICAS).unwrap_or("not told");
    let sentinels = if is_watched { ", sentinels watch" } else { "" };
    let says = format!("replicas {heirs}{sentinels}, {MIN_REPLICAS} {least}");
    let why = "a replica that takes its place lacks what it had not got, so a key that was \
               confirmed may run again";
    let fix = "`replicas=` their number, and min-replicas-to-write 1 or more at the server, make \
               that seldom; nothing makes it never";
    if heirs == 0 && !is_watched {
        checks.good(FAILOVER, says);
    } else if target.accept_failover {
        let cut_off = match (least, target.replicas) {
            ("0", 0) => {
                "; min-replicas-to-write is 0: a master that was cut off and replaced goes on \
                 confirming until it hears of it"
            }
            _ => "",
        };
        let why = format!("{why} (`accept=failover`){cut_off}");
        checks.take("failover", FAILOVER, says, &why, fix);
    } else {
        let fix = format!("{fix}: `accept=failover` takes that risk");
        checks.must(FAILOVER, says, false, why, &fix);
    }
}

fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No old server can be started here, so this one is made up; real ones are in
    /// `tests/door.rs`.
    #[test]
    fn an_old_version_is_refused() {
        let told = |version: &str| {
            Told::parse(&format!(
                "# Server\r\nredis_version:{version}\r\nrole:master\r\naof_enabled:1\r\n\
                 aof_last_write_status:ok\r\nmaxmemory_policy:noeviction\r\n"
            ))
        };
        let asked = Asked::NAMES.into_iter().zip(["always", "no"]);
        let asked = Asked::new(asked.map(|(a, b)| (a.to_owned(), b.to_owned())).collect());
        let target: Target = "redis://a".parse().unwrap();
        for (version, lets_in) in
            [("5.0.14", false), ("6.0.16", false), ("", false), ("6.2.0", true), ("10.1.2", true)]
        {
            let checked = look("a", &target, &told(version), &asked).verdict();
            assert_eq!(checked.is_ok(), lets_in, "{version}: {checked:?}");
        }
    }
}
