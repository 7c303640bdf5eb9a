//! Accepts connections and serves them until told to stop.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::peer::Peer;
use super::places::Places;
use super::socket::Socket;

/// Time for a request's head, and again for its body.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const LARGEST_HEAD: usize = 8 * 1024;
/// What a connection gets for which there is no place. It may be a check's or a wrapper's, and reads as a no to both.
const NO_PLACE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
    x-machineid-code: OVERLOADED\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"event\":\"error\",\"allowed\":false,\"code\":\"OVERLOADED\",\"request_id\":null,\"device_id\":null,\
    \"validated_at\":null,\"age_ms\":null,\"reason\":\"the daemon serves as many connections as it can\"}\n";
/// How long connections may take to end at shutdown.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves until `shutdown`; then open requests get a moment, and streams are closed.
pub(crate) async fn serve(socket: &Socket, router: Router, shutdown: CancellationToken) {
    let places = Places::of_this_process();
    let own_uid = rustix::process::geteuid().as_raw();
    let connections = TaskTracker::new();
    loop {
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
        let privileged = peer.uid() == 0 || peer.uid() == own_uid;
        let Some(place) = places.take(peer.uid(), privileged) else {
            debug!(uid = peer.uid(), "no place left for a connection");
            let _ = stream.try_write(NO_PLACE);
            continue;
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
