//! `machineid-authority serve`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::filter::LevelFilter;

use super::{complain, socket};
use crate::authority::database::Database;
use crate::authority::serve::{Options, Running};
use crate::descriptors;
use crate::protocol::Exit;
use crate::telemetry::{self, Lines};

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, in which backticks would show")]
pub(super) struct Serve {
    /// The address to listen on; port 0 takes a free one. This version speaks HTTP without TLS: for other hosts to reach
    /// it, put a TLS proxy before it on the same machine
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8424")]
    listen: SocketAddr,
    /// The database: sqlite:PATH (the file is made when it is missing), or postgres://USER@HOST/DATABASE for several
    /// servers, with the password in PGPASSWORD or ~/.pgpass
    #[arg(long, value_name = "URL")]
    database: Database,
    /// The socket for `machineid-authority org` [default: the SQLite file with .admin.sock behind it]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Let nobody create an organisation over the API; `machineid-authority org create` still does
    #[arg(long)]
    no_signup: bool,
    /// Where browsers reach this authority [default: the address it listens on]
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: Option<String>,
    /// Listen beyond loopback without TLS: org keys can then be read on the way
    #[arg(long)]
    allow_http: bool,
    /// How to write the log, which goes to stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// JSON, one object a line
    Json,
}

impl Serve {
    pub(super) fn run(self) -> Exit {
        if !self.listen.ip().is_loopback() && !self.allow_http {
            // Refused rather than warned about: the key of every org would travel in clear text, and nobody reads
            // warnings of a service that works.
            complain(format_args!(
                "{} can be reached from other machines, and this version speaks HTTP without TLS, so org keys could be \
                 read on the way.\nListen on 127.0.0.1 behind a TLS proxy, or say --allow-http where the network itself is \
                 private.",
                self.listen
            ));
            return Exit::Usage;
        }
        let Some(admin_socket) = socket(self.admin_socket.clone(), Some(self.database.clone())) else {
            return Exit::Usage;
        };
        start_logging(self.log_format);
        descriptors::raise_limit();
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                complain(format_args!("cannot start its threads: {error}"));
                return Exit::Failure;
            }
        };
        match runtime.block_on(self.serve(admin_socket)) {
            Ok(()) => Exit::Success,
            Err(error) => {
                complain(error);
                Exit::Failure
            }
        }
    }

    async fn serve(self, admin_socket: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
        // Before anything is announced: a SIGTERM that follows the announcement must find its handler.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let options = Options {
            listen: self.listen,
            database: self.database,
            admin_socket,
            signup: !self.no_signup,
            public_url: self.public_url,
        };
        let running = Running::start(options.clone()).await?;
        let address = running.address();
        info!(
            %address,
            database = %options.database,
            admin_socket = %options.admin_socket.display(),
            signup = options.signup,
            version = crate::version::VERSION,
            "serving"
        );
        announce(address);
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "ending");
        running.end().await;
        telemetry::flush();
        Ok(())
    }
}

/// The one line on stdout. That nobody reads it is no reason not to serve.
fn announce(address: SocketAddr) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "machineid-authority is listening on http://{address}").and_then(|()| stdout.flush());
}

fn start_logging(format: LogFormat) {
    // Decisions must not wait for whoever reads the log.
    let builder = tracing_subscriber::fmt().with_writer(Lines::to_stderr()).log_internal_errors(false);
    let builder = builder.with_max_level(LevelFilter::INFO).with_ansi(false);
    // Fails only when logging was started before, and then there is a log.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// An origin, with a path perhaps, that `/checkout/…` can be put behind.
fn public_url(text: &str) -> Result<String, String> {
    let wrong = || "write where browsers reach this authority, as in https://authority.example.com".to_owned();
    let url = reqwest::Url::parse(text).map_err(|_| wrong())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::public_url;

    #[test]
    fn a_public_url_is_an_origin_that_a_path_can_follow() {
        assert_eq!(public_url("https://a.example/").as_deref(), Ok("https://a.example"));
        assert_eq!(public_url("http://a.example:8/x/").as_deref(), Ok("http://a.example:8/x"));
        for text in ["", "a.example", "ftp://a", "https://u:p@a", "https://a?q", "https://a#f", "javascript:alert(1)"] {
            assert!(public_url(text).is_err(), "{text}");
        }
    }
}
