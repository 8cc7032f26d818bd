//! The socket in the journal's folder: the process that has the journal answers operators there.
//!
//! One question a connection: a JSON document, the end of the stream, and a JSON document back.
//! Only the folder's owner can open it.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use super::{Ask, Desk, Told, answer};
use crate::exit::Exit;
use crate::failure::Failure;

const NAME: &str = "admin.sock";
/// The largest question, in bytes: a reply of 16 MiB in base64 fits.
const ASK_MAX: u64 = 32 << 20;
/// How long a question may take to arrive.
const ASK_TIME: Duration = Duration::from_secs(10);

/// Serves operators until it is dropped.
pub(crate) struct Socket {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Socket {
    /// Opens the socket in `dir`. Call it with the journal's lock held: what stands there is then
    /// left by a process that is gone.
    pub(crate) fn open(dir: &Path, desk: Desk) -> io::Result<Self> {
        let path = dir.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // The folder is closed to others, so nobody can come before the mode is set.
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let desk = desk.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &desk).await {
                        tracing::debug!(%error, "an operator's connection ended");
                    }
                });
            }
        });
        Ok(Self { path, serving })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let mut bytes = Vec::new();
    let (reading, mut writing) = stream.split();
    timeout(ASK_TIME, reading.take(ASK_MAX).read_to_end(&mut bytes)).await??;
    let told = match serde_json::from_slice::<Ask>(&bytes) {
        Ok(ask) => answer(desk, ask).await,
        Err(error) => {
            let text = format!("the question is not understood: {error}");
            Told::Failed { exit: Exit::Usage as u8, text }
        }
    };
    writing.write_all(&serde_json::to_vec(&told)?).await?;
    writing.shutdown().await
}

/// The operator's end.
pub(crate) struct Client(PathBuf);

impl Client {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join(NAME))
    }

    /// Asks the process that has the journal.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Told, Failure> {
        let place = self.0.display();
        let mut stream = UnixStream::connect(&self.0).await.map_err(|error| {
            let text =
                format!("{place}: the process that has the journal does not answer: {error}");
            Failure::new(Exit::StoreUnavailable, text)
        })?;
        let lost = |error: io::Error| Failure::new(Exit::Unknown, format!("{place}: {error}"));
        let asked = serde_json::to_vec(ask).map_err(|error| lost(error.into()))?;
        stream.write_all(&asked).await.map_err(lost)?;
        stream.shutdown().await.map_err(lost)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.map_err(lost)?;
        serde_json::from_slice(&bytes).map_err(|error| lost(error.into()))
    }
}
