//! "May I run?"

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri};
use machineid_clock::BootTime;
use machineid_openapi::{Operation, Parameter};
use machineid_protocol::device_id::DeviceIdError;
use machineid_protocol::span::{self, SpanError};
use machineid_protocol::{Code, Denial, DeviceId};
use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::openapi::CHECK;
use super::peer::Peer;
use super::{Context, not_nameable, reply};
use crate::gate::AskPurpose;
use crate::gate::standing::Grant;
use crate::registry::Run;
use crate::telemetry::metrics::Rejected;

/// The parameters of a check. Each can make it stricter, none weaker than the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct CheckQuestion {
    device: Option<DeviceId>,
    max_age: Option<Duration>,
    timeout: Option<Duration>,
}

/// Why the question of a check is malformed.
#[derive(Debug, Error)]
enum QueryError {
    #[error("{0} is not UTF-8")]
    NotUtf8(String),
    #[error("device: {0}")]
    Device(DeviceIdError),
    #[error("{name}: {source}")]
    Duration { name: &'static str, source: SpanError },
    #[error("{0:?} is unknown; a check takes device, max_age and timeout")]
    Unknown(String),
    #[error("{0} is given twice")]
    Repeated(String),
}

pub(super) const CHECK_ONE: Operation = Operation {
    path: "/v1/check",
    method: "get",
    summary: "May it run? Answered by a validation that begins after the question, unless max_age allows an older one",
    parameters: &[
        Parameter("query", "device", "The device; without it the calling agent's own, else the host's."),
        Parameter("query", "max_age", "The greatest age of an acceptable answer, as 2s; capped by local.max_age_cap."),
        Parameter("query", "timeout", "How long to wait, as 1s; at most local.check_timeout."),
    ],
    body: None,
    answers: CHECK,
};

/// `GET /v1/check?device=ID&max_age=2s&timeout=1s`
pub(super) async fn check(context: &Context, peer: &Peer, query: Option<&str>) -> Response<Bytes> {
    let asked = BootTime::now();
    let response = match CheckQuestion::parse(query.unwrap_or("")) {
        Ok(question) => answer(context, peer, question, asked).await,
        Err(error) => reply::brief(StatusCode::BAD_REQUEST, Code::BadRequest, &error.to_string()),
    };
    context.checked(response.status(), asked);
    response
}

pub(super) const AUTHORIZE: Operation = Operation {
    path: "/v1/authz/{device}",
    method: "get",
    summary: "A strict check of this device by any method, also below this path: for nginx auth_request, Envoy ext_authz and \
              Traefik forwardAuth",
    parameters: &[Parameter("path", "device", "The device, percent-encoded, a / as %2F.")],
    body: None,
    answers: CHECK,
};

/// Any method on `/v1/authz/<device>` and below: a strict check of that device.
pub(super) async fn authorize(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
) -> Response<Body> {
    let asked = BootTime::now();
    let segment = uri.path().strip_prefix("/v1/authz/").and_then(|rest| rest.split('/').next()).unwrap_or("");
    let device = percent_decode_str(segment).decode_utf8().map_err(|_| QueryError::NotUtf8("the device".to_owned()));
    let answer = match device.and_then(|text| text.parse::<DeviceId>().map_err(QueryError::Device)) {
        Ok(device) => {
            answer(&context, &peer, CheckQuestion { device: Some(device), ..CheckQuestion::default() }, asked).await
        }
        Err(error) => reply::brief(StatusCode::BAD_REQUEST, Code::BadRequest, &error.to_string()),
    };
    context.checked(answer.status(), asked);
    answer.map(Body::from)
}

async fn answer(context: &Context, peer: &Peer, question: CheckQuestion, asked: BootTime) -> Response<Bytes> {
    let runs = match &question.device {
        Some(device) if !context.may_name(peer, device) => {
            context.journal.metrics.peer_rejected(Rejected::DeviceNotPermitted);
            return reply::denied(&not_nameable(device), device);
        }
        Some(_) => Vec::new(),
        // A caller that cannot be identified may be an agent: it must not be answered as if it were not.
        None => match peer.runs(&context.runs) {
            Ok(runs) => runs,
            Err(error) => return overloaded(&error),
        },
    };
    if let Some(stopping) = runs.iter().find_map(|run| stopping(run)) {
        return stopping;
    }
    let host = context.gates.host();
    let (max_age_cap, patience) =
        context.live.look(|settings| (settings.local.max_age_cap, settings.local.check_timeout));
    let max_age = question.max_age.unwrap_or_default().min(max_age_cap);
    let alone = context.gates.workload().is_none();
    if alone && runs.is_empty() && question.device.as_ref().is_none_or(|device| device == host.device()) {
        // The case of nearly every cached check: no gate is taken and nothing is copied for it.
        let make = |grant: &Grant| reply::allowed(grant, host.device(), asked);
        if let Some(answer) = cached(max_age, |max_age| host.cached_allow(asked, max_age, make)) {
            return answer;
        }
    }
    let mut devices: Vec<DeviceId> = runs.iter().rev().map(|run| run.opened.device.clone()).collect();
    devices.extend(question.device);
    let deciding = match context.gates.deciding(&devices) {
        Ok(deciding) => deciding,
        Err(error) => return overloaded(&error),
    };
    let about = deciding.device();
    if let Some(verdict) = cached(max_age, |max_age| deciding.cached(asked, max_age)) {
        return reply::verdict(&verdict, about);
    }
    let deadline = asked + question.timeout.map_or(patience, |shorter| shorter.min(patience));
    let verdict = deciding.ask(deadline, AskPurpose::Check).await;
    // The stop may have begun while the question was open.
    runs.iter().find_map(|run| stopping(run)).unwrap_or_else(|| reply::verdict(&verdict, about))
}

fn cached<T>(max_age: Duration, look: impl FnOnce(Duration) -> Option<T>) -> Option<T> {
    if max_age.is_zero() { None } else { look(max_age) }
}

pub(super) fn overloaded(error: &io::Error) -> Response<Bytes> {
    let reason = format!("the daemon cannot accept another check now: {error}");
    reply::brief(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, &reason)
}

/// The deny of an agent whose stop has begun, whatever its gates say by now.
pub(super) fn stop_of(run: &Run) -> Option<Denial> {
    let denial = run.stop()?.denial;
    let reason = denial.reason.unwrap_or_else(|| "this agent is being stopped".to_owned());
    Some(Denial { reason: Some(reason), ..denial })
}

fn stopping(run: &Run) -> Option<Response<Bytes>> {
    stop_of(run).map(|denial| reply::denied(&denial, &run.opened.device))
}

impl CheckQuestion {
    /// Parses a query. An unknown or repeated parameter is an error, not ignored: `?devcie=x` must not be answered for the
    /// host.
    fn parse(query: &str) -> Result<Self, QueryError> {
        let mut question = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let spaced = if value.contains('+') { Cow::Owned(value.replace('+', " ")) } else { Cow::Borrowed(value) };
            let value = percent_decode_str(&spaced).decode_utf8();
            let value = value.map_err(|_| QueryError::NotUtf8(name.to_owned()))?;
            let repeated = match name {
                "device" => question.device.replace(value.parse().map_err(QueryError::Device)?).is_some(),
                "max_age" => question.max_age.replace(duration("max_age", &value)?).is_some(),
                "timeout" => question.timeout.replace(duration("timeout", &value)?).is_some(),
                other => return Err(QueryError::Unknown(other.to_owned())),
            };
            if repeated {
                return Err(QueryError::Repeated(name.to_owned()));
            }
        }
        Ok(question)
    }
}

