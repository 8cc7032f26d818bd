//! A role or a database of a PostgreSQL server. Its mark is its comment.
//!
//! A role is created and marked in one transaction. A database cannot be created in one: so it is
//! created under its marker as its name, which nobody else uses, and then given its own name and
//! its comment in one transaction. Wherever that is cut off, what is there says whose it is, and
//! the next attempt goes on from it.

use std::time::Duration;

use onlyonce_core::Cause;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::http::environment;
use super::{Call, Made, Seen};
use crate::template::Template;

/// The longest name, in bytes (NAMEDATALEN): what is longer the server would cut.
const NAME_MAX: usize = 63;

/// A role or a database. What it is called is an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Postgres {
    pub(crate) server: Template,
    /// Given to a new role. Not compared: it is changed elsewhere.
    pub(crate) password: Option<Template>,
    pub(crate) what: What,
    pub(crate) within: Duration,
}

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Role,
    Database,
}

/// Why there is no answer.
enum Failed {
    /// Nothing was sent.
    NotSent(String),
    /// The server has refused it, with this state.
    Refused(SqlState, String),
    /// It may have been carried out.
    Lost(Cause, String),
}

type Answer<T> = Result<T, Failed>;

impl What {
    /// The input with its name.
    pub(crate) const fn input(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Database => "database",
        }
    }
}

impl Postgres {
    pub(super) async fn check(&self, call: &Call<'_>) -> Seen {
        match timeout(self.within, self.seen(call)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(failed)) => Seen::CannotTell(failed.told()),
            Err(_) => Seen::CannotTell(format!("no answer within {:?}", self.within)),
        }
    }

    pub(super) async fn create(&self, call: &Call<'_>) -> Made {
        let making = async {
            let (client, name) = (self.connect().await?, name(self.what, call)?);
            match self.what {
                What::Role => self.role(&client, &name, call).await?,
                What::Database => database(&client, &name, call).await?,
            }
            Ok(name)
        };
        match timeout(self.within, making).await {
            Ok(Ok(name)) => Made::Created(name),
            Ok(Err(Failed::NotSent(text))) => Made::Refused(text),
            Ok(Err(Failed::Refused(state, text))) if is_there(&state) => Made::Taken(text),
            Ok(Err(Failed::Refused(_, text))) => Made::Refused(text),
            Ok(Err(Failed::Lost(cause, text))) => Made::Unknown(cause, text),
            Err(_) => {
                let text = format!("no answer within {:?}", self.within);
                Made::Unknown(Cause::TimedOut, text)
            }
        }
    }

    async fn seen(&self, call: &Call<'_>) -> Answer<Seen> {
        let (client, name) = (self.connect().await?, name(self.what, call)?);
        let ask = match self.what {
            What::Role => {
                "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1"
            }
            What::Database => {
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1"
            }
        };
        let row = client.query_opt(ask, &[&name]).await.map_err(|it| Failed::of(&it))?;
        Ok(match row.map(|row| row.try_get::<_, Option<String>>(0)) {
            None => Seen::Absent,
            Some(Ok(Some(comment))) if comment.contains(&call.identity.marker) => Seen::Ours(name),
            Some(Ok(Some(comment))) => Seen::NotOurs(format!("{name}, {comment:?}")),
            Some(Ok(None)) => Seen::NotOurs(format!("{name}, without a comment")),
            Some(Err(error)) => Seen::CannotTell(error.to_string()),
        })
    }

    async fn role(&self, client: &Client, name: &str, call: &Call<'_>) -> Answer<()> {
        let login = call.inputs.get("login").is_none_or(|login| login == "true");
        let login = if login { "LOGIN" } else { "NOLOGIN" };
        let password = match &self.password {
            Some(password) => {
                let password = environment(password).map_err(Failed::NotSent)?;
                format!(" PASSWORD {}", literal(&password))
            }
            None => String::new(),
        };
        let role = identifier(name);
        let made = format!("CREATE ROLE {role} {login}{password}");
        let marked = format!("COMMENT ON ROLE {role} IS {}", literal(&call.identity.marker));
        together(client, &[made, marked]).await
    }

    async fn connect(&self) -> Answer<Client> {
        let server = environment(&self.server).map_err(Failed::NotSent)?;
        // What is wrong is not shown: it may hold a password.
        let wrong = |_| Failed::NotSent("`server` is no address of a PostgreSQL server".into());
        let mut config: Config = server.parse().map_err(wrong)?;
        if !server.contains("sslmode=") {
            let here = config.get_hosts().iter().all(is_here);
            config.ssl_mode(if here { SslMode::Disable } else { SslMode::Require });
        }
        config.connect_timeout(self.within).tcp_user_timeout(self.within);
        config.application_name("onlyonce");
        let connected = config.connect(tls().map_err(Failed::NotSent)?).await;
        let (client, connection) = connected.map_err(|it| Failed::NotSent(told(&it)))?;
        // It ends with its client.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Creates it under the name of its marker, unless an earlier attempt did; then it gets its name
/// and its comment at once.
async fn database(client: &Client, name: &str, call: &Call<'_>) -> Answer<()> {
    let marker = &call.identity.marker;
    let (unnamed, named) = (identifier(marker), identifier(name));
    match execute(client, &format!("CREATE DATABASE {unnamed}")).await {
        Err(Failed::Refused(state, _)) if is_there(&state) => {}
        made => made?,
    }
    let owner = call
        .inputs
        .get("owner")
        .map(|owner| format!("ALTER DATABASE {unnamed} OWNER TO {}", identifier(owner)));
    let renamed = format!("ALTER DATABASE {unnamed} RENAME TO {named}");
    let marked = format!("COMMENT ON DATABASE {named} IS {}", literal(marker));
    let all: Vec<String> = owner.into_iter().chain([renamed, marked]).collect();
    let so_far = |text| format!("{text} (it is there as {marker} and has no name yet)");
    together(client, &all).await.map_err(|failed| match failed {
        Failed::NotSent(text) => Failed::NotSent(so_far(text)),
        Failed::Refused(state, text) => Failed::Refused(state, so_far(text)),
        lost @ Failed::Lost(..) => lost,
    })
}

/// All of them in one transaction. What is refused before its end did nothing; of an end whose
/// answer is lost nobody can tell.
async fn together(client: &Client, statements: &[String]) -> Answer<()> {
    execute(client, "BEGIN").await?;
    for statement in statements {
        match execute(client, statement).await {
            // Nothing counts before the end, and without a connection there is none.
            Err(Failed::Lost(_, text)) => {
                return Err(Failed::NotSent(format!("{text}; the transaction has no end")));
            }
            done => done?,
        }
    }
    match execute(client, "COMMIT").await {
        Err(Failed::Refused(_, text)) => Err(Failed::Lost(Cause::Abandoned, text)),
        ended => ended,
    }
}

async fn execute(client: &Client, statement: &str) -> Answer<()> {
    client.batch_execute(statement).await.map_err(|error| Failed::of(&error))
}

impl Failed {
    fn of(error: &tokio_postgres::Error) -> Self {
        match error.code() {
            Some(state) => Self::Refused(state.clone(), told(error)),
            None => Self::Lost(Cause::ConnectionLost, told(error)),
        }
    }

    fn told(self) -> String {
        match self {
            Self::NotSent(text) | Self::Refused(_, text) | Self::Lost(_, text) => text,
        }
    }
}

/// The server's word, or what became of the connection.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), |it| it.to_string())
        }
    }
}

