//! The server of the local socket: accepts connections and serves them until shutdown.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use machineid_log::Vital;
use machineid_protocol::Code;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::closing::Closing;
use super::peer::Peer;
use super::places::{Places, Seat, Use};
use super::socket::Socket;
use super::wire::{AnswerBody, Patience, REQUEST_TIMEOUT, Wire};
use super::{Context, check, reply, routes};
use crate::telemetry::metrics::Rejected;

/// The largest request head, in bytes.
const LARGEST_HEAD: usize = 8 * 1024;
/// The reason sent to a connection that gets no place. The client may be a check or a wrapper; both read it as a deny.
pub(super) const NO_PLACE: &str = "the daemon has reached its limit of connections, of this user or of all; try again";
/// Time limit for connections to end at shutdown.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves until `shutdown`; then open requests get a moment to finish, and streams are closed.
pub(crate) async fn serve(socket: Arc<Socket>, context: Arc<Context>, shutdown: CancellationToken) {
    let _vital = Vital;
    let places = Places::of_this_process();
    let connections = TaskTracker::new();
    let closing = Closing::default();
    let router = TowerToHyperService::new(routes(Arc::clone(&context)));
    let mut renewals = socket.renewals().await;
    // The listener that replaces one whose file was lost. Clients that connected to the old one are still answered.
    let mut renewed: Option<UnixListener> = None;
    loop {
        // Accepted connections get their turn before the next one is accepted: of a crowd that connected while the daemon was
        // down, most have left again, and their places must be free for the rest.
        tokio::task::yield_now().await;
        let stream = tokio::select! {
            accepted = socket.listener.accept() => accepted.map(|(stream, _)| stream),
            accepted = accept_from(renewed.as_ref()) => accepted.map(|(stream, _)| stream),
            Some(listener) = renewals.recv() => {
                match UnixListener::from_std(listener) {
                    Ok(listener) => renewed = Some(listener),
                    Err(error) => warn!(%error, "cannot serve the recreated socket"),
                }
                continue;
            },
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
                debug!(%error, "cannot identify the peer of a connection");
                continue;
            }
        };
        let patience = Patience::new();
        let Some(seat) = places.seat(peer.uid(), peer.is_privileged(), &patience) else {
            turned_away(&context, &peer);
            let _ = stream.try_write(&reply::raw("503 Service Unavailable", &Code::Overloaded, NO_PLACE));
            continue;
        };
        let serving = Serving { context: Arc::clone(&context), router: router.clone(), peer, seat, patience };
        connections.spawn(connection(stream, serving, closing.clone()));
    }
    closing.begin();
    connections.close();
    let _ = tokio::time::timeout(2 * DRAIN, connections.wait()).await;
}

/// Accepts from this listener; without one, never completes.
async fn accept_from(listener: Option<&UnixListener>) -> io::Result<(UnixStream, tokio::net::unix::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Waits after a failure to accept: the process is out of descriptors or memory. The connection stays in the backlog, and one
/// that closes may release some.
async fn back_off(error: &io::Error) {
    warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Counts and logs a client that gets no place.
fn turned_away(context: &Context, peer: &Peer) {
    context.journal.metrics.peer_rejected(Rejected::Overloaded);
    debug!(uid = peer.uid(), "connection limit reached; connection refused");
}

/// The state that answers the requests of one connection.
struct Serving {
    context: Arc<Context>,
    router: TowerToHyperService<axum::Router>,
    peer: Peer,
    seat: Seat,
    patience: Arc<Patience>,
}

async fn connection(stream: UnixStream, serving: Serving, closing: Closing) {
    let (patience, displaced) = (Arc::clone(&serving.patience), serving.seat.displaced());
    let wire = TokioIo::new(Wire::new(stream, Arc::clone(&patience)));
    let service = service_fn(|request| serving.answer(request));
    let connection = http1::Builder::new().max_buf_size(LARGEST_HEAD).serve_connection(wire, service);
    let mut connection = pin!(connection);
    let mut look = pin!(tokio::time::sleep(REQUEST_TIMEOUT));
    let mut closing = pin!(closing.wait());
    let mut displaced = pin!(displaced.wait());
    let mut leaves = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                // A client that disconnects in the middle is normal: every wrapper ends so.
                if let Err(error) = ended && !error.is_incomplete_message() {
                    debug!(%error, "a connection failed");
                }
                return;
            },
            () = look.as_mut() => match patience.left() {
                Some(left) => look.set(tokio::time::sleep(left)),
                None => return,
            },
            () = displaced.as_mut(), if !leaves => {
                if patience.idle_since().is_some() {
                    patience.displace();
                    return;
                }
                // A request came meanwhile: it is answered, and no other.
                leaves = true;
                connection.as_mut().graceful_shutdown();
            },
            () = closing.as_mut() => {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(DRAIN, connection).await;
                return;
            },
        }
    }
}

impl Serving {
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        self.patience.head_came();
        let whole =
            |answer: Response<Bytes>| Ok(answer.map(|body| AnswerBody::whole(body, Arc::clone(&self.patience))));
        let path = request.uri().path();
        let next = if request.method() == Method::POST && path == "/v1/supervise" { Use::Stream } else { Use::Other };
        if !self.seat.suits(next) {
            turned_away(&self.context, &self.peer);
            let mut refusal = reply::brief(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, NO_PLACE);
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return whole(refusal);
        }
        // The check, which comes thousands of times a second, bypasses the router.
        if matches!(*request.method(), Method::GET | Method::HEAD) && path == "/v1/check" {
            return whole(check::check(&self.context, &self.peer, request.uri().query()).await);
        }
        request.extensions_mut().insert(self.peer.clone());
        let Ok(answer) = self.router.call(request).await;
        Ok(answer.map(|body| AnswerBody::stream(body, Arc::clone(&self.patience))))
    }
}
