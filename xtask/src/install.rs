//! Installs Debian packages that tests and benchmarks need, without starting any service.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, repo, steps};

/// A program and the package that brings it.
pub(crate) type Package = (&'static str, &'static str);

/// What the tests use.
pub(crate) const TEST_PACKAGES: [Package; 21] = [
    ("nginx", "nginx"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("wrk", "wrk"),
    ("strace", "strace"),
    ("faketime", "faketime"),
    ("redis-server", "redis-server"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("python3", "python3-venv"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("pg_ctlcluster", "postgresql"),
    ("pgbouncer", "pgbouncer"),
    // The server without a service, and what makes a node of a cluster of it.
    ("/usr/sbin/mariadbd", "mariadb-server-core"),
    ("mariadb", "mariadb-client-core"),
    ("/usr/lib/galera/libgalera_smm.so", "galera-4"),
    ("rabbitmq-server", "rabbitmq-server"),
    ("nats-server", "nats-server"),
    ("/usr/lib/dovecot/imap", "dovecot-imapd"),
    // No program: a library for the system's Python.
    ("/usr/lib/python3/dist-packages/pika/__init__.py", "python3-pika"),
];

/// Where Debian looks whether a service may start when its package is installed.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs those of `packages` whose program is not there.
pub(crate) fn run(packages: &[Package]) -> Outcome {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(program, _)| !repo::on_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("    installing {}", missing.join(", "));
    install(&missing).map_err(|failure| {
        let list = missing.join(" ");
        format!("{failure}\ninstall these by hand and run again: apt-get install {list}").into()
    })
}

/// Installs packages that have no program to be looked for.
pub(crate) fn run_packages(packages: &[String]) -> Outcome {
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    install(&packages)
}

fn install(packages: &[&str]) -> Outcome {
    if !repo::on_path("apt-get") {
        return Err("there is no apt-get here".into());
    }
    let policy = Policy::forbid_services()?;
    let flags = ["-y", "-q", "--no-install-recommends"];
    let first = steps::quiet("apt", apt("install").args(flags).args(packages));
    let ended = first.or_else(|_| {
        // An image without package lists: fetch them once, then try again.
        steps::quiet("apt-update", &mut apt("update"))?;
        steps::quiet("apt", apt("install").args(flags).args(packages))
    });
    drop(policy);
    ended
}

pub(crate) fn apt(verb: &str) -> Command {
    let mut command = as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", verb]);
    command
}

pub(crate) fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// Keeps an installed nginx off port 80; gives the machine's own rule back when dropped.
struct Policy {
    ours: bool,
}

impl Policy {
    fn forbid_services() -> Result<Self, crate::Failure> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let script = format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}");
        steps::quiet("policy", as_root("sh").args(["-c", &script]))?;
        Ok(Self { ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            let _ = steps::quiet("policy", as_root("rm").args(["-f", POLICY]));
        }
    }
}
