//! A running authority: its listener, its admin socket, its database, and how they end.
//!
//! Ending has an order: no new connections; those under way finish their request, for [`DRAIN`] at most; what is
//! pending is written; the database is closed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::admin::{BindError, Door};
use super::reports::Intake;
use super::routes::{App, Peer, router};
use super::seen::Seen;
use super::store::{OpenError, Store};
use super::watch::Hints;

/// How long the next request head may take, the wait on an idle connection included.
const HEAD: Duration = Duration::from_mins(1);

/// The largest request head, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// How long what was sent may go unacknowledged, in milliseconds, before its connection is given up.
const UNHEARD: u32 = 30_000;

/// How long requests under way have at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) listen: SocketAddr,
    pub(super) database: PathBuf,
    pub(super) admin_socket: PathBuf,
    /// Whether anyone may create an organisation.
    pub(super) signup: bool,
    /// Where browsers reach it; `None` for the address it listens on.
    pub(super) public_url: Option<String>,
}

/// Why an authority could not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Admin(#[from] BindError),
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error("cannot listen on {address}: {source}\nIs another program using that port? --listen names another one.")]
    Listen { address: SocketAddr, source: io::Error },
}

/// An authority that accepts requests.
#[derive(Debug)]
pub(super) struct Running {
    address: SocketAddr,
    store: Store,
    seen: Arc<Seen>,
    hints: Arc<Hints>,
    stop: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Starts one inside the current runtime; when this returns, it accepts requests.
    pub(super) async fn start(options: Options) -> Result<Self, StartError> {
        // First of all: a second server must be refused before it migrates the database under the first.
        let door = Door::open(&options.admin_socket)?;
        let store = Store::open(&options.database).await?;
        let unlistenable = |source| StartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(unlistenable)?;
        let address = listener.local_addr().map_err(unlistenable)?;

        let seen = Arc::new(Seen::default());
        let hints = Arc::<Hints>::default();
        let reports = Arc::<Intake>::default();
        let public_url = options.public_url.unwrap_or_else(|| format!("http://{address}"));
        let app = App {
            store: store.clone(),
            seen: Arc::clone(&seen),
            hints: Arc::clone(&hints),
            reports: Arc::clone(&reports),
            signup: options.signup,
            public_url,
        };
        let running = Self {
            address,
            store,
            seen,
            hints: Arc::clone(&hints),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        running.tasks.spawn(door.serve(running.store.clone(), running.stop.clone()));
        let work = reports.work(running.store.clone(), Arc::clone(&hints), running.stop.clone());
        running.tasks.spawn(work);
        let news = running.store.changes().listen();
        running.tasks.spawn(running.stop.clone().run_until_cancelled_owned(hints.follow(news)));
        let service = TowerToHyperService::new(router(Arc::new(app)));
        let (tasks, stop, abort) = (running.tasks.clone(), running.stop.clone(), running.abort.clone());
        running.tasks.spawn(accept(listener, service, tasks, stop, abort));
        let (seen, store, stop) = (Arc::clone(&running.seen), running.store.clone(), running.stop.clone());
        running.tasks.spawn(async move { seen.keep_writing(&store, stop).await });
        Ok(running)
    }

    /// The address it listens on.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its database.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Ends it in order.
    pub(super) async fn end(self) {
        self.stop.cancel();
        // They would wait for changes until they are cut off.
        self.hints.close();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            warn!("some requests took too long to finish and are cut off");
            self.abort.cancel();
            self.tasks.wait().await;
        }
        self.seen.flush(&self.store).await;
        self.store.close().await;
        info!("the authority has ended");
    }
}

async fn accept(
    listener: TcpListener,
    service: TowerToHyperService<axum::Router>,
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                drop(tasks.spawn(connection(stream, peer, service.clone(), stop.clone(), abort.clone())));
            }
            Err(error) => {
                // Out of descriptors, most likely: connections that end will give some back.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    service: TowerToHyperService<axum::Router>,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    // A watcher that was unplugged would hold its place until the kernel gives up, a quarter of an hour later.
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNHEARD) {
        debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = abort.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection broke");
    }
}
