//! The settings of a server without which it does not keep what it has confirmed.

use std::collections::HashMap;

use onlyonce_store::{Checks, Need};

use crate::address::Accepts;

pub(crate) const VERSION: Need = Need::new("version", "MariaDB 10.5, MySQL 8.0, or newer");
pub(crate) const READ_ONLY: Need = Need::new("read_only", "OFF");
pub(crate) const FLUSH: Need = Need::new("innodb_flush_log_at_trx_commit", "1 or 3");
pub(crate) const METHOD: Need = Need::new("innodb_flush_method", "one that syncs");
pub(crate) const DOUBLEWRITE: Need = Need::new("innodb_doublewrite", "ON");
pub(crate) const SYNC_BINLOG: Need = Need::new("sync_binlog", "1 where log_bin is on");
pub(crate) const BINLOG_FORMAT: Need =
    Need::new("binlog_format", "not STATEMENT where log_bin is on");
pub(crate) const PACKET: Need = Need::new("max_allowed_packet", "4 MiB or more");
pub(crate) const SQL_MODE: Need = Need::new("sql_mode", "strict");
pub(crate) const GALERA: Need = Need::new("wsrep_on", "OFF");

/// Those that are asked for, besides `version`. Some are of one kind of server only.
const NAMES: &str = "'version', 'read_only', 'super_read_only', 'innodb_read_only',
  'innodb_flush_log_at_trx_commit', 'innodb_flush_method', 'innodb_doublewrite', 'log_bin',
  'sync_binlog', 'binlog_format', 'max_allowed_packet', 'sql_mode', 'wsrep_on',
  'rpl_semi_sync_master_enabled', 'rpl_semi_sync_master_wait_point',
  'rpl_semi_sync_master_wait_no_slave', 'rpl_semi_sync_master_timeout'";
/// The least that is taken at once, in bytes: replies of the proxy's usual size fit.
const PACKET_MIN: u64 = 4 << 20;

/// For how long a commit must wait for a replica before it is confirmed without one, in
/// milliseconds: a day, by when somebody has looked. MariaDB has no way to say for ever.
const WAIT_MIN: u64 = 86_400_000;

/// What a server tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(HashMap<String, String>);

impl Settings {
    /// Asks for them; the answer has a name and a value a row.
    pub(crate) fn question() -> String {
        format!("SHOW VARIABLES WHERE Variable_name IN ({NAMES})")
    }

    pub(crate) fn new(pairs: impl Iterator<Item = (String, String)>) -> Self {
        Self(pairs.map(|(name, value)| (name.to_lowercase(), value)).collect())
    }

    /// A setting; empty where there is none of this name.
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn is_on(&self, name: &str) -> bool {
        !["", "OFF", "0"].contains(&self.get(name))
    }

    /// What it takes at once, in bytes.
    pub(crate) fn packet(&self) -> u64 {
        self.get("max_allowed_packet").parse().unwrap_or_default()
    }

    /// Whether a transaction may be seen before it is synced. With a binary log that is synced
    /// first, and shown then.
    pub(crate) fn shows_unsynced(&self) -> bool {
        !self.is_on("log_bin")
    }

