//! Accepts connections and serves them until told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::peer::Peer;
use super::socket::Socket;

/// Time for a request's head, and again for its body.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const LARGEST_HEAD: usize = 8 * 1024;
/// Connections served at once; more wait in the kernel's backlog.
const MOST_CONNECTIONS: usize = 4096 + 1024;
/// How long connections may take to end at shutdown.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves until `shutdown`; then open requests get a moment, and streams are closed.
pub(crate) async fn serve(socket: &Socket, router: Router, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shutdown.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = socket.listener.accept() => accepted.map(|(stream, _)| stream),
            () = shutdown.cancelled() => break,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                back_off(&error).await;
                continue;
            }
        };
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                debug!(%error, "a connection without a peer");
                continue;
            }
        };
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        });
        let closing = shutdown.clone();
        connections.spawn(async move {
            let _place = place;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .max_buf_size(LARGEST_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => {
                    // A client that leaves in the middle is everyday: every wrapper ends so.
                    if let Err(error) = ended && !error.is_incomplete_message() {
                        debug!(%error, "a connection ended badly");
                    }
                },
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(DRAIN, connection).await;
                },
            }
        });
    }
    connections.close();
    let _ = tokio::time::timeout(2 * DRAIN, connections.wait()).await;
}

/// Out of descriptors or memory: the connection stays in the backlog, and a closed one may make room.
async fn back_off(error: &io::Error) {
    warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
