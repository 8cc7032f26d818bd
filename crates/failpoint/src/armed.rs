//! What the macros do in a build of the tests that kill.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Names the file with the order.
const ORDER: &str = "ONLYONCE_KILL_AT";
/// How often a thread that is held looks whether its order is still there.
const LOOK_EVERY: Duration = Duration::from_millis(1);

static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| Some(std::env::var_os(ORDER)?.into()));

/// Does as the order says, if this is its place and what it says of the state is true.
pub fn pass(name: &str, state: &dyn Debug) {
    let Some(file) = FILE.as_ref() else { return };
    // Written while we run: an order counts from then on.
    let Ok(order) = std::fs::read_to_string(file) else { return };
    let mut lines = order.lines();
    let Some((what, place)) = lines.next().and_then(|line| line.split_once(' ')) else { return };
    if place != name {
        return;
    }
    let state = format!("{state:?}");
    if !lines.all(|line| state.contains(line)) {
        return;
    }
    match what {
        "kill" => kill(),
        "hold" => {
            tell(file, name);
            // A thread that cannot go on, as one whose process is stopped here.
            while file.exists() {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        _ => tell(file, name),
    }
}

fn tell(file: &Path, name: &str) {
    let _ = std::fs::write(file.with_extension("passed"), name);
}

fn kill() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // The signal is on its way; nothing more is done until it is here.
    loop {
        std::thread::park();
    }
}

/// A stream with places around its reads and writes.
#[derive(Debug)]
pub struct Tapped<T> {
    name: &'static str,
    stream: T,
}

impl<T> Tapped<T> {
    /// `name` says whose stream it is.
    pub const fn new(name: &'static str, stream: T) -> Self {
        Self { name, stream }
    }

    fn pass(&self, what: &str, bytes: &[u8]) {
        pass(&format!("{}.{what}", self.name), &String::from_utf8_lossy(bytes));
    }

    fn wrote(&self, bytes: &[u8], polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = polled {
            self.pass("write.after", &bytes[..*count]);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tapped<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            self.pass("read.after", &buffer.filled()[before..]);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tapped<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pass("write.before", bytes);
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(bytes, &polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.pass("write.before", &bytes);
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(&bytes, &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
