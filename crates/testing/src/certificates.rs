//! A certificate authority for tests, and a server certificate for 127.0.0.1 that it has signed.

/// The file of the certificate authority, PEM.
pub const CA_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/ca.pem");
/// The certificate authority, PEM.
pub const CA: &[u8] = include_bytes!("../data/ca.pem");
/// The server's certificate, PEM.
pub const SERVER: &[u8] = include_bytes!("../data/server.pem");
/// The server's private key, DER.
pub const SERVER_KEY: &[u8] = include_bytes!("../data/server.key.der");
