//! A disk in memory that remembers every call, so that a crash can be put after any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::disk::{Disk, Medium};

/// What the medium writes in one piece.
const SECTOR: usize = 512;

/// A call that changes something.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Create(usize, String),
    Write(usize, u64, Vec<u8>),
    Sync(usize),
    /// A sync that failed: what it should have written looks clean from then on.
    LostSync(usize),
    Rename(String, String),
    Remove(String),
    SyncNames,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
    log: Vec<Call>,
    /// How many more syncs succeed.
    syncs_left: Option<u32>,
    /// How many bytes of files there may be.
    room: Option<usize>,
    /// The file that cannot be made.
    refused: Option<String>,
    /// The threads that have read.
    readers: BTreeSet<String>,
    /// Who is told when a file is cut, and is waited for.
    gate: Option<(Sender<()>, Receiver<()>)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

/// A small generator: seeds must mean the same everywhere (xorshift64*, Vigna 2016).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How many calls were made.
    pub(super) fn calls(&self) -> usize {
        self.state().log.len()
    }

    /// How many files with such names were made.
    pub(super) fn created(&self, ending: &str) -> usize {
        let is_one = |call: &&Call| matches!(call, Call::Create(_, name) if name.ends_with(ending));
        self.state().log.iter().filter(is_one).count()
    }

    /// The names of the threads that have read since this was asked for.
    pub(super) fn readers(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.state().readers)
    }

    pub(super) fn fail_syncs_after(&self, syncs: u32) {
        self.state().syncs_left = Some(syncs);
    }

    pub(super) fn limit_room(&self, bytes: Option<usize>) {
        self.state().room = bytes;
    }

    pub(super) fn refuse_new(&self, name: Option<&str>) {
        self.state().refused = name.map(str::to_owned);
    }

    /// The next file that is cut says so, and waits until it may go on.
    pub(super) fn wait_when_cut(&self) -> (Receiver<()>, Sender<()>) {
        let ((tell, told), (go_on, may)) = (channel(), channel());
        self.state().gate = Some((tell, may));
        (told, go_on)
    }

    /// The most that was written to a file without a sync between, in bytes.
    pub(super) fn most_at_once(&self) -> usize {
        let (mut most, mut unsynced) = (0, BTreeMap::new());
        for call in &self.state().log {
            match call {
                Call::Write(file, _, data) => {
                    let bytes = unsynced.entry(*file).or_insert(0);
                    *bytes += data.len();
                    most = most.max(*bytes);
                }
                Call::Sync(file) => drop(unsynced.remove(file)),
                Call::LostSync(_) | Call::Create(..) => {}
                Call::Rename(..) | Call::Remove(_) | Call::SyncNames => {}
            }
        }
        most
    }

    /// Changes bytes behind the journal's back.
    pub(super) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[name];
        change(&mut state.files[file]);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn forget(&self, name: &str) {
        self.state().names.remove(name);
    }

    /// The disk as the next process finds it if this one is killed behind the first `calls` calls:
    /// all that was written can be read, whether it was synced or not.
    pub(super) fn after_kill(&self, calls: usize) -> Self {
        let state = self.state();
        let log = state.log[..calls].to_vec();
        let (mut files, mut names): (Vec<Vec<u8>>, _) = (Vec::new(), BTreeMap::new());
        for call in &log {
            match call {
                Call::Create(file, _) => files.resize(file + 1, Vec::new()),
                Call::Write(file, offset, data) => write(&mut files[*file], *offset, data),
                Call::Rename(..) | Call::Remove(_) | Call::SyncNames => {}
                Call::Sync(_) | Call::LostSync(_) => {}
            }
            name(&mut names, call);
        }
        Self(Arc::new(Mutex::new(State { files, names, log, ..State::default() })))
    }

    /// The disk as it may be after a crash behind the first `calls` calls: what was synced is
    /// there, and of the rest any sectors and any names.
    pub(super) fn after_crash(&self, calls: usize, random: &mut Random) -> Self {
        let state = self.state();
        let mut durable: Vec<Vec<u8>> = Vec::new();
        let mut pending: Vec<Vec<(u64, Vec<u8>)>> = Vec::new();
        let (mut names, mut names_pending) = (BTreeMap::new(), Vec::new());
        for call in &state.log[..calls] {
            match call {
                Call::Create(file, _) => {
                    durable.resize(file + 1, Vec::new());
                    pending.resize(file + 1, Vec::new());
                    names_pending.push(call);
                }
                Call::Write(file, offset, data) => pending[*file].push((*offset, data.clone())),
                Call::Sync(file) => {
                    for (offset, data) in pending[*file].drain(..) {
                        write(&mut durable[*file], offset, &data);
                    }
                }
                Call::LostSync(file) => pending[*file].clear(),
                Call::Rename(..) | Call::Remove(_) => names_pending.push(call),
                Call::SyncNames => {
                    names_pending.drain(..).for_each(|call| name(&mut names, call));
                }
            }
        }
        for (file, writes) in pending.into_iter().enumerate() {
            for (offset, data) in writes {
                for (at, sector) in data.chunks(SECTOR).enumerate() {
                    if random.below(2) == 0 {
                        write(&mut durable[file], offset + (at * SECTOR) as u64, sector);
                    }
                }
            }
        }
        // Names become durable in their order, as far as they do.
        let kept = random.below(names_pending.len() as u64 + 1) as usize;
        names_pending.into_iter().take(kept).for_each(|call| name(&mut names, call));
        Self(Arc::new(Mutex::new(State { files: durable, names, ..State::default() })))
    }
}

