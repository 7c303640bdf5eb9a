//! HTTPS: a certificate and a key from files, read again on SIGHUP.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

/// The paths of the certificate and its key.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// PEM: the server's certificate, then the intermediate ones.
    pub(super) certificates: PathBuf,
    /// PEM: the private key of the certificate.
    pub(super) key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("cannot read the certificate {}: {source}\n--tls-cert takes a PEM file.", path.display())]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("{} holds no certificate\n--tls-cert takes a PEM file that begins with the server's.", .0.display())]
    NoCertificate(PathBuf),
    #[error("cannot read the private key {}: {source}\n--tls-key takes a PEM file.", path.display())]
    Key { path: PathBuf, source: pem::Error },
    #[error(
        "every user of this host may change the private key {} (mode {mode:04o})\nRun chmod 600 on it, and replace the key if another user \
         may have had it.", path.display()
    )]
    OpenKey { path: PathBuf, mode: u32 },
    #[error("the certificate and the key do not go together: {0}")]
    Mismatch(#[from] rustls::Error),
}

/// Accepts TLS connections with the files as last read.
#[derive(Debug)]
pub(super) struct Tls {
    files: Files,
    // A std lock: held to copy a pointer, never across an await.
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(super) fn load(files: Files) -> Result<Self, TlsError> {
        let config = RwLock::new(read(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again. On a failure, the previous certificate stays in use.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The acceptor for the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

fn read(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |source| TlsError::Certificate { path: files.certificates.clone(), source };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&files.certificates)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(files.certificates.clone()));
    }
    if let Ok(about) = std::fs::metadata(&files.key) {
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o002 != 0 {
            return Err(TlsError::OpenKey { path: files.key.clone(), mode });
        }
        if mode & 0o004 != 0 {
            // Not refused: a volume of secrets often has this mode, where no other user is.
            warn!(key = %files.key.display(), mode = format!("{mode:04o}"), "every user of this host may read the private key; \
                run chmod 600 on it");
        }
    }
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Key { path: files.key.clone(), source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
