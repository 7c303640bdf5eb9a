//! A TCP port that serves a few paths to every client that can reach it, with a limit of connections; closed with the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use machineid_log::Vital;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::wire::REQUEST_TIMEOUT;

/// How long an answer may stay unread, in milliseconds, before its connection is closed.
const UNREAD: u32 = 30_000;
/// The largest request head, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// Opens the port. Fails when it is not available.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves until `shutdown`, at most `most` connections at once. Clients on TCP cannot be told apart, so they share one limit.
/// `what` names the port in the log.
pub(crate) async fn serve(
    what: &'static str,
    listener: TcpListener,
    router: Router,
    most: usize,
    shutdown: CancellationToken,
) {
    let _vital = Vital;
    let places = Arc::new(Semaphore::new(most));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The process is out of descriptors or memory: a connection that ends may release some.
                warn!(%error, port = what, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A client that reads no answers keeps its place no longer.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD);
        // Without this option answers are only a little later.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let closing = shutdown.clone();
        tokio::spawn(async move {
            let _place = place;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .max_buf_size(LARGEST_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        debug!(%error, port = what, "a connection failed");
                    }
                },
                () = closing.cancelled() => {},
            }
        });
    }
}
