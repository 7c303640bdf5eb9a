//! `machineid-authority serve`: runs a server.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use machineid_log::Lines;
use machineid_protocol::{Exit, span};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tracing::info;
use tracing_subscriber::filter::LevelFilter;

use super::{complain, socket};
use crate::connections::ConnectionBounds;
use crate::database::Database;
use crate::forwarded::{Trusted, TrustedProxy, TrustedProxyError};
use crate::limits::{Rate, Rates};
use crate::listen::{HandedSocket, ListenAddress};
use crate::reserve_file_of;
use crate::retention::Retention;
use crate::serve::{Running, ServerOptions, StartError};
use crate::store::{Demand, FEWEST_CONNECTIONS, Reserves, Terms};
use crate::tls::Files;

/// Where a server listens that is told nothing.
const DEFAULT: ListenAddress = ListenAddress::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8424)));

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Serve {
    /// The address to listen on; port 0 takes a free one. unix:PATH is a unix socket that every user of this host may
    /// open, in plain HTTP. May be given several times; sockets that a service manager hands over are served as well. For
    /// other hosts to reach it, give it a certificate or put a TLS proxy before it on the same machine [default: the
    /// sockets that are handed over, else 127.0.0.1:8424]
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    listen: Vec<ListenAddress>,
    /// The database: sqlite:PATH (the file is made when it is missing), or postgres://USER@HOST/DATABASE for several
    /// servers, with the password in PGPASSWORD or ~/.pgpass
    #[arg(long, value_name = "URL")]
    database: Database,
    /// How many connections to PostgreSQL this server uses at most; 5 or more, 6 with --fence
    #[arg(long, value_name = "N", default_value_t = Terms::default().connections, value_parser = connections)]
    database_connections: usize,
    /// Connect to PostgreSQL on another host without verified TLS: an attacker on the way can then read and change what
    /// it decides
    #[arg(long)]
    database_allow_plain: bool,
    /// With synchronous replication: decide only while a standby confirms commits, so that an old primary that was cut off
    /// decides nothing more after 3 s. A standby that is away then stops decisions, too
    #[arg(long)]
    fence: bool,
    /// The socket for `machineid-authority org` [default: the SQLite file with .admin.sock behind it]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Let every client that reaches this server create a free organisation over the API; without this only
    /// `machineid-authority org create` creates them
    #[arg(long)]
    sign_up: bool,
    /// The default. Accepted so that a unit with the options of an earlier version still starts
    #[arg(long, hide = true, conflicts_with = "sign_up")]
    no_signup: bool,
    /// Where browsers reach this authority [default: the address it listens on]
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: Option<String>,
    /// Speak HTTPS with this certificate, a PEM file that begins with the server's own; read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A proxy, or a network of them, whose X-Forwarded-For counts; uid:N is a proxy of this user that comes by a unix
    /// socket. May be given several times
    #[arg(long, value_name = "CIDR|uid:N", value_parser = proxy)]
    trusted_proxy: Vec<TrustedProxy>,
    /// Another name under which browsers reach the console, beside the one in --public-url; may be given several times
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    allowed_host: Vec<String>,
    /// Serve /metrics, /healthz and /readyz at this address, in plain HTTP; metrics are served nowhere else
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// How many requests with a wrong key one address may make a minute; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 60)]
    failed_keys_per_minute: u32,
    /// With --sign-up: how many organisations one address may create a minute; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 10)]
    signups_per_minute: u32,
    /// How many management requests one org key may make a minute; 0 for any number. Validations and registrations are
    /// never limited
    #[arg(long, value_name = "N", default_value_t = 6000)]
    management_per_minute: u32,
    /// Remove active devices that registered as ephemeral and were not seen for this long; 0s for never. One that is revoked
    /// is never removed
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span::parse)]
    ephemeral_after: Duration,
    /// How many connections of clients to serve at once [default: as many as the limit of open files allows, less what the
    /// server needs itself]. When there are more, those without a valid key are closed first
    #[arg(long, value_name = "N", value_parser = clients)]
    connections: Option<usize>,
    /// Delete audit entries that are older than this; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = span::parse)]
    audit_age: Duration,
    /// About how many MiB the audit of one organisation has; its oldest entries are deleted for newer ones. 0 for any number
    #[arg(long, value_name = "N", default_value_t = 64)]
    audit_mib: u64,
    /// Delete reports, stops and events of sidecars that are older than this
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = report_age)]
    report_age: Duration,
    /// How many MiB of free space on the disk of a SQLite database are kept for stops: with less, nothing else that makes the
    /// database grow is accepted; 0 for none
    #[arg(long, value_name = "N", default_value_t = 64)]
    reserve_mib: u64,
    /// A file of 1 MiB for stops that the database does not take, on a disk that outlives a restart [default: the SQLite
    /// file with .reserve behind it; on PostgreSQL none, so that such stops are in memory alone]
    #[arg(long, value_name = "PATH")]
    reserve_file: Option<PathBuf>,
    /// Listen beyond loopback without TLS: org keys can then be read on the way
    #[arg(long)]
    allow_http: bool,
    /// Serve only where PostgreSQL answers a change after a standby has it: refuse to start, and be not ready, while it
    /// does not
    #[arg(long)]
    require_synchronous: bool,
    /// Log validations, reports of sidecars and health checks too, a line of about 230 bytes each; without this they are
    /// only counted (--metrics-listen)
    #[arg(long)]
    log_validations: bool,
    /// How to write the log, which goes to stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormatOption::Text)]
    log_format: LogFormatOption,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormatOption {
    /// Lines for people
    Text,
    /// JSON, one object a line
    Json,
}

