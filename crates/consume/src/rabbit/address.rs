//! Where the broker is, and how a connection to it is made.

use std::io;

use lapin::runtime::default_runtime;
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties, ErrorKind};
use tokio::net::lookup_host;

use crate::tls::{AddressError, Tls};

/// The options that are not ours.
const OPTIONS: [&str; 5] =
    ["heartbeat", "frame_max", "channel_max", "connection_timeout", "auth_mechanism"];

/// An address that is understood.
#[derive(Clone)]
pub(crate) struct Address {
    uri: AMQPUri,
    /// If what is said is encrypted.
    tls: Option<Tls>,
}

impl Address {
    /// Reads the files that it names too, so that a mistake is found before anything runs.
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        if !["amqp://", "amqps://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(AddressError::new("it must begin with amqp:// or amqps://"));
        }
        let (text, tls) = Tls::taken_from(text)?;
        let (base, query) = text.split_once('?').unwrap_or((&text, ""));
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let name = option.split_once('=').map_or(option, |(name, _)| name);
            if !OPTIONS.contains(&name) {
                return Err(AddressError::new(format!("`{name}` is no option of it")));
            }
        }
        let mut uri: AMQPUri = text.parse().map_err(AddressError::new)?;
        // The library takes such an address for none, and would go to this machine.
        if let Some(host) = numbers(base) {
            host.clone_into(&mut uri.authority.host);
        }
        if uri.query.auth_mechanism == Some(SASLMechanism::External) && !tls.names_us() {
            let needed = "`auth_mechanism=external` needs `cert` and `key`, over amqps://";
            return Err(AddressError::new(needed));
        }
        match uri.scheme {
            AMQPScheme::AMQP => {
                tls.refused_for("amqps://")?;
                Ok(Self { uri, tls: None })
            }
            AMQPScheme::AMQPS => {
                tls.config()?;
                Ok(Self { uri, tls: Some(tls) })
            }
        }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, lapin::Error> {
        let connector = match &self.tls {
            Some(tls) => Some(RustlsConnector::from(tls.config().map_err(io::Error::other)?)),
            None => None,
        };
        let properties = ConnectionProperties::default().with_connection_name("onlyonce".into());
        let connect = async move |uri: AMQPUri, runtime| {
            let host = uri.authority.host;
            let places = lookup_host((&*host, uri.authority.port)).await?;
            let places: Vec<_> = places.collect();
            let stream = AsyncTcpStream::connect(&runtime, places).await?;
            match &connector {
                Some(connector) => {
                    Ok(stream.into_rustls(connector, &host).await.map_err(explained)?)
                }
                None => Ok(stream),
            }
        };
        let connecting =
            Connection::connector(self.uri.clone(), default_runtime()?, connect, properties);
        connecting.await.map_err(|error| {
            if !is_no_amqp(error.kind()) {
                return error;
            }
            let text = match self.tls {
                None => "no AMQP is spoken there; is it TLS, as by amqps://?",
                // What it says of a certificate may be lost with the connection.
                Some(_) => "the broker hung up; if it asks who we are, does it know our `cert`?",
            };
            io::Error::other(format!("{text} {error}")).into()
        })
    }
}

/// The host of an address that has an IPv6 address for one.
fn numbers(base: &str) -> Option<&str> {
    let (_, host) = base.rsplit_once('@').or_else(|| base.split_once("://"))?;
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

/// Whether the other side did not understand the first word: it says something else, or hangs up.
fn is_no_amqp(kind: &ErrorKind) -> bool {
    let ends = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
    let hung_up = |error: &io::Error| ends.contains(&error.kind());
    matches!(kind, ErrorKind::ParsingError(_))
        || matches!(kind, ErrorKind::IOError(error) if hung_up(error))
}

/// Says what to write where the broker does not speak TLS.
fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => {
            let text = format!("no TLS is spoken there; is it amqp://, without TLS? {error}");
            io::Error::other(text)
        }
        Some(_) | None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Address::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_wrong_address_is_refused_with_what_is_wrong_in_it_and_no_password() {
        for (text, why) in [
            ("http://u:secret@host/", "it must begin with amqp:// or amqps://"),
            ("amqp:u:secret@host", "it must begin with amqp:// or amqps://"),
            ("amqp://u:secret@host:port/", "invalid port number"),
            ("amqp://u:secret@host/?heartbeet=10", "`heartbeet` is no option of it"),
            ("amqp://u:secret@host/?ca=a.pem", "`ca` is for amqps://"),
            ("amqps://u:secret@host/?ca=", "`ca` names no file"),
            ("amqps://u:secret@host/?cert=a.pem", "`cert` and `key` go together"),
            ("amqps://u:secret@host/?ca=/not/there.pem", "/not/there.pem: "),
            ("amqps://u:secret@host/?auth_mechanism=external", "needs `cert` and `key`"),
            ("amqp://u:secret@host/?auth_mechanism=external", "needs `cert` and `key`"),
        ] {
            let told = refused(text);
            assert!(told.starts_with("the address of the broker: "), "{text}: {told}");
            assert!(told.contains(why) && !told.contains("secret"), "{text}: {told}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_none_to_trust() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("with space.pem");
        std::fs::write(&file, "nothing").unwrap();
        let name = file.display().to_string().replace(' ', "%20");
        let told = refused(&format!("amqps://host/?ca={name}"));
        let why = format!("{}: no certificate to trust", file.display());
        assert!(told.contains(&why), "{told}");
    }

    #[test]
    fn an_address_in_numbers_is_not_taken_for_this_machine() {
        let address = Address::parse("amqp://u:p@[2001:db8::1]:5673/%2f?heartbeat=7").unwrap();
        let authority = &address.uri.authority;
        assert_eq!((&*authority.host, authority.port), ("2001:db8::1", 5673));
        assert_eq!(address.uri.query.heartbeat, Some(7));
        let address = Address::parse("amqp://host/%2f").unwrap();
        assert_eq!((&*address.uri.authority.host, &*address.uri.vhost), ("host", "/"));
    }
}
