//! TLS for the client: which provider, and whom to trust.

use std::sync::Arc;

use reqwest::ClientBuilder;

use super::SetupError;

/// Makes `ring` the process's one provider of cryptography. Any number of calls do no more than the first.
pub fn install_provider() {
    // An error means another caller was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whom a client trusts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trust<'a> {
    /// The certificates of the host's own store.
    Host,
    /// These and no others: who names a private authority's certificate does not want the world's beside it.
    Only(&'a [u8]),
    /// Nobody, for connections that are never encrypted: loads no certificates.
    Nobody,
}

impl Trust<'_> {
    pub(super) fn apply(self, builder: ClientBuilder) -> Result<ClientBuilder, SetupError> {
        install_provider();
        match self {
            Self::Host => Ok(builder),
            Self::Only(pem) => {
                let certificates = reqwest::Certificate::from_pem_bundle(pem)
                    .map_err(|error| SetupError::BadCertificate(Arc::new(error)))?;
                if certificates.is_empty() {
                    return Err(SetupError::NoCertificate);
                }
                Ok(builder.tls_certs_only(certificates))
            }
            Self::Nobody => Ok(builder.tls_certs_only([])),
        }
    }
}
