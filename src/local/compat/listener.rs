//! `compat.listen`: a loopback port that serves the two endpoints of the authority's API to agents, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use machineid_protocol::api::path;

use super::client::TcpClient;
use super::{Endpoint, answer, by_token};
use crate::local::Context;

/// The routes of the port; `address` is the port's own.
pub(super) fn routes(context: Arc<Context>, address: SocketAddr) -> Router {
    let nowhere = |status, reason: &'static str| move || async move { answer::elsewhere(status, reason) };
    let unknown = "This listener serves devices/register and devices/validate only; use the machineid command for the \
                   rest.";
    Router::new()
        .route(path::REGISTER, post(register))
        .route(path::VALIDATE, post(validate))
        .fallback(nowhere(StatusCode::NOT_FOUND, unknown))
        .method_not_allowed_fallback(nowhere(StatusCode::METHOD_NOT_ALLOWED, "This path accepts only POST."))
        .with_state(context)
        .layer(middleware::from_fn(move |request: Request, next: Next| own_host(address, request, next)))
}

async fn register(
    State(context): State<Arc<Context>>,
    Extension(client): Extension<TcpClient>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    by_token(&context, &client, Endpoint::Register, &headers, body).await
}

async fn validate(
    State(context): State<Arc<Context>>,
    Extension(client): Extension<TcpClient>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    by_token(&context, &client, Endpoint::Validate, &headers, body).await
}

/// Refuses requests with another `Host`: a web page in a browser on this host can make a host name of its own resolve to this
/// address.
async fn own_host(address: SocketAddr, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    if host.is_some_and(|host| is_ours(address, host)) {
        next.run(request).await
    } else {
        answer::elsewhere(StatusCode::MISDIRECTED_REQUEST, "The request's Host is not this listener's address.")
    }
}

fn is_ours(address: SocketAddr, host: &str) -> bool {
    host == address.to_string() || host.eq_ignore_ascii_case(&format!("localhost:{}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listeners_own_names_are_its_own() {
        let address: SocketAddr = "127.0.0.1:8425".parse().unwrap();
        assert!(is_ours(address, "127.0.0.1:8425") && is_ours(address, "LocalHost:8425"));
        for host in ["127.0.0.1", "127.0.0.1:84250", "evil.example:8425", "127.0.0.1:8425.evil.example", ""] {
            assert!(!is_ours(address, host), "{host}");
        }
        assert!(is_ours("[::1]:8425".parse().unwrap(), "[::1]:8425"));
    }
}