/// Whether something of this name is there, or being made by a transaction that was faster.
fn is_there(state: &SqlState) -> bool {
    [SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_DATABASE, SqlState::UNIQUE_VIOLATION]
        .contains(state)
}

fn name(what: What, call: &Call<'_>) -> Answer<String> {
    let name = call.inputs.get(what.input()).cloned().unwrap_or_default();
    match wrong(what.input(), &name) {
        None => Ok(name),
        Some(text) => Err(Failed::NotSent(text)),
    }
}

/// What is wrong with a name, in words for who wrote it.
pub(crate) fn wrong(field: &str, name: &str) -> Option<String> {
    let fits = !name.is_empty() && name.len() <= NAME_MAX && !name.contains('\0');
    (!fits).then(|| format!("`{field}` is 1 to {NAME_MAX} bytes: a longer name would be cut"))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// As the server reads it with `standard_conforming_strings`, and without.
fn literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Whether the server is on this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
        }
    }
}

fn tls() -> Result<MakeRustlsConnect, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(std::sync::Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|it| it.to_string())?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted_whatever_is_in_them() {
        assert_eq!(identifier("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("it's \\"), " E'it''s \\\\'");
        assert_eq!(wrong("role", &"é".repeat(31)), None);
        for name in ["", "a\0", &"é".repeat(32)] {
            assert!(wrong("role", name).is_some(), "{name:?}");
        }
    }
}
