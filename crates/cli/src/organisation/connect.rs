//! Makes a client with a key from flags and environment.

use std::path::Path;

use machineid_client::{AuthorityClient, BaseUrl, Failure, Options, PACKAGED_USER, TlsFault, user_id};
use machineid_org_key::OrgKey;
use machineid_org_key::file::{self as key_file, Pipe};

use crate::Env;
use crate::args::{ConnectArgs, KeyArgs};
use crate::problem::Problem;

/// The variable for `--authority-user`.
const USER_VARIABLE: &str = "MACHINEID_AUTHORITY_USER";

/// A client with the organisation's key, for the commands that ask the authority.
#[derive(Debug)]
pub(super) struct OrgClient {
    pub(super) client: AuthorityClient,
    pub(super) key: OrgKey,
    /// The origin of the key, for messages.
    key_source: String,
}

impl OrgClient {
    pub(super) fn new(args: &KeyArgs, env: Env<'_>) -> Result<Self, Problem> {
        let (key, key_source) = key(args, env)?;
        let client = client(&args.connect, env)?;
        Ok(Self { client, key, key_source })
    }

    /// A failure as a message for the operator: where it happened and what to do next.
    pub(super) fn explain(&self, failure: &Failure) -> String {
        let wrong_key = matches!(failure, Failure::Status { status: 401, .. })
            || matches!(failure, Failure::Refused(refusal) if refusal.status == 401);
        let hint =
            if wrong_key { format!("; check the org key from {}", self.key_source) } else { hint(failure).to_owned() };
        format!("{}: {failure}{hint}", self.client.base_url())
    }

    pub(super) fn problem(&self, failure: &Failure) -> Problem {
        Problem::failure(self.explain(failure))
    }
}

/// What to do about a failure, as far as the command line can help.
pub(super) fn hint(failure: &Failure) -> &'static str {
    match failure {
        Failure::Dns(_)
        | Failure::Connect(_)
        | Failure::NotHttp(_)
        | Failure::Redirected { .. }
        | Failure::Status { status: 404, .. } => "; check --url (or MACHINEID_BASE_URL)",
        Failure::ForeignListener(_) => "; if that user may run the authority, name it with --authority-user",
        Failure::Tls { fault: TlsFault::Untrusted, .. } => {
            "; for a private authority, name its certificate with --ca-file"
        }
        Failure::Tls { fault: TlsFault::Other, .. } => {
            "; does it speak TLS on this port? Check --url (or MACHINEID_BASE_URL)"
        }
        Failure::Timeout { .. } => "; try again, or give it longer with --timeout",
        Failure::Interrupted(_) | Failure::Incomplete | Failure::Undecided { .. } | Failure::Unusable(_) => {
            "; try again"
        }
        // The failure itself names the remedy, or there is none.
        Failure::Tls { fault: TlsFault::CaAsServer | TlsFault::Plain, .. }
        | Failure::Status { .. }
        | Failure::TooLarge { .. }
        | Failure::Refused(_) => "",
    }
}

/// A client for the authority named by flags or environment.
pub(super) fn client(args: &ConnectArgs, env: Env<'_>) -> Result<AuthorityClient, Problem> {
    if args.timeout.is_zero() {
        return Err(Problem::usage("--timeout: must be more than 0, as in 10s"));
    }
    let ca_pem = match &args.ca_file {
        Some(path) => Some(
            std::fs::read(path)
                .map_err(|error| Problem::usage(format!("--ca-file: cannot read {}: {error}", path.display())))?,
        ),
        None => None,
    };
    let (source, url) = match (&args.url, env("MACHINEID_BASE_URL")) {
        (Some(url), _) => ("--url", url.clone()),
        (None, Some(url)) => ("MACHINEID_BASE_URL", url.to_string_lossy().into_owned()),
        // No default: the key of an authority of one's own must not travel to the service because a variable is not set.
        (None, None) => {
            return Err(Problem::usage(
                "no authority is named, and no key is sent to one that is not; name it with --url URL or MACHINEID_BASE_URL \
                 (the service: https://machineid.io; one on this host: unix:/run/machineid-authority/api.sock or \
                 http://127.0.0.1:8424)",
            ));
        }
    };
    let base_url = BaseUrl::parse(&url, args.allow_http).map_err(|error| {
        let flag = if matches!(error, machineid_client::BaseUrlError::Unencrypted) { " with --allow-http" } else { "" };
        Problem::usage(format!("{source}: {error}{flag}"))
    })?;
    let authority_user = authority_user(args, env)?;
    let options = Options {
        base_url,
        authority_user,
        timeout: args.timeout,
        ca_pem,
        user_agent: concat!("machineid/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    AuthorityClient::new(options).map_err(|error| match &args.ca_file {
        Some(path) => Problem::usage(format!("--ca-file {}: {error}", path.display())),
        None => Problem::failure(error.to_string()),
    })
}

/// The user who may run an authority on this host.
fn authority_user(args: &ConnectArgs, env: Env<'_>) -> Result<Option<u32>, Problem> {
    let named = match (&args.authority_user, env(USER_VARIABLE)) {
        (Some(user), _) => Some(("--authority-user", user.clone())),
        (None, Some(user)) => Some((USER_VARIABLE, user.to_string_lossy().into_owned())),
        (None, None) => None,
    };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let Some((source, user)) = named else { return Ok(user_id(PACKAGED_USER, &users)) };
    let unknown = || Problem::usage(format!("{source}: there is no user {user:?} in /etc/passwd; or name its number"));
    user_id(&user, &users).map(Some).ok_or_else(unknown)
}

fn key(args: &KeyArgs, env: Env<'_>) -> Result<(OrgKey, String), Problem> {
    if let Some(path) = &args.org_key_file {
        let key = key_file::read(path, Pipe::Taken, platform_keeps(path, env))
            .map_err(|why| Problem::usage(format!("--org-key-file {}: {why}", path.display())))?;
        return Ok((key, path.display().to_string()));
    }
    let Some(value) = env("MACHINEID_ORG_KEY") else {
        return Err(Problem::usage(
            "no org key: put it into a file only you can read and name that with --org-key-file PATH, or set \
             MACHINEID_ORG_KEY (machineid org create makes a new organisation)",
        ));
    };
    let key = value.to_str().unwrap_or("\u{0}").parse();
    let key = key.map_err(|error| Problem::usage(format!("MACHINEID_ORG_KEY: {error}")))?;
    Ok((key, "MACHINEID_ORG_KEY".to_owned()))
}

/// Whether the platform decides the file's mode: a container's secret, a unit's credential.
fn platform_keeps(path: &Path, env: Env<'_>) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let credentials =
        env("CREDENTIALS_DIRECTORY").map(std::path::PathBuf::from).and_then(|dir| dir.canonicalize().ok());
    path.starts_with("/run/secrets") || credentials.is_some_and(|directory| path.starts_with(directory))
}
