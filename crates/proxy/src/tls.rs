//! TLS towards the upstream, by rustls.

use std::io;
use std::sync::Arc;

use onlyonce_listen::StartError;
use onlyonce_listen::tls::{provider, roots};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Target;

/// For the upstream.
pub(crate) fn client(target: &Target) -> Result<Arc<ClientConfig>, StartError> {
    let roots = match &target.trust {
        Some(path) => roots(path)?,
        None => {
            let mut roots = RootCertStore::empty();
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                let error = io::Error::other("this system has no trusted certificates");
                return Err(StartError::new(target.authority.as_str(), error));
            }
            roots
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::new(target.authority.as_str(), error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocol: &[u8] = if target.http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}