fn duration(name: &'static str, text: &str) -> Result<Duration, QueryError> {
    span::parse(text).map_err(|source| QueryError::Duration { name, source })
}

/// Fuzz target: a foreign query is refused, or parsed into no more than it contains.
pub(crate) fn fuzz_query(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    match CheckQuestion::parse(query) {
        Ok(question) => {
            let named = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
            assert_eq!(question.device.is_some(), named("device"), "{query}");
            assert_eq!(question.max_age.is_some(), named("max_age"), "{query}");
            assert_eq!(question.timeout.is_some(), named("timeout"), "{query}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_check_may_say() {
        let question = CheckQuestion::parse("device=a%2Fb&max_age=2s&timeout=1s").unwrap();
        assert_eq!(question.device.unwrap().as_str(), "a/b");
        assert_eq!(question.max_age, Some(Duration::from_secs(2)));
        assert_eq!(question.timeout, Some(Duration::from_secs(1)));
        assert_eq!(CheckQuestion::parse("").unwrap(), CheckQuestion::default());
    }

    #[test]
    fn refuses_what_could_be_misread() {
        for query in ["devcie=x", "device=a&device=b", "max_age=2", "timeout=", "device=", "device=%ff", "x"] {
            assert!(CheckQuestion::parse(query).is_err(), "{query}");
        }
    }
}
