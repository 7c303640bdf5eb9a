//! The failures of a request without a usable answer: the cause, the side at fault, and whether to try again.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use machineid_protocol::decision::Unusable;
use machineid_protocol::{Code, RequestId, span};
use rustls::CertificateError;
use serde::Serialize;

use super::connection::{ForeignListener, NoAddress};

/// The underlying error, shared so that every waiter for one answer gets it.
pub type SharedError = Arc<dyn Error + Send + Sync>;

/// There is no usable answer. A failure says nothing about the device: it is never an ALLOW, and no deny either. Holds
/// no key.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The authority's host name has no address.
    Dns(SharedError),
    /// No connection could be made, to the authority or to the proxy in front of it.
    Connect(SharedError),
    /// A process of another user listens where the authority should, on this host. It was sent nothing.
    ForeignListener(ForeignListener),
    /// No encrypted connection could be made.
    Tls {
        /// What is wrong.
        fault: TlsFault,
        /// The error of the TLS library.
        source: SharedError,
    },
    /// No complete answer came in time.
    Timeout {
        /// The time limit.
        after: Duration,
    },
    /// The connection ended before the answer was complete.
    Interrupted(SharedError),
    /// The peer does not speak HTTP.
    NotHttp(SharedError),
    /// The answer is longer than any valid one.
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The answer is a redirect; none is followed, since the key would be sent along.
    Redirected {
        /// The target without path and query, if it is another origin.
        origin: Option<String>,
    },
    /// A server error, or another status without a decision or an explanation.
    Status {
        /// The HTTP status.
        status: u16,
        /// The delay requested by the authority; see [`Failure::retry_after`].
        retry_after: Option<Duration>,
        /// What the authority says about it, printable.
        reason: Option<String>,
    },
    /// The authority answered that it could complete no decision, and marked the answer so: `SYSTEM_UNAVAILABLE`.
    Undecided {
        /// The delay requested by the authority; see [`Failure::retry_after`].
        retry_after: Option<Duration>,
    },
    /// The answer to a validation is no decision, or the answer is otherwise malformed.
    Unusable(Unusable),
    /// The answer lacks the part about this request.
    Incomplete,
    /// The authority understood the request and refused it.
    Refused(Refusal),
}

/// Why no encrypted connection could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsFault {
    /// Anything that is not listed here, as a connection that was cut.
    Other,
    /// What answers does not speak TLS.
    Plain,
    /// The certificate is not trusted, or is not this server's.
    Untrusted,
    /// The server presents a certificate authority's own certificate.
    CaAsServer,
}

impl TlsFault {
    fn of(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(certificate) = error else {
            // The first byte of "HTTP/1.1 400" is no record of TLS.
            return if matches!(error, rustls::Error::InvalidMessage(_)) { Self::Plain } else { Self::Other };
        };
        // The verifier of the web PKI has no variant of its own for this in rustls.
        let is_ca =
            matches!(certificate, CertificateError::Other(inner) if inner.0.to_string().contains("CaUsedAsEndEntity"));
        if is_ca { Self::CaAsServer } else { Self::Untrusted }
    }

    const fn is_about_the_certificate(self) -> bool {
        match self {
            Self::Untrusted | Self::CaAsServer => true,
            Self::Plain | Self::Other => false,
        }
    }
}

/// The authority's explanation of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The `error` of the answer, or else its `status`, such as `not_found` or `device_limit_reached`; printable.
    pub error: Option<String>,
    /// The decision code, such as `INVALID_ORG_KEY`.
    pub code: Option<Code>,
    /// The authority's id of the request.
    pub request_id: Option<RequestId>,
    /// The reason, as a sentence for people, if the authority gives one; printable.
    pub reason: Option<String>,
    /// Set when nothing is wrong and nothing was done yet: the request waits for a second key.
    pub waits: Option<Box<Waiting>>,
}

/// A request that waits until a second key confirms it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The number by which another key confirms it.
    pub approval_id: String,
    /// The RFC 3339 time at which it expires.
    pub expires_at: Option<String>,
    /// What to do, as a sentence for people.
    pub reason: Option<String>,
}

/// The side that must act on a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operator of the network in between.
    Network,
    /// The operator of the authority.
    Authority,
    /// The operator of this host: the URL, the key, the certificates, the plan.
    Configuration,
}

