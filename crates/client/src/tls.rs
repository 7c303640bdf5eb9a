//! TLS for the client: the provider, and the trusted certificates.

use std::sync::Arc;

use reqwest::ClientBuilder;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use super::SetupError;

/// Makes `ring` the process's one provider of cryptography. Further calls have no effect.
pub fn install_provider() {
    // An error means that another call was first, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for connections that are never encrypted: it does not load the host's certificates.
pub fn without_encryption(builder: ClientBuilder) -> ClientBuilder {
    install_provider();
    builder.http1_only().tls_certs_only([])
}

/// The certificates that a client trusts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trust<'a> {
    /// The certificates of the host's own store.
    Host,
    /// Only these certificates: a private authority needs no public ones.
    Only(&'a [u8]),
    /// No certificates, for connections that are never encrypted.
    Nothing,
}

impl Trust<'_> {
    pub(super) fn configure(self) -> Result<ClientConfig, SetupError> {
        install_provider();
        let builder = ClientConfig::builder();
        let builder = match self {
            Self::Host => builder.with_platform_verifier().map_err(|error| SetupError::Unusable(Arc::new(error)))?,
            Self::Only(pem) => builder.with_root_certificates(certificates(pem)?),
            Self::Nothing => builder.with_root_certificates(RootCertStore::empty()),
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(pem: &[u8]) -> Result<RootCertStore, SetupError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| SetupError::BadCertificate(Arc::new(error)))?;
        store.add(certificate).map_err(|error| SetupError::BadCertificate(Arc::new(error)))?;
    }
    if store.is_empty() { Err(SetupError::NoCertificate) } else { Ok(store) }
}
