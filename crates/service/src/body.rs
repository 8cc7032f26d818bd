//! Reading a request's body: whole, within its limits, and within the memory for all of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use onlyonce_http::{Problem, ProblemKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What is counted at once, in bytes.
const UNIT: usize = 1 << 10;

/// Memory for all bodies together, and the limits of one.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    places: Arc<Semaphore>,
    /// The largest body in bytes.
    body_max: usize,
    /// How long nothing of a body may come.
    body_time: Duration,
}

/// A body, and the room that it takes until it is dropped.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for so many bytes.
    pub(crate) fn new(bytes: usize, body_max: usize, body_time: Duration) -> Self {
        let places = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), body_max, body_time }
    }

    /// Reads a body to its end.
    ///
    /// # Errors
    /// It is too large, broke off, came too slowly, or there is no room for it.
    pub(crate) async fn read<B>(&self, mut body: B) -> Result<Whole, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut bytes, mut held) = (BytesMut::new(), None);
        loop {
            let frame = match timeout(self.body_time, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Ok(Whole { bytes: bytes.freeze(), _held: held }),
                Ok(Some(Err(_))) | Err(_) => {
                    return Err(Problem::new(ProblemKind::BodyIncomplete));
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            if self.body_max < bytes.len().saturating_add(data.len()) {
                let text = format!(
                    "The body is larger than {} bytes. Complete with a reply without content: it \
                     is then recorded that the operation happened.",
                    self.body_max
                );
                return Err(Problem::new(ProblemKind::BodyTooLarge).with_detail(text));
            }
            bytes.extend_from_slice(&data);
            if !self.grow(bytes.len(), &mut held) {
                let problem = Problem::new(ProblemKind::NoRoom);
                return Err(problem.with_retry_after(Duration::from_secs(1)));
            }
        }
    }

    fn grow(&self, to: usize, held: &mut Option<OwnedSemaphorePermit>) -> bool {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Ok(missing) = u32::try_from(to.div_ceil(UNIT).saturating_sub(has)) else {
            return false;
        };
        let Ok(taken) = Arc::clone(&self.places).try_acquire_many_owned(missing) else {
            return false;
        };
        match held {
            Some(held) => held.merge(taken),
            None => *held = Some(taken),
        }
        true
    }
}
