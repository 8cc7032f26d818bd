//! A relay of TCP between a client and a server, that can be cut, held and told to lose things.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use crate::port::Port;
use crate::relay_owner::owner;

/// A direction through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What clients say.
    ToServer,
    /// What the server answers.
    ToClient,
}

/// Forwards connections to a server until it is told otherwise.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// No connection gets through.
    cut: bool,
    /// Connections of these processes do not get through.
    barred: Vec<u32>,
    /// Nothing gets through, and no connection is closed.
    held: bool,
    /// What is lost on its way, without a word.
    lost: Option<Way>,
    /// After so many more bytes in this direction all connections are cut.
    left: Option<(Way, usize)>,
    /// What has passed, in bytes: to the server, to the client.
    passed: (usize, usize),
    /// How many bytes were lost.
    gone: usize,
    links: Vec<Link>,
    closed: bool,
}

/// Both ends of a connection, and the process at its beginning if it had to be known.
#[derive(Debug)]
struct Link {
    ends: [TcpStream; 2],
    owner: Option<u32>,
}

impl Link {
    fn close(&self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Relay {
    /// One in front of `target`, at a port of its own.
    pub fn to(target: SocketAddr) -> Self {
        Self::at(Port::free(), target)
    }

    /// One in front of `target`, at this port.
    pub fn at(port: Port, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let state = Mutex::default();
        let shared = Arc::new(Shared { target, state, changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.lock().closed {
                    return;
                }
                accepting.link(&client);
            }
        });
        Self { port, shared }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port where clients connect to.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Cuts every connection, now and from now on.
    pub fn cut(&self) {
        self.shared.change(|state| {
            state.cut = true;
            state.links.drain(..).for_each(|link| link.close());
        });
    }

    /// Cuts the connections of these processes, now and from now on.
    pub fn bar(&self, processes: &[u32]) {
        self.shared.change(|state| {
            state.barred.extend_from_slice(processes);
            let barred = state.barred.clone();
            state.links.retain(|link| {
                let stays = link.owner.is_some_and(|owner| !barred.contains(&owner));
                if !stays {
                    link.close();
                }
                stays
            });
        });
    }

    /// Cuts every connection once; new ones get through.
    pub fn break_off(&self) {
        self.shared.change(|state| state.links.drain(..).for_each(|link| link.close()));
    }

    /// Lets nothing through, without closing anything, until [`Self::mend`].
    pub fn hold(&self) {
        self.shared.change(|state| state.held = true);
    }

    /// Loses all that goes this way, without closing anything, until [`Self::mend`].
    pub fn lose(&self, way: Way) {
        self.shared.change(|state| state.lost = Some(way));
    }

    /// Cuts all connections once so many more bytes have gone this way: those get through, and
    /// nothing after them, until [`Self::mend`].
    pub fn cut_after(&self, way: Way, bytes: usize) {
        self.shared.change(|state| state.left = Some((way, bytes)));
    }

    /// Lets everything through again. What was lost stays lost.
    pub fn mend(&self) {
        self.shared.change(|state| {
            state.cut = false;
            state.barred.clear();
            state.held = false;
            state.lost = None;
            state.left = None;
        });
    }

    /// How many bytes were lost because of [`Self::lose`].
    pub fn lost(&self) -> usize {
        self.shared.lock().gone
    }

    /// How many bytes have gone this way.
    pub fn passed(&self, way: Way) -> usize {
        let (to_server, to_client) = self.shared.lock().passed;
        match way {
            Way::ToServer => to_server,
            Way::ToClient => to_client,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.closed = true;
            state.cut = true;
            state.links.drain(..).for_each(|link| link.close());
        });
        // Wakes the thread that accepts, which sees that it is over.
        let _ = TcpStream::connect(self.address());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn link(self: &Arc<Self>, client: &TcpStream) {
        let owner = client.peer_addr().ok().and_then(owner);
        let barred = {
            let state = self.lock();
            // Whoever cannot be told comes again.
            let is_barred = owner.is_none_or(|owner| state.barred.contains(&owner));
            state.cut || (is_barred && !state.barred.is_empty())
        };
        let Some(server) = (!barred).then(|| TcpStream::connect(self.target).ok()).flatten() else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        for end in [client, &server] {
            let _ = end.set_nodelay(true);
        }
        let same = |end: &TcpStream| end.try_clone().unwrap();
        let ends = [same(client), same(&server)];
        self.lock().links.push(Link { ends, owner });
        for (from, to, way) in [
            (same(client), same(&server), Way::ToServer),
            (same(&server), same(client), Way::ToClient),
        ] {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                shared.pump(&from, &to, way);
                for end in [from, to] {
                    let _ = end.shutdown(Shutdown::Both);
                }
            });
        }
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, way: Way) {
        let mut piece = vec![0; 16 << 10];
        loop {
            let length = match from.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            let Some(pass) = self.pass(length, way) else { return };
            if to.write_all(&piece[..pass]).is_err() {
                return;
            }
            if self.is_used_up(way) {
                self.cut_now();
                return;
            }
        }
    }

    /// How many of these bytes get through; waits while nothing does.
    fn pass(&self, length: usize, way: Way) -> Option<usize> {
        let mut state = self.lock();
        while state.held && !state.cut {
            state = self.changed.wait(state).unwrap();
        }
        if state.cut {
            return None;
        }
        if state.lost == Some(way) {
            state.gone += length;
            return Some(0);
        }
        let pass = match &mut state.left {
            Some((limited, left)) if *limited == way => {
                let pass = length.min(*left);
                *left -= pass;
                pass
            }
            Some(_) | None => length,
        };
        match way {
            Way::ToServer => state.passed.0 += pass,
            Way::ToClient => state.passed.1 += pass,
        }
        Some(pass)
    }

    fn is_used_up(&self, way: Way) -> bool {
        self.lock().left == Some((way, 0))
    }

    fn cut_now(&self) {
        self.change(|state| {
            state.cut = true;
            state.links.drain(..).for_each(|link| link.close());
        });
    }
}
