//! The value of `--database`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

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
    fn a_password_is_never_printed() {
        let database: Database = "postgres://someone:s3cret@db.example:5433/fleet".parse().unwrap();
        assert_eq!(database.to_string(), "postgres://db.example:5433/fleet");
        assert!(!format!("{database:?}").contains("s3cret"));
        let error = "postgres://someone:s3cret@db.example:nonsense/fleet".parse::<Database>().err().unwrap();
        assert!(!error.to_string().contains("s3cret") && error.to_string().contains("PGPASSWORD"), "{error}");
    }
}
