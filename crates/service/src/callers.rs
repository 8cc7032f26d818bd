//! Who asks: by a bearer token, by a certificate, or by having the right to open the socket.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, header};
use onlyonce_http::{Problem, ProblemKind};
use onlyonce_listen::Peer;
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

/// How a caller is known. Tokens and certificates are kept as digests only.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// The SHA-256 of a bearer token.
    Token([u8; 32]),
    /// The SHA-256 of a client certificate in DER.
    Certificate([u8; 32]),
    /// A DNS name that a client certificate is valid for.
    CertificateName(String),
    /// Whoever may open the unix socket.
    Socket,
}

impl Credential {
    /// A bearer token.
    pub fn token(token: &str) -> Self {
        Self::Token(Sha256::digest(token.as_bytes()).into())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Certificate(_) => "Certificate(..)",
            Self::CertificateName(_) => "CertificateName(..)",
            Self::Socket => "Socket",
        })
    }
}

/// A caller, and what it may do.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// For the log and for histories.
    pub(crate) name: String,
    pub(crate) credential: Credential,
    /// Which of the configuration's scopes it may use, by their places.
    pub(crate) scopes: Vec<usize>,
    /// Whether it may list, resolve and seal, and ask by id.
    pub(crate) operator: bool,
}

/// Who sends a request.
///
/// # Errors
/// Nobody that is known.
pub(crate) fn find<'a>(
    callers: &'a [Caller],
    headers: &HeaderMap,
    peer: &Peer,
) -> Result<&'a Caller, Problem> {
    let unknown = || Problem::new(ProblemKind::Unauthenticated);
    // Who shows a token means it: a wrong one is not made good by a certificate.
    if headers.contains_key(header::AUTHORIZATION) {
        let token = bearer(headers).ok_or_else(unknown)?;
        return by_token(callers, token).ok_or_else(unknown);
    }
    let found = match &peer.certificate {
        Some(certificate) => by_certificate(callers, certificate),
        None if peer.address.is_none() => {
            callers.iter().find(|caller| caller.credential == Credential::Socket)
        }
        None => None,
    };
    found.ok_or_else(unknown)
}

/// The only bearer token of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (line, more) = (lines.next()?, lines.next());
    let (scheme, token) = line.as_bytes().split_at_checked(7)?;
    (more.is_none() && scheme.eq_ignore_ascii_case(b"bearer ")).then(|| token.trim_ascii())
}

/// Compares digests, all of them and each to its end: neither which token is near nor how near a
/// guess is shows in the time that it takes.
fn by_token<'a>(callers: &'a [Caller], token: &[u8]) -> Option<&'a Caller> {
    let digest: [u8; 32] = Sha256::digest(token).into();
    let mut found = None;
    for caller in callers {
        let Credential::Token(known) = &caller.credential else { continue };
        let differing = known.iter().zip(&digest).fold(0, |sum, (a, b)| sum | (a ^ b));
        if differing == 0 {
            found = Some(caller);
        }
    }
    found
}

fn by_certificate<'a>(callers: &'a [Caller], certificate: &Bytes) -> Option<&'a Caller> {
    let digest: [u8; 32] = Sha256::digest(certificate).into();
    let der = CertificateDer::from(certificate.as_ref());
    let valid_for = |name: &str| {
        let (Ok(certificate), Ok(name)) =
            (EndEntityCert::try_from(&der), ServerName::try_from(name))
        else {
            return false;
        };
        certificate.verify_is_valid_for_subject_name(&name).is_ok()
    };
    callers.iter().find(|caller| match &caller.credential {
        Credential::Certificate(known) => *known == digest,
        Credential::CertificateName(name) => valid_for(name),
        Credential::Token(_) | Credential::Socket => false,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn caller(name: &str, credential: Credential) -> Caller {
        Caller { name: name.to_owned(), credential, scopes: vec![0], operator: false }
    }

    fn peer(certificate: Option<Bytes>) -> Peer {
        let address = Some(([127, 0, 0, 1], 1).into());
        Peer { address, certificate, tls: true }
    }

    fn told(callers: &[Caller], lines: &[&str], peer: &Peer) -> Option<String> {
        let lines = lines.iter().map(|line| HeaderValue::from_str(line).unwrap());
        let headers: HeaderMap = lines.map(|line| (header::AUTHORIZATION, line)).collect();
        // Two lines stay two lines.
        find(callers, &headers, peer).ok().map(|caller| caller.name.clone())
    }

    #[test]
    fn a_caller_is_known_by_its_whole_token() {
        let callers = [
            caller("anna", Credential::token("token-of-anna-0001")),
            caller("bert", Credential::token("token-of-bert-0002")),
            caller("here", Credential::Socket),
        ];
        let (tcp, unix) = (peer(None), Peer { address: None, certificate: None, tls: false });
        let told = |lines: &[&str], peer| told(&callers, lines, peer);
        assert_eq!(told(&["Bearer token-of-bert-0002"], &tcp).as_deref(), Some("bert"));
        assert_eq!(told(&["bearer token-of-anna-0001"], &tcp).as_deref(), Some("anna"));
        assert_eq!(told(&[], &unix).as_deref(), Some("here"));
        for wrong in [
            "Bearer token-of-bert-000",
            "Bearer token-of-bert-00022",
            "Bearer",
            "Bearer ",
            "Basic token-of-bert-0002",
            "token-of-bert-0002",
        ] {
            assert_eq!(told(&[wrong], &tcp), None, "{wrong}");
            assert_eq!(told(&[wrong], &unix), None, "{wrong}");
        }
        assert_eq!(told(&[], &tcp), None);
    }

    #[test]
    fn two_tokens_are_none() {
        let callers = [caller("anna", Credential::token("token-of-anna-0001"))];
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            let line = HeaderValue::from_static("Bearer token-of-anna-0001");
            headers.append(header::AUTHORIZATION, line);
        }
        assert!(find(&callers, &headers, &peer(None)).is_err());
    }

    #[test]
    fn a_certificate_is_known_by_its_digest_or_by_its_name() {
        let made = rcgen::generate_simple_self_signed(vec!["orders.internal".into()]).unwrap();
        let der = Bytes::copy_from_slice(made.cert.der());
        let digest: [u8; 32] = Sha256::digest(&der).into();
        let by_digest = [caller("anna", Credential::Certificate(digest))];
        let name = |name: &str| [caller("bert", Credential::CertificateName(name.to_owned()))];
        let shown = peer(Some(der));
        assert_eq!(told(&by_digest, &[], &shown).as_deref(), Some("anna"));
        assert_eq!(told(&name("orders.internal"), &[], &shown).as_deref(), Some("bert"));
        assert_eq!(told(&name("mail.internal"), &[], &shown), None);
        // A wrong token is not made good by a certificate.
        assert_eq!(told(&by_digest, &["Bearer guessed-token-0001"], &shown), None);
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(format!("{:?}", Credential::token("secret")), "Token(..)");
    }
}
