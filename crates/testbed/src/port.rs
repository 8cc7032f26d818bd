//! Ports that no other test takes.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

/// Below what systems give to outgoing connections, so that none of those takes the port while its
/// server is down.
const FROM: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A free port of the loopback interface. It is ours while this lives, whether or not anything
/// listens there.
#[derive(Debug)]
pub struct Port {
    number: u16,
    lock: PathBuf,
    _held: File,
}

impl Port {
    /// One that nobody has.
    pub fn free() -> Self {
        let folder = std::env::temp_dir().join("onlyonce-testbed-ports");
        std::fs::create_dir_all(&folder).unwrap();
        // Tests are processes that start together: let each begin elsewhere.
        let start = std::process::id().wrapping_mul(7_919) % u32::from(COUNT);
        (0..u32::from(COUNT))
            .map(|step| FROM + ((start + step) % u32::from(COUNT)) as u16)
            .find_map(|number| {
                let lock = folder.join(number.to_string());
                let mut options = OpenOptions::new();
                let held = options.create(true).truncate(false).write(true).open(&lock).ok()?;
                held.try_lock().ok()?;
                TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                Some(Self { number, lock, _held: held })
            })
            .expect("no port is free")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // The lock file stays if another test has it open by now; it locks a file without a name
        // then, and the port is looked at too.
        let _ = std::fs::remove_file(&self.lock);
    }
}