impl Failure {
    /// The side that is most likely at fault.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Connect(_)
            | Self::Timeout { .. }
            | Self::Interrupted(_)
            | Self::Tls { fault: TlsFault::Other, .. } => Fault::Network,
            Self::TooLarge { .. } | Self::Undecided { .. } | Self::Unusable(_) | Self::Incomplete => Fault::Authority,
            Self::Status { status, .. } if *status >= 500 || *status == 429 || *status == 408 => Fault::Authority,
            Self::Dns(_)
            | Self::ForeignListener(_)
            | Self::Tls { fault: TlsFault::Untrusted | TlsFault::CaAsServer | TlsFault::Plain, .. }
            | Self::NotHttp(_)
            | Self::Redirected { .. }
            | Self::Status { .. }
            | Self::Refused(_) => Fault::Configuration,
        }
    }

    /// Whether the same request may succeed without any change.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            // A resolver that is not up yet gives the same error as one that does not know the name.
            Self::Dns(_)
            | Self::Connect(_)
            // The authority may come back to its place.
            | Self::ForeignListener(_)
            | Self::Timeout { .. }
            | Self::Interrupted(_)
            | Self::Undecided { .. }
            | Self::Unusable(_)
            | Self::Incomplete => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            Self::Tls { fault, .. } => !fault.is_about_the_certificate(),
            Self::NotHttp(_)
            | Self::TooLarge { .. }
            | Self::Redirected { .. }
            | Self::Refused(_) => false,
        }
    }

    /// The delay requested by the authority: at most [`super::LONGEST_RETRY_AFTER`].
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } | Self::Undecided { retry_after } => *retry_after,
            Self::Dns(_)
            | Self::Connect(_)
            | Self::ForeignListener(_)
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::Interrupted(_)
            | Self::NotHttp(_)
            | Self::TooLarge { .. }
            | Self::Redirected { .. }
            | Self::Unusable(_)
            | Self::Incomplete
            | Self::Refused(_) => None,
        }
    }

    /// The code of an undecided check with this reason.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Undecided { .. } => Code::SystemUnavailable,
            Self::Dns(_)
            | Self::Connect(_)
            | Self::ForeignListener(_)
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::Interrupted(_)
            | Self::NotHttp(_)
            | Self::TooLarge { .. }
            | Self::Redirected { .. }
            | Self::Status { .. }
            | Self::Unusable(_)
            | Self::Incomplete
            | Self::Refused(_) => Code::AuthorityUnreachable,
        }
    }

    /// A word for metrics and JSON, from a fixed set.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Connect(_) => "connect",
            Self::ForeignListener(_) => "foreign_listener",
            Self::Tls { .. } => "tls",
            Self::Timeout { .. } => "timeout",
            Self::Interrupted(_) => "interrupted",
            Self::NotHttp(_) => "not_http",
            Self::TooLarge { .. } => "too_large",
            Self::Redirected { .. } => "redirected",
            Self::Status { .. } => "status",
            Self::Undecided { .. } => "undecided",
            Self::Unusable(_) => "unusable",
            Self::Incomplete => "incomplete",
            Self::Refused(_) => "refused",
        }
    }
}

/// An error of the libraries while a request was sent or its answer read.
#[derive(Debug)]
pub(super) struct SendError {
    source: SharedError,
    /// The request did not get as far as a connection.
    connecting: bool,
    timed_out: bool,
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        // A URL that is too long for HTTP fails before a connection is made.
        let connecting = error.is_connect() || error.is_builder();
        let timed_out = error.is_timeout();
        // The message around this error names the URL.
        Self { source: Arc::new(error.without_url()), connecting, timed_out }
    }
}

impl From<hyper_util::client::legacy::Error> for SendError {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        Self { connecting: error.is_connect(), source: Arc::new(error), timed_out: false }
    }
}

impl SendError {
    /// Whether the request may have been sent on a kept connection that was dead.
    pub(super) fn may_be_a_dead_connection(&self) -> bool {
        !self.connecting && Cause::of(&*self.source).closed_early
    }

    /// The failure that this error is. `timeout` is the time limit of the request.
    pub(super) fn classified(self, timeout: Duration) -> Failure {
        let Self { source, connecting, timed_out } = self;
        if timed_out {
            return Failure::Timeout { after: timeout };
        }
        match Cause::of(&*source).reason {
            Some(FailureReason::ForeignListener(foreign)) => Failure::ForeignListener(foreign),
            Some(FailureReason::TimedOut) => Failure::Timeout { after: timeout },
            Some(FailureReason::NoAddress) => Failure::Dns(source),
            Some(FailureReason::Tls(fault)) => Failure::Tls { fault, source },
            Some(FailureReason::NotHttp) | None if connecting => Failure::Connect(source),
            Some(FailureReason::NotHttp) => Failure::NotHttp(source),
            None => Failure::Interrupted(source),
        }
    }
}

/// The facts in a chain of error sources.
#[derive(Clone, Debug, Default)]
struct Cause {
    reason: Option<FailureReason>,
    /// The peer closed or reset the connection before the answer was whole.
    closed_early: bool,
}

/// The cause of a failure. Of several causes, the greatest says the most.
#[derive(Clone, Debug)]
enum FailureReason {
    NotHttp,
    Tls(TlsFault),
    NoAddress,
    TimedOut,
    ForeignListener(ForeignListener),
}

impl FailureReason {
    const fn rank(&self) -> u8 {
        match self {
            Self::NotHttp => 0,
            Self::Tls(TlsFault::Other | TlsFault::Plain) => 1,
            Self::Tls(TlsFault::Untrusted | TlsFault::CaAsServer) => 2,
            Self::NoAddress => 3,
            Self::TimedOut => 4,
            Self::ForeignListener(_) => 5,
        }
    }
}

