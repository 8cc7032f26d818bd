//! One connection to one server, used only once the server has been looked at.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use onlyonce_store::{Check, OpenError, OpenErrorKind, StoreErrorKind, Warning};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value};
use tokio::time::{Instant, timeout};

use crate::door::{self, Asked, Told};
use crate::error::{Fault, Then, fault, nonsense};
use crate::script::{self, Script};
use crate::target::Target;

/// How long a connection may take to be made and looked at.
const OPEN_MAX: Duration = Duration::from_secs(4);
/// How long an answer may take. The connection is given up then, and with it what was asked.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long after it was asked for a swap may still take place, by the server's clock. A server
/// that stood still reads what was sent before, whether or not the connection is still there.
/// Shorter than a caller waits for the answer: once that is given up, nothing happens any more.
const TAKES_PLACE_WITHIN: Duration = Duration::from_secs(8);
/// How often the settings are looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Link {
    place: String,
    connection: MultiplexedConnection,
    told: Told,
    warnings: Vec<Warning>,
    digests: RwLock<[String; Script::ALL.len()]>,
    /// A time of the server's clock, in milliseconds, and when it was heard.
    clock: Mutex<(Instant, u64)>,
    looked: Mutex<Instant>,
    broken: AtomicBool,
}

impl Link {
    /// Connects, and looks at the server.
    ///
    /// # Errors
    /// It cannot be reached, or would not keep what a store promises.
    pub(crate) async fn open(
        client: &redis::Client,
        place: &str,
        target: &Target,
    ) -> Result<Self, OpenError> {
        let opening =
            async { Self::look(connect(client, place, target).await?, place, target).await };
        let opened = timeout(OPEN_MAX, opening).await;
        opened.unwrap_or_else(|_| Err(silent(place, target)))
    }

    /// Everything that is looked at when a connection is opened.
    pub(crate) async fn doctor(client: &redis::Client, place: &str, target: &Target) -> Vec<Check> {
        let looking = async {
            let mut connection = connect(client, place, target).await?;
            let told = settings(&mut connection).await;
            let (told, asked) = told.map_err(|error| unreached(place, target, &error))?;
            Ok(door::look(place, target, &told, &asked))
        };
        let looked = timeout(OPEN_MAX, looking).await;
        let looked = looked.unwrap_or_else(|_| Err(silent(place, target)));
        let checks = looked.unwrap_or_else(|error| door::unreached(place, &error));
        checks.finish(&door::NEEDS)
    }

    async fn look(
        mut connection: MultiplexedConnection,
        place: &str,
        target: &Target,
    ) -> Result<Self, OpenError> {
        let failed = |error: RedisError| {
            OpenError::new(OpenErrorKind::Unavailable, place, error.to_string())
        };
        let told = settings(&mut connection).await;
        let (told, asked) = told.map_err(|error| unreached(place, target, &error))?;
        let checks = door::look(place, target, &told, &asked);
        checks.verdict()?;
        let warnings = checks.accepted().map(Warning::of).collect();
        let mut digests = [const { String::new() }; Script::ALL.len()];
        for (digest, script) in digests.iter_mut().zip(Script::ALL) {
            *digest = load(&mut connection, script).await.map_err(failed)?;
        }
        let (seconds, micros): (u64, u64) =
            redis::cmd("TIME").query_async(&mut connection).await.map_err(failed)?;
        let heard = Instant::now();
        Ok(Self {
            place: place.to_owned(),
            connection,
            told,
            warnings,
            digests: RwLock::new(digests),
            clock: Mutex::new((heard, seconds * 1_000 + micros / 1_000)),
            looked: Mutex::new(heard),
            broken: AtomicBool::new(false),
        })
    }

    /// Which server it leads to.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// What the server told.
    pub(crate) const fn told(&self) -> &Told {
        &self.told
    }

    /// What the operator should know.
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether it is not to be used any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Gives it up: others are opened, and look at the server again.
    pub(crate) fn give_up(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Whether the settings were last looked at so long ago that they may have changed. Only one
    /// caller is told so.
    pub(crate) fn is_stale(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = LOOK_EVERY <= looked.elapsed();
        if stale {
            *looked = Instant::now();
        }
        stale
    }

    /// Looks at the settings again, and gives itself up if they are not what they must be.
    pub(crate) async fn look_again(&self, target: &Target) {
        let mut connection = self.connection.clone();
        let asked = timeout(ANSWER_MAX, settings(&mut connection)).await;
        let good = match asked {
            Ok(Ok((told, asked))) => {
                door::look(&self.place, target, &told, &asked).verdict().is_ok()
            }
            Ok(Err(_)) | Err(_) => false,
        };
        if !good {
            self.give_up();
        }
    }

    /// The present time of the server's clock, in milliseconds; rather early than late.
    pub(crate) fn now(&self) -> u64 {
        let (heard, time) = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        time + u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// Until when a swap that is sent now may take place, in milliseconds of the server's clock.
    pub(crate) fn deadline(&self) -> u64 {
        self.now() + TAKES_PLACE_WITHIN.as_millis() as u64
    }

    /// What the server says its time is.
    pub(crate) fn heard(&self, time: u64) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        *clock = (Instant::now(), time);
    }

    /// One command.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        let mut connection = self.connection.clone();
        let asked = timeout(ANSWER_MAX, connection.send_packed_command(command)).await;
        self.heed(asked.map(|answer| answer.and_then(Value::extract_error)))
    }

