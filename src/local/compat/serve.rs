//! The server of `compat.listen`: shares its places among the users of this host, as the socket does.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use machineid_log::Vital;
use machineid_protocol::Code;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::client::TcpClient;
use super::listener::routes;
use crate::local::places::{Places, Seat, Use};
use crate::local::port::Port;
use crate::local::server::NO_PLACE;
use crate::local::wire::{AnswerBody, Patience, REQUEST_TIMEOUT};
use crate::local::{Context, reply};
use crate::telemetry::metrics::Rejected;

/// Connections served at once.
const MOST: usize = 512;
/// How long an answer may stay unread, in milliseconds, before its connection is closed.
const UNREAD: u32 = 30_000;
/// The largest request head, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// Serves until `shutdown`. Without a listener, waits for the port first.
pub(crate) async fn serve(
    port: Arc<Port>,
    listener: Option<TcpListener>,
    context: Arc<Context>,
    shutdown: CancellationToken,
) {
    let _vital = Vital;
    let Some((listener, address)) = port.listening(listener, &shutdown).await else { return };
    let places = Places::of_port(MOST);
    let router = TowerToHyperService::new(routes(Arc::clone(&context), address));
    loop {
        // As on the socket: accepted connections get their turn before the next one is accepted.
        tokio::task::yield_now().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The process is out of descriptors or memory: a connection that ends may release some.
                warn!(%error, port = "compat.listen", "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Without this option answers are only a little later.
        let _ = stream.set_nodelay(true);
        // A client that reads no answers keeps its place no longer.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD);
        let (client, patience) = (TcpClient::of(&stream), Patience::new());
        let uid = client.uid();
        let privileged = uid == 0 || uid == rustix::process::geteuid().as_raw();
        let Some(seat) = places.seat(uid, privileged, &patience) else {
            context.journal.metrics.peer_rejected(Rejected::Overloaded);
            debug!(uid, port = "compat.listen", "connection limit reached; connection refused");
            let _ = stream.try_write(&reply::raw("503 Service Unavailable", &Code::Overloaded, NO_PLACE));
            continue;
        };
        let serving = Serving { router: router.clone(), client, seat, patience };
        let closing = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, serving) => {},
                () = closing.cancelled() => {},
            }
        });
    }
}

/// The state that answers the requests of one connection.
struct Serving {
    router: TowerToHyperService<axum::Router>,
    client: TcpClient,
    seat: Seat,
    patience: Arc<Patience>,
}

async fn connection(stream: TcpStream, serving: Serving) {
    let (patience, displaced) = (Arc::clone(&serving.patience), serving.seat.displaced());
    let service = service_fn(|request| serving.answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut displaced = pin!(displaced.wait());
    let mut leaves = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, port = "compat.listen", "a connection failed");
                }
                return;
            },
            () = displaced.as_mut(), if !leaves => {
                if patience.idle_since().is_some() {
                    return;
                }
                // A request came meanwhile: it is answered, and no other.
                leaves = true;
                connection.as_mut().graceful_shutdown();
            },
        }
    }
}

impl Serving {
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        self.patience.head_came();
        if !self.seat.suits(Use::Other) {
            let mut refusal = reply::brief(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, NO_PLACE);
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Ok(refusal.map(|body| AnswerBody::whole(body, Arc::clone(&self.patience))));
        }
        request.extensions_mut().insert(self.client.clone());
        let Ok(answer) = self.router.call(request).await;
        Ok(answer.map(|body| AnswerBody::stream(body, Arc::clone(&self.patience))))
    }
}
