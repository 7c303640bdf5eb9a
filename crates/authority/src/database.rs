//! The value of `--database`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// A database: `sqlite:PATH` or `postgres://…`.
#[derive(Clone)]
pub(super) enum Database {
    Sqlite(PathBuf),
    /// May contain a password, so it is never printed whole.
    Postgres(Box<PgConnectOptions>),
}

/// The text is not a valid database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DatabaseError {
    InMemory,
    NoPath,
    Unknown,
    /// The address is malformed. The error has no copy of it, since it may contain a password.
    BadUrl(String),
    /// The address has several hosts, as libpq accepts them.
    SeveralHosts,
    /// The server is on another host, and its identity would not be verified.
    Unverified {
        place: String,
    },
    /// The address asks for a server other than the primary (`target_session_attrs`).
    NotThePrimary,
}

impl FromStr for Database {
    type Err = DatabaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            if hosts(text).contains(',')
                || parameter(text, &["host", "hostaddr", "port"]).any(|value| value.contains(','))
            {
                return Err(DatabaseError::SeveralHosts);
            }
            if parameter(text, &["target_session_attrs"]).any(|value| value.contains("standby") || value == "read-only")
            {
                return Err(DatabaseError::NotThePrimary);
            }
            let options: PgConnectOptions =
                text.parse().map_err(|error: sqlx::Error| DatabaseError::BadUrl(error.to_string()))?;
            // PGHOST can name several hosts, too.
            if options.get_host().contains(',') {
                return Err(DatabaseError::SeveralHosts);
            }
            return Ok(Self::Postgres(Box::new(options)));
        }
        let path = text.strip_prefix("sqlite:").ok_or(DatabaseError::Unknown)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        match path {
            "" => Err(DatabaseError::NoPath),
            ":memory:" => Err(DatabaseError::InMemory),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

impl Database {
    /// Fails unless the way to the database is safe: a file, a socket, loopback, or TLS with a verified certificate.
    pub(super) fn is_verified(&self) -> Result<(), DatabaseError> {
        let Self::Postgres(options) = self else { return Ok(()) };
        let host = options.get_host();
        let here = options.get_socket().is_some() || host.starts_with('/') || is_loopback(host);
        match options.get_ssl_mode() {
            PgSslMode::VerifyFull | PgSslMode::VerifyCa => Ok(()),
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer | PgSslMode::Require if here => Ok(()),
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer | PgSslMode::Require => {
                Err(DatabaseError::Unverified { place: place(options) })
            }
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The hosts of an address, with their ports.
fn hosts(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    authority.rsplit('@').next().unwrap_or("")
}

/// The values of the parameters with these names.
fn parameter<'a>(text: &'a str, names: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.filter(|(name, _)| names.contains(&name.as_ref())).map(|(_, value)| value.into_owned())
}

impl fmt::Display for Database {
    /// Formats without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(options) => f.write_str(&place(options)),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address of a `PostgreSQL` database, without the password.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let host =
        options.get_socket().map_or_else(|| options.get_host().to_owned(), |socket| socket.display().to_string());
    format!("postgres://{host}:{}/{}", options.get_port(), options.get_database().unwrap_or_default())
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InMemory => f.write_str(
                "a database in memory would forget every revoke with the process; use sqlite:PATH or postgres://…",
            ),
            Self::NoPath => {
                f.write_str("the path is missing; write sqlite:PATH, as in sqlite:/var/lib/machineid/authority.db")
            }
            Self::Unknown => f.write_str("not a database this version knows; use sqlite:PATH or postgres://…"),
            Self::BadUrl(problem) => write!(
                f,
                "not the address of a PostgreSQL database ({problem}); write postgres://USER@HOST/DATABASE, with the \
                 password in PGPASSWORD or ~/.pgpass"
            ),
            Self::SeveralHosts => f.write_str(
                "several hosts in one address are not supported; name one address that leads to the primary: a virtual IP, \
                 a DNS name that moves, or a proxy (HAProxy) that asks each server whether it is the primary. One that \
                 leads to a standby for a while is noticed, and nothing is decided by it",
            ),
            Self::Unverified { place } => write!(
                f,
                "{place} is on another host, and without verified TLS an attacker on the way could read the password and change \
                 what is decided.\nAdd ?sslmode=verify-full to the address (and sslrootcert=FILE for a certificate authority of \
                 your own), or say --database-allow-plain where the network itself is private."
            ),
            Self::NotThePrimary => f.write_str(
                "target_session_attrs asks for a standby, and what a standby says may be old; decisions need the primary",
            ),
        }
    }
}

impl std::error::Error for DatabaseError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(text: &str) -> Option<PathBuf> {
        match text.parse() {
            Ok(Database::Sqlite(path)) => Some(path),
            Ok(Database::Postgres(_)) | Err(_) => None,
        }
    }

    #[test]
    fn a_file_is_a_path_behind_sqlite() {
        for (text, path) in [("sqlite:a.db", "a.db"), ("sqlite:/x/a.db", "/x/a.db"), ("sqlite:///x/a.db", "/x/a.db")] {
            assert_eq!(sqlite(text), Some(path.into()), "{text}");
        }
        for (text, error) in [
            ("sqlite::memory:", DatabaseError::InMemory),
            ("sqlite:", DatabaseError::NoPath),
            ("a.db", DatabaseError::Unknown),
            ("mysql://h/db", DatabaseError::Unknown),
        ] {
            assert_eq!(text.parse::<Database>().err(), Some(error), "{text}");
        }
    }

    #[test]
    fn several_hosts_are_refused_by_name_and_so_is_a_standby() {
        for text in [
            "postgres://a,b/fleet",
            "postgres://u:p@a:5432,b:5433/fleet?target_session_attrs=primary",
            "postgresql:///fleet?host=a,b",
            "postgres://localhost/fleet?host=a%2Cb",
            "postgres://a/fleet?port=5432,5433",
        ] {
            assert_eq!(text.parse::<Database>().err(), Some(DatabaseError::SeveralHosts), "{text}");
        }
        for wanted in ["standby", "prefer-standby", "read-only"] {
            let text = format!("postgres://a/fleet?target_session_attrs={wanted}");
            assert_eq!(text.parse::<Database>().err(), Some(DatabaseError::NotThePrimary), "{text}");
        }
        // What is done anyway, and a password with a comma.
        for text in ["postgres://a/fleet?target_session_attrs=read-write", "postgres://u:a,b@a/fleet"] {
            assert!(text.parse::<Database>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_server_on_another_host_is_verified() {
        let verified = |text: &str| text.parse::<Database>().unwrap().is_verified().is_ok();
        for text in [
            "sqlite:a.db",
            "postgres://u@127.0.0.1/fleet",
            "postgres://u@[::1]:5432/fleet",
            "postgres://u@localhost/fleet?sslmode=disable",
            "postgres:///fleet?host=/run/postgresql",
            "postgres://u@db.example/fleet?sslmode=verify-full",
            "postgres://u@10.0.0.1/fleet?sslmode=verify-ca",
        ] {
            assert!(verified(text), "{text}");
        }
        for text in [
            "postgres://u@db.example/fleet",
            "postgres://u@10.0.0.1/fleet?sslmode=require",
            "postgres://u@localhost.example/fleet?sslmode=prefer",
            "postgres://u@db.example/fleet?sslmode=disable",
        ] {
            assert!(!verified(text), "{text}");
        }
        let error = "postgres://u:s3cret@db.example/fleet".parse::<Database>().unwrap().is_verified().unwrap_err();
        let error = error.to_string();
        assert!(error.contains("verify-full") && error.contains("db.example") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_password_is_never_printed() {
        let database: Database = "postgres://someone:s3cret@db.example:5433/fleet".parse().unwrap();
        assert_eq!(database.to_string(), "postgres://db.example:5433/fleet");
        assert!(!format!("{database:?}").contains("s3cret"));
        let error = "postgres://someone:s3cret@db.example:nonsense/fleet".parse::<Database>().err().unwrap();
        assert!(!error.to_string().contains("s3cret") && error.to_string().contains("PGPASSWORD"), "{error}");
    }
}