impl Serve {
    pub(super) fn run(self) -> Exit {
        // First: reading the sockets changes the environment, which only one thread may do.
        let handed = match HandedSocket::take_all() {
            Ok(handed) => handed,
            Err(error) => {
                complain(error);
                return Exit::Usage;
            }
        };
        let listen = if self.listen.is_empty() && handed.is_empty() { vec![DEFAULT] } else { self.listen.clone() };
        let held = handed.iter().filter_map(|socket| socket.address().ok());
        let reachable = listen.iter().cloned().chain(held).find(ListenAddress::is_beyond_loopback);
        if let Some(reachable) = reachable.filter(|_| !self.allow_http && self.tls_cert.is_none()) {
            // Refused, not only warned about: the keys of all organisations would be sent in clear text, and warnings
            // of a working service are rarely read.
            complain(format_args!(
                "{reachable} can be reached from other machines, so without TLS org keys could be read on the way.\nGive it \
                 --tls-cert and --tls-key, listen on 127.0.0.1 behind a TLS proxy, or say --allow-http where the network \
                 itself is private."
            ));
            return Exit::Usage;
        }
        if let Err(problem) = self.database.is_verified()
            && !self.database_allow_plain
        {
            complain(problem);
            return Exit::Usage;
        }
        let Some(admin_socket) = socket(self.admin_socket.clone(), Some(self.database.clone())) else {
            return Exit::Usage;
        };
        start_logging(self.log_format);
        if self.no_signup {
            info!("--no-signup is the default now, and can be left out");
        }
        let _ = machineid_sys::raise_descriptor_limit();
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                complain(format_args!("cannot start its threads: {error}"));
                return Exit::Failure;
            }
        };
        match runtime.block_on(self.serve(listen, handed, admin_socket)) {
            Ok(()) => Exit::Success,
            Err(error) => {
                complain(error);
                Exit::Failure
            }
        }
    }

    async fn serve(
        self,
        listen: Vec<ListenAddress>,
        handed: Vec<HandedSocket>,
        admin_socket: PathBuf,
    ) -> Result<(), AuthorityServeError> {
        // Before the server is announced: a SIGTERM that follows the announcement must find its handler.
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(AuthorityServeError::Signals)?;
        let beside = match &self.database {
            Database::Sqlite(path) => Some(reserve_file_of(path)),
            Database::Postgres(_) => None,
        };
        let options = ServerOptions {
            listen,
            reserves: Reserves {
                space: self.reserve_mib.saturating_mul(1024 * 1024),
                file: self.reserve_file.or(beside),
            },
            database: self.database,
            terms: Terms { connections: self.database_connections, fence: self.fence },
            admin_socket,
            sign_up: self.sign_up,
            public_url: self.public_url,
            metrics: self.metrics_listen,
            tls: self.tls_cert.zip(self.tls_key).map(|(certificates, key)| Files { certificates, key }),
            trusted: Trusted::new(self.trusted_proxy),
            allowed_hosts: self.allowed_host,
            rates: Rates {
                failed_keys: Rate::per_minute(self.failed_keys_per_minute),
                sign_ups: Rate::per_minute(self.signups_per_minute),
                management: Rate::per_minute(self.management_per_minute),
            },
            demand: if self.require_synchronous { Demand::Synchronous } else { Demand::Nothing },
            log_validations: self.log_validations,
            ephemeral_after: (!self.ephemeral_after.is_zero()).then_some(self.ephemeral_after),
            retention: Retention {
                audit_age: (!self.audit_age.is_zero()).then_some(self.audit_age),
                audit_bytes: (self.audit_mib > 0).then_some(self.audit_mib.saturating_mul(1024 * 1024)),
                report_age: self.report_age,
            },
            connections: self.connections,
        };
        let running = Running::start(options.clone(), handed).await?;
        let addresses = said(options.tls.is_some(), running.addresses());
        info!(
            address = addresses,
            database = %options.database,
            admin_socket = %options.admin_socket.display(),
            sign_up = options.sign_up,
            metrics = running.metrics().map(tracing::field::display),
            version = machineid_version::VERSION,
            "serving"
        );
        announce(&addresses);
        let name = loop {
            match signals.next().await {
                Some(SIGHUP) => running.reload(),
                Some(SIGINT) => break "SIGINT",
                Some(_) | None => break "SIGTERM",
            }
        };
        info!(signal = name, "ending");
        running.end().await;
        machineid_log::flush();
        Ok(())
    }
}