impl Cause {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Self::default();
        let mut next = Some(error);
        while let Some(error) = next {
            let mut reason = error.is::<NoAddress>().then_some(FailureReason::NoAddress);
            if let Some(foreign) = error.downcast_ref::<ForeignListener>() {
                reason = Some(FailureReason::ForeignListener(foreign.clone()));
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                reason = Some(FailureReason::Tls(TlsFault::of(tls)));
            }
            if let Some(http) = error.downcast_ref::<hyper::Error>() {
                reason = http.is_parse().then_some(FailureReason::NotHttp);
                cause.closed_early |= http.is_incomplete_message() || http.is_closed() || http.is_canceled();
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                reason = (io.kind() == io::ErrorKind::TimedOut).then_some(FailureReason::TimedOut);
                cause.closed_early |= matches!(
                    io.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::UnexpectedEof
                );
            }
            let rank = |reason: &Option<FailureReason>| reason.as_ref().map(FailureReason::rank);
            if rank(&reason) > rank(&cause.reason) {
                cause.reason = reason;
            }
            next = below(error);
        }
        cause
    }
}

/// `io::Error::source` skips the error it wraps; `get_ref` does not.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The text of the innermost error: the outer ones only say that something inside failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = below(last) {
        last = next;
    }
    // "(os error 111)" adds nothing to "Connection refused" for a reader.
    let text = last.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(source) => write!(f, "the authority's host name could not be resolved: {}", innermost(source)),
            Self::Connect(source) => write!(f, "could not connect to the authority: {}", innermost(source)),
            Self::ForeignListener(foreign) => foreign.fmt(f),
            Self::Tls { fault: TlsFault::CaAsServer, .. } => f.write_str(
                "the authority presents the certificate of a CA as its own; give it a server certificate that this CA has \
                 signed (machineid-authority: --tls-cert), and keep the CA's in ca_file",
            ),
            Self::Tls { fault: TlsFault::Plain, .. } => f.write_str(
                "the authority's port does not speak TLS, and the URL says https; name the port that does, or write http:// for \
                 an authority on this host",
            ),
            Self::Tls { fault: TlsFault::Untrusted, source } => {
                write!(f, "the authority's certificate is not trusted: {}", innermost(source))
            }
            Self::Tls { fault: TlsFault::Other, source } => {
                write!(f, "could not make an encrypted connection to the authority: {}", innermost(source))
            }
            Self::Timeout { after } => {
                write!(f, "the authority gave no complete answer within {}", span::format(*after))
            }
            Self::Interrupted(source) => {
                write!(f, "the connection ended before the authority's answer was complete: {}", innermost(source))
            }
            Self::NotHttp(_) => f.write_str("what answers does not speak HTTP (is this the right URL and port?)"),
            Self::TooLarge { limit } => write!(f, "the authority's answer is longer than {limit} bytes"),
            Self::Redirected { origin: Some(origin) } => {
                write!(
                    f,
                    "the authority redirects to {origin}, and redirects are not followed (is this the right URL?)"
                )
            }
            Self::Redirected { origin: None } => f.write_str(
                "the authority answers with a redirect, and redirects are not followed (is this the right URL?)",
            ),
            Self::Status { status, retry_after, reason } => {
                write!(f, "the authority answered HTTP {status}")?;
                if let Some(wait) = retry_after {
                    write!(f, " and asks for a retry in {}", span::format(*wait))?;
                }
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
            Self::Undecided { retry_after: None } => Unusable::Undecided.fmt(f),
            Self::Undecided { retry_after: Some(wait) } => {
                write!(f, "{} and asks for a retry in {}", Unusable::Undecided, span::format(*wait))
            }
            Self::Unusable(unusable) => unusable.fmt(f),
            Self::Incomplete => f.write_str("the authority's answer lacks what belongs to this request"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the authority refused: ")?;
        match (&self.code, &self.error) {
            (Some(code), _) => write!(f, "{code}")?,
            (None, Some(error)) => write!(f, "{error}")?,
            (None, None) => f.write_str("no reason given")?,
        }
        write!(f, " (HTTP {}", self.status)?;
        if let Some(id) = &self.request_id {
            write!(f, ", request {id}")?;
        }
        f.write_str(")")?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {}", reason.trim_end_matches('.')))
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Dns(source)
            | Self::Connect(source)
            | Self::Tls { source, .. }
            | Self::Interrupted(source)
            | Self::NotHttp(source) => Some(source),
            Self::Unusable(unusable) => Some(unusable),
            Self::ForeignListener(foreign) => Some(foreign),
            Self::Timeout { .. }
            | Self::TooLarge { .. }
            | Self::Redirected { .. }
            | Self::Status { .. }
            | Self::Undecided { .. }
            | Self::Incomplete
            | Self::Refused(_) => None,
        }
    }
}