    /// Several commands, and the answer to each.
    pub(crate) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let mut connection = self.connection.clone();
        let count = commands.len();
        let asked = timeout(ANSWER_MAX, connection.send_packed_commands(commands, 0, count)).await;
        let answers = self.heed(asked)?;
        answers
            .into_iter()
            .map(|answer| answer.extract_error().map_err(|error| self.fault(&error)))
            .collect()
    }

    /// Runs a script; loads it again if the server has forgotten it.
    pub(crate) async fn run(
        &self,
        script: Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<Value, Fault> {
        let digest = || {
            let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
            digests[script as usize].clone()
        };
        let first = self.ask(&script::call(&digest(), keys, arguments)).await;
        match first {
            Err(fault) if fault.then == Then::LoadScripts => {}
            other => return other,
        }
        let mut connection = self.connection.clone();
        let loaded = timeout(ANSWER_MAX, load(&mut connection, script)).await;
        let loaded = self.heed(loaded).map_err(|fault| {
            Fault::new(
                StoreErrorKind::NotApplied,
                onlyonce_store::StoreError::from(fault).to_string(),
            )
        })?;
        self.digests.write().unwrap_or_else(PoisonError::into_inner)[script as usize] = loaded;
        self.ask(&script::call(&digest(), keys, arguments)).await
    }

    /// As [`Self::run`], for scripts that answer with a word.
    pub(crate) async fn run_for_word(
        &self,
        script: Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<(String, Vec<Value>), Fault> {
        let answer = self.run(script, keys, arguments).await?;
        script::word(answer).ok_or_else(|| nonsense(&self.place))
    }

    fn heed<T>(
        &self,
        asked: Result<Result<T, RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, Fault> {
        match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.fault(&error)),
            Err(_) => {
                self.give_up();
                let text = format!("{}: no answer within {ANSWER_MAX:?}", self.place);
                Err(Fault::new(StoreErrorKind::Unknown, text))
            }
        }
    }

    fn fault(&self, error: &RedisError) -> Fault {
        let fault = fault(&self.place, error);
        if fault.then == Then::LookElsewhere {
            self.give_up();
        }
        fault
    }
}

/// A server that did not answer the first that it was asked, and what to do where it is the
/// connection's encryption that nobody agreed on.
fn unreached(place: &str, target: &Target, error: &RedisError) -> OpenError {
    let text = error.to_string();
    let is_way = !target.tls && error.is_io_error() && !error.is_connection_refusal();
    let hint = if is_way { ": if it wants TLS, say rediss://" } else { "" };
    OpenError::new(OpenErrorKind::Unavailable, place, format!("{text}{hint}"))
}

/// One that says nothing. So does one that waits for the end of a first line while we speak TLS.
fn silent(place: &str, target: &Target) -> OpenError {
    let hint = if target.tls { ": if it speaks no TLS there, say redis://" } else { "" };
    OpenError::new(OpenErrorKind::Unavailable, place, format!("it does not answer{hint}"))
}

async fn connect(
    client: &redis::Client,
    place: &str,
    target: &Target,
) -> Result<MultiplexedConnection, OpenError> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    connected.map_err(|error| unreached(place, target, &error))
}

async fn settings(connection: &mut MultiplexedConnection) -> Result<(Told, Asked), RedisError> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let mut asked = HashMap::new();
    for name in Asked::NAMES {
        let mut command = redis::cmd("CONFIG");
        let told: Result<Vec<String>, _> =
            command.arg("GET").arg(name).query_async(connection).await;
        match told {
            Ok(pair) => {
                asked.extend(<[String; 2]>::try_from(pair).map(|[name, value]| (name, value)))
            }
            // Hosted servers do not tell; whether that will do is looked at with the rest.
            Err(error) if error.code().is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Ok((Told::parse(&info), Asked::new(asked)))
}

async fn load(
    connection: &mut MultiplexedConnection,
    script: Script,
) -> Result<String, RedisError> {
    redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query_async(connection).await
}