fn name(names: &mut BTreeMap<String, usize>, call: &Call) {
    match call {
        Call::Create(file, name) => {
            names.insert(name.clone(), *file);
        }
        Call::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Call::Remove(name) => {
            names.remove(name);
        }
        Call::Write(..) | Call::Sync(_) | Call::LostSync(_) | Call::SyncNames => {}
    }
}

fn write(file: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (from, until) = (offset as usize, offset as usize + data.len());
    if file.len() < until {
        file.resize(until, 0);
    }
    file[from..until].copy_from_slice(data);
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        let file = *self.state().names.get(name).ok_or_else(missing)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        let mut state = self.state();
        if state.refused.as_deref() == Some(name) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = state.files.len();
        state.files.push(Vec::new());
        state.names.insert(name.to_owned(), file);
        state.log.push(Call::Create(file, name.to_owned()));
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.names.remove(from).ok_or_else(missing)?;
        state.names.insert(to.to_owned(), file);
        state.log.push(Call::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.names.remove(name).ok_or_else(missing)?;
        state.files[file] = Vec::new();
        state.log.push(Call::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.state().log.push(Call::SyncNames);
        Ok(())
    }

    fn place(&self, name: &str) -> PathBuf {
        PathBuf::from("disk").join(name)
    }
}

impl Medium for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.readers.insert(thread::current().name().unwrap_or_default().to_owned());
        let from = offset as usize;
        let found = state.files[self.file].get(from..from + into.len());
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let used: usize = state.files.iter().map(Vec::len).sum();
        let grows = (offset as usize + data.len()).saturating_sub(state.files[self.file].len());
        if state.room.is_some_and(|room| room < used + grows) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        write(&mut state.files[self.file], offset, data);
        state.log.push(Call::Write(self.file, offset, data.to_vec()));
        Ok(())
    }

    fn names(&self) -> io::Result<u64> {
        Ok(self.disk.state().names.values().filter(|file| **file == self.file).count() as u64)
    }

    fn shorten(&self, length: u64) -> io::Result<()> {
        let gate = self.disk.state().gate.take();
        if let Some((tell, may)) = gate {
            tell.send(()).unwrap();
            may.recv().unwrap();
        }
        // No name leads to it, so no crash shows it.
        self.disk.state().files[self.file].truncate(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        match &mut state.syncs_left {
            Some(0) => {
                state.log.push(Call::LostSync(self.file));
                return Err(io::Error::other("the sync failed"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        state.log.push(Call::Sync(self.file));
        Ok(())
    }
}