    /// Whether no commit is shown or confirmed before a replica has it.
    ///
    /// # Errors
    /// What has to be set for that, as `NAME = VALUE`.
    pub(crate) fn waits_for_replica(&self) -> Result<(), &'static str> {
        let wait = self.get("rpl_semi_sync_master_timeout").parse().unwrap_or(0_u64);
        if !self.is_on("rpl_semi_sync_master_enabled") {
            return Err("rpl_semi_sync_master_enabled = ON");
        }
        // Else others see it before, and what they were told of is gone after a failover.
        if self.get("rpl_semi_sync_master_wait_point") != "AFTER_SYNC" {
            return Err("rpl_semi_sync_master_wait_point = AFTER_SYNC");
        }
        if !self.is_on("rpl_semi_sync_master_wait_no_slave") {
            return Err("rpl_semi_sync_master_wait_no_slave = ON");
        }
        // After that everything is confirmed without one.
        if wait < WAIT_MIN {
            return Err("rpl_semi_sync_master_timeout = 86400000, a day, or more");
        }
        Ok(())
    }

    /// Looks at all of them.
    pub(crate) fn look(&self, accepts: Accepts, checks: &mut Checks) {
        let version = self.get("version");
        let why = format!("its version is {version}, and older than what is known");
        checks.must(VERSION, version, is_known(version), &why, "use a newer one");
        self.read_only(checks);
        self.synced(checks);
        self.binlog(checks);
        let packet = self.packet();
        let why = format!("max_allowed_packet is {packet}: what is to be kept does not fit");
        let fix = "`SET GLOBAL max_allowed_packet = 67108864`, and in the server's file";
        checks.must(PACKET, packet.to_string(), PACKET_MIN <= packet, &why, fix);
        let mode = self.get("sql_mode");
        let why = "sql_mode is not strict, although we have set it: values could be cut";
        let fix = "nothing between us and the server may change it";
        checks.must(SQL_MODE, mode, mode.contains("STRICT_"), why, fix);
        self.galera(accepts, checks);
    }

    fn read_only(&self, checks: &mut Checks) {
        let named = ["read_only", "super_read_only", "innodb_read_only"];
        let on = named.into_iter().find(|name| self.is_on(name));
        let why = format!("{} is on: it takes no writes", on.unwrap_or_default());
        let fix = "name the server that takes writes, or `SET GLOBAL read_only = OFF`";
        checks.must(READ_ONLY, on.unwrap_or("OFF"), on.is_none(), &why, fix);
    }

    fn synced(&self, checks: &mut Checks) {
        let flush = self.get(FLUSH.name);
        let why = format!(
            "innodb_flush_log_at_trx_commit is {flush}: a crash would lose what was confirmed"
        );
        let fix = "`SET GLOBAL innodb_flush_log_at_trx_commit = 1`, and in the server's file";
        checks.must(FLUSH, flush, ["1", "3"].contains(&flush), &why, fix);
        let method = self.get(METHOD.name);
        let syncs = !["nosync", "littlesync"].contains(&method.to_lowercase().as_str());
        let why = format!("innodb_flush_method is {method}: a crash would lose what was confirmed");
        let fix = "take that line out of the server's file, and start it again";
        checks.must(METHOD, method, syncs, &why, fix);
        let doubled = self.get(DOUBLEWRITE.name);
        let whole = ["ON", "1", "DETECT_AND_RECOVER"].contains(&doubled);
        let why = format!("innodb_doublewrite is {doubled}: a crash could tear what is kept");
        let fix = "innodb_doublewrite = ON in the server's file, and start it again";
        checks.must(DOUBLEWRITE, doubled, whole, &why, fix);
    }

    /// After a crash the server takes back what its binary log has not got.
    fn binlog(&self, checks: &mut Checks) {
        let on = self.is_on("log_bin");
        let (sync, format) = (self.get(SYNC_BINLOG.name), self.get(BINLOG_FORMAT.name));
        let says = |value: &str| {
            if on { value.to_owned() } else { format!("{value}, and log_bin is off") }
        };
        let why = format!(
            "sync_binlog is {sync} and log_bin is on: after a crash the server takes back what its \
             binary log has not got"
        );
        let fix = "`SET GLOBAL sync_binlog = 1`, and in the server's file";
        checks.must(SYNC_BINLOG, says(sync), !on || sync == "1", &why, fix);
        let why = "binlog_format is STATEMENT and log_bin is on: no transaction of ours is taken";
        let fix = "`SET GLOBAL binlog_format = MIXED`, or ROW, and in the server's file";
        checks.must(BINLOG_FORMAT, says(format), !on || format != "STATEMENT", why, fix);
    }

    fn galera(&self, accepts: Accepts, checks: &mut Checks) {
        let on = self.is_on(GALERA.name);
        let says = if on { "ON" } else { "OFF" };
        if on && accepts.galera {
            let why = "it is a node of a Galera cluster, on which nothing of this was tried \
                       (`accept=galera`)";
            checks.take("galera", GALERA, says, why, "");
        } else {
            let why = "it is a node of a Galera cluster, on which nothing of this was tried";
            let fix = "use one server, unless `accept=galera` takes that risk";
            checks.must(GALERA, says, !on, why, fix);
        }
    }
}

/// Whether it is new enough: `10.11.14-MariaDB-..`, `8.0.36`.
fn is_known(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or_default());
    let found: (u32, u32) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if version.contains("MariaDB") { (10, 5) <= found } else { (8, 0) <= found }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No old server, and none of MySQL, can be started here, so these are made up; real ones are
    /// in `tests/mysql/door.rs`.
    #[test]
    fn an_old_version_is_refused() {
        for (version, known) in [
            ("10.4.34-MariaDB-log", false),
            ("10.5.1-MariaDB", true),
            ("10.11.14-MariaDB-0+deb12u2", true),
            ("11.8.2-MariaDB", true),
            ("5.7.44-log", false),
            ("8.0.36", true),
            ("9.1.0-commercial", true),
            ("", false),
        ] {
            assert_eq!(is_known(version), known, "{version}");
        }
    }
}
