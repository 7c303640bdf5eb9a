//! Refuses requests that carry the name of a foreign site, on ports of loopback: see [`machineid_protocol::host_name`].

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use machineid_protocol::host_name::{belongs_to_no_site, without_port};

/// The same router for requests to an address or `localhost` alone.
pub(super) fn refusing(router: Router) -> Router {
    router.layer(middleware::from_fn(unless_foreign))
}

async fn unless_foreign(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    match host {
        Some(host) if !belongs_to_no_site(&without_port(host)) => {
            let problem =
                "this port answers requests to its address or localhost; let a proxy send such a Host header\n";
            (StatusCode::MISDIRECTED_REQUEST, problem).into_response()
        }
        Some(_) | None => next.run(request).await,
    }
}