/// The addresses as URLs.
fn said(encrypted: bool, addresses: &[ListenAddress]) -> String {
    let scheme = if encrypted { "https" } else { "http" };
    let one = |address: &ListenAddress| match address {
        ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
        ListenAddress::Unix(_) => address.to_string(),
    };
    addresses.iter().map(one).collect::<Vec<_>>().join(" and ")
}

/// Prints the one line on stdout. The server continues if that fails.
fn announce(addresses: &str) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "machineid-authority is listening on {addresses}").and_then(|()| stdout.flush());
}

fn start_logging(format: LogFormatOption) {
    // Decisions must not wait for the reader of the log.
    let builder = tracing_subscriber::fmt().with_writer(Lines::to_stderr()).log_internal_errors(false);
    let builder = builder.with_max_level(LevelFilter::INFO).with_ansi(false);
    // Fails only when logging was already started, so there is a log.
    let _ = match format {
        LogFormatOption::Text => builder.try_init(),
        LogFormatOption::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
enum AuthorityServeError {
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The value of a flag is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum FlagError {
    #[error("write a number from {FEWEST_CONNECTIONS} to 1000")]
    Connections,
    #[error("write a number from {} to 1000000", ConnectionBounds::FEWEST)]
    Clients,
    #[error("write a duration of an hour or more, as in 720h: the board of a stop shows what sidecars reported")]
    ReportAge,
    #[error(transparent)]
    Proxy(#[from] TrustedProxyError),
    #[error(
        "uid:{0} stands for every user that this user namespace does not map, so that it names no proxy; run the proxy as a \
         user that is mapped"
    )]
    AnyUser(u32),
    #[error("write a host name without a port, as in authority.internal")]
    HostName,
    #[error("write where browsers reach this authority, as in https://authority.example.com")]
    PublicUrl,
}

/// Parses the number of connections that a server can use.
fn connections(text: &str) -> Result<usize, FlagError> {
    let number = text.parse().ok().filter(|number| (FEWEST_CONNECTIONS..=1000).contains(number));
    number.ok_or(FlagError::Connections)
}

/// Parses the number of connections of clients.
fn clients(text: &str) -> Result<usize, FlagError> {
    let number = text.parse().ok().filter(|number| (ConnectionBounds::FEWEST..=1_000_000).contains(number));
    number.ok_or(FlagError::Clients)
}

/// Parses a trusted proxy.
fn proxy(text: &str) -> Result<TrustedProxy, FlagError> {
    match text.parse()? {
        TrustedProxy::User(uid) if machineid_sockets::is_ambiguous(uid) => Err(FlagError::AnyUser(uid)),
        proxy @ (TrustedProxy::User(_) | TrustedProxy::Network(_)) => Ok(proxy),
    }
}

/// Parses how long reports are kept.
fn report_age(text: &str) -> Result<Duration, FlagError> {
    let age = span::parse(text).ok().filter(|age| *age >= Duration::from_hours(1));
    age.ok_or(FlagError::ReportAge)
}

/// Parses a host name.
fn host_name(text: &str) -> Result<String, FlagError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) { Ok(text.to_ascii_lowercase()) } else { Err(FlagError::HostName) }
}

/// Parses an origin, possibly with a path, to which `/checkout/…` can be appended.
fn public_url(text: &str) -> Result<String, FlagError> {
    let url = url::Url::parse(text).map_err(|_| FlagError::PublicUrl)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(FlagError::PublicUrl) }
}

#[cfg(test)]
mod tests {
    use super::{host_name, public_url};

    #[test]
    fn a_host_name_has_no_port_and_no_scheme() {
        assert_eq!(host_name("Authority.internal").as_deref(), Ok("authority.internal"));
        for text in ["", "a:8424", "https://a", "a/b", "*"] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_url_is_an_origin_that_a_path_can_follow() {
        assert_eq!(public_url("https://a.example/").as_deref(), Ok("https://a.example"));
        assert_eq!(public_url("http://a.example:8/x/").as_deref(), Ok("http://a.example:8/x"));
        for text in ["", "a.example", "ftp://a", "https://u:p@a", "https://a?q", "https://a#f", "javascript:alert(1)"] {
            assert!(public_url(text).is_err(), "{text}");
        }
    }
}
