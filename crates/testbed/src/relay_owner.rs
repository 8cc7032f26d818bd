//! Which process is at the other end of a loopback connection.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The process that connected from this address, as the kernel's tables tell it. `None` if it is
/// gone by now, or belongs to somebody else.
pub(crate) fn owner(client: SocketAddr) -> Option<u32> {
    let IpAddr::V4(ip) = client.ip() else { return None };
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), client.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.nth(1) == Some(&local)).then(|| words.nth(7))?
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).find(|id: &u32| {
        fs::read_dir(format!("/proc/{id}/fd")).is_ok_and(|files| {
            files
                .filter_map(Result::ok)
                .any(|file| fs::read_link(file.path()).is_ok_and(|it| it.as_os_str() == &*socket))
        })
    })
}
