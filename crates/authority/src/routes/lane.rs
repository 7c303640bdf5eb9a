//! On which threads a request runs, by its method and path. Pure. It says nothing about what a key may do: a request on the
//! wrong threads is only slower or faster.

use axum::http::Method;
use machineid_protocol::api::path;

use crate::threads::Lane;

/// The threads of a request.
pub(super) fn lane(method: &Method, path: &str) -> Lane {
    let reads = *method == Method::GET || *method == Method::HEAD;
    if let Some(page) = path.strip_prefix("/console/org/") {
        return of_console(reads, page.split_once('/').map_or("", |(_, page)| page));
    }
    match path {
        path::REVOKE | path::REVOKE_BATCH | path::KEY_REVOKE | path::DISABLE => Lane::Stop,
        // Streams are short to begin, and the rest is read by every host.
        path::WATCH | path::EVENTS | "/healthz" | "/readyz" => Lane::Serve,
        _ if reads && (path.starts_with("/api/") || path.starts_with("/console")) => Lane::Read,
        _ => Lane::Serve,
    }
}

/// The same for a page of an organisation's console.
fn of_console(reads: bool, page: &str) -> Lane {
    match page {
        // The page with the button, and the button.
        "stop" => Lane::Stop,
        // Revokes selected devices; switches execution off; revokes a key.
        "devices" | "settings/execution" if !reads => Lane::Stop,
        _ if !reads && page.starts_with("keys/") && page.ends_with("/revoke") => Lane::Stop,
        "events" => Lane::Serve,
        _ if reads => Lane::Read,
        _ => Lane::Serve,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_agents_runs_apart_from_what_is_read() {
        let of = |method: Method, path: &str| lane(&method, path);
        for path in [
            path::REVOKE,
            path::REVOKE_BATCH,
            path::KEY_REVOKE,
            path::DISABLE,
            "/console/org/x/stop",
            "/console/org/x/devices",
            "/console/org/x/settings/execution",
            "/console/org/x/keys/0123456789ab/revoke",
        ] {
            assert_eq!(of(Method::POST, path), Lane::Stop, "{path}");
        }
        assert_eq!(of(Method::GET, "/console/org/x/stop"), Lane::Stop, "a stop needs the page");
        for path in [path::LIST, path::FLEET, path::AUDIT, path::USAGE, path::TIMELINE, path::STOPS] {
            assert_eq!(of(Method::GET, path), Lane::Read, "{path}");
        }
        for path in ["/console/org/x", "/console/org/x/stop/17", "/console/org/x/audit.jsonl", "/console/orgs"] {
            assert_eq!(of(Method::GET, path), Lane::Read, "{path}");
        }
        for path in [path::VALIDATE, path::REGISTER, path::REPORT, path::UNREVOKE] {
            assert_eq!(of(Method::POST, path), Lane::Serve, "{path}");
        }
        assert_eq!(of(Method::GET, path::WATCH), Lane::Serve);
        assert_eq!(of(Method::GET, "/elsewhere"), Lane::Serve);
    }
}
