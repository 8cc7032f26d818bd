//! What is looked at before a server is used: whether it keeps what it confirms.

use std::collections::HashMap;

use onlyonce_store::{OpenError, OpenErrorKind};

use crate::target::{Kind, Target};

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
}

/// The settings that `INFO` does not tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(HashMap<String, String>);

impl Asked {
    /// Those that are asked for.
    pub(crate) const NAMES: [&str; 2] = ["appendfsync", "no-appendfsync-on-rewrite"];

    pub(crate) fn new(pairs: HashMap<String, String>) -> Self {
        Self(pairs)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Why a server is no store, or what the operator should know of it.
///
/// # Errors
/// The first setting that would break what a store promises, and what it must be.
pub(crate) fn check(
    place: &str,
    target: &Target,
    told: &Told,
    asked: &Asked,
) -> Result<Vec<String>, OpenError> {
    let refuse = |text: String| Err(OpenError::new(OpenErrorKind::Refused, place, text));
    let version = told.get("redis_version");
    if number(version) < OLDEST {
        return refuse(format!("its version is {version}, and 6.2 is the oldest that is known"));
    }
    if told.get("role") != "master" {
        let master = format!("{}:{}", told.get("master_host"), told.get("master_port"));
        return refuse(format!("it is a replica; its master is {master}"));
    }
    match (told.get("cluster_enabled") == "1", &target.kind) {
        (true, Kind::Single | Kind::Sentinel(_)) => {
            return refuse("it is a node of a cluster: say redis+cluster://".to_owned());
        }
        (false, Kind::Cluster) => {
            return refuse("it is no node of a cluster: say redis://".to_owned());
        }
        (true, Kind::Cluster) | (false, Kind::Single | Kind::Sentinel(_)) => {}
    }
    let policy = told.get("maxmemory_policy");
    // What is evicted under volatile-* are keys that expire, and none of ours do.
    if policy != "noeviction" && !policy.starts_with("volatile-") {
        return refuse(format!(
            "maxmemory-policy is {policy}, which deletes records when the memory is used up: it \
             must be noeviction"
        ));
    }
    if told.get("aof_enabled") != "1" {
        return refuse(
            "appendonly is no, so what was confirmed is lost in a crash: it must be yes".to_owned(),
        );
    }
    if told.get("aof_last_write_status") != "ok" {
        return refuse("its last write to the append-only file failed".to_owned());
    }
    let mut warnings = durability(place, target, asked)?;
    let (has, wants) = (told.replicas(), target.replicas);
    if has < wants {
        return refuse(format!(
            "`replicas={wants}` is asked for, and {has} follow it: no write would be confirmed"
        ));
    }
    if wants == 0 && (0 < has || matches!(target.kind, Kind::Sentinel(_))) {
        warnings.push(format!(
            "{place}: a failover loses what the replica had not got: `replicas=1` makes that \
             seldom, and nothing makes it never"
        ));
    }
    Ok(warnings)
}

fn durability(place: &str, target: &Target, asked: &Asked) -> Result<Vec<String>, OpenError> {
    let refuse = |text: String| Err(OpenError::new(OpenErrorKind::Refused, place, text));
    let [Some(sync), Some(on_rewrite)] = Asked::NAMES.map(|name| asked.get(name)) else {
        if target.accept_unchecked {
            return Ok(vec![format!(
                "{place}: it does not tell its settings: whether it syncs before it confirms is \
                 not known (`accept=unchecked`)"
            )]);
        }
        return refuse(
            "it does not tell its settings (CONFIG GET): allow that, or make sure of appendfsync \
             always and no-appendfsync-on-rewrite no, and say so by `accept=unchecked`"
                .to_owned(),
        );
    };
    if on_rewrite != "no" {
        return refuse(format!(
            "no-appendfsync-on-rewrite is {on_rewrite}, so nothing is synced while the file is \
             rewritten: it must be no"
        ));
    }
    match sync {
        "always" => Ok(Vec::new()),
        "everysec" if target.accept_everysec => Ok(vec![format!(
            "{place}: appendfsync is everysec: what was confirmed within the last second or two \
             before a crash may run again (`accept=everysec`)"
        )]),
        "everysec" => refuse(
            "appendfsync is everysec, so what was confirmed within the last second or two is lost \
             in a crash: it must be always, unless `accept=everysec` takes that risk"
                .to_owned(),
        ),
        other => refuse(format!(
            "appendfsync is {other}, so what was confirmed is lost in a crash: it must be always"
        )),
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
            let checked = check("a", &target, &told(version), &asked);
            assert_eq!(checked.is_ok(), lets_in, "{version}: {checked:?}");
        }
    }
}
