//! A running authority: the listeners, the admin socket, the database, and the order in which they end.
//!
//! At the end: no new connections are accepted; requests under way finish, within [`DRAIN`]; pending times and reports
//! are written; the database is closed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::header;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use machineid_clock::BootTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::admin::{Desk, Door};
use super::ageing::keep_ageing;
use super::app::App;
use super::connections::{ConnectionBounds, ConnectionPlace, Connections, Origin, ProcessDescriptors};
use super::console::session::Console;
use super::database::Database;
use super::examination::{first_look, keep_looking};
use super::forwarded::{ClientAddress, Trusted};
use super::health::{Concern, Health};
use super::host_names::HostNames;
use super::intake::Intake;
use super::limits::{Limits, Rates};
use super::listen::{Accepted, HandedSocket, ListenAddress, ListenError, Listener, bind_all, bind_port};
use super::metrics::Metrics;
use super::proofs::Proofs;
use super::repeated::rarely;
use super::retention::{Retention, keep_tidy};
use super::routes::{Peer, observed as observed_router};
use super::seen::SeenDevices;
use super::socket_file::{BindError, LOOK};
use super::store::{Demand, OpenError, Reserves, Store, Terms};
use super::surface::router;
use super::threads::{Lane, Threads};
use super::tls::{self, Tls, TlsError};
use super::watch::{Hints, tell_of_ends};

/// How long a later request head on a connection may take, including the idle time before it.
const HEAD: Duration = Duration::from_mins(1);

/// How long a connection that has presented no valid key may be silent: an honest client sends its request at once; one
/// that does not may be occupying connections on purpose.
const FIRST_HEAD: Duration = Duration::from_secs(10);

/// The largest request head, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// How long sent data may stay unacknowledged, in milliseconds, before its connection is closed.
const UNHEARD: u32 = 30_000;

/// Connections to the listener for metrics at a time.
const OBSERVERS: usize = 16;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long requests under way may take at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// The options of a server.
#[derive(Clone, Debug)]
pub(super) struct ServerOptions {
    /// The addresses to listen on, beside the sockets that are handed over.
    pub(super) listen: Vec<ListenAddress>,
    pub(super) database: Database,
    /// How the server uses the database, if that is `PostgreSQL`.
    pub(super) terms: Terms,
    /// What is reserved for stops.
    pub(super) reserves: Reserves,
    pub(super) admin_socket: PathBuf,
    /// Whether clients may create organisations over the API.
    pub(super) sign_up: bool,
    /// The URL for browsers; `None` for the listening address.
    pub(super) public_url: Option<String>,
    /// The address for metrics; `None` for no metrics.
    pub(super) metrics: Option<SocketAddr>,
    /// The files for HTTPS; `None` for HTTP.
    pub(super) tls: Option<tls::Files>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub(super) trusted: Trusted,
    /// More names under which browsers may reach the console.
    pub(super) allowed_hosts: Vec<String>,
    pub(super) rates: Rates,
    /// Whether the server serves only while a standby has every answered change.
    pub(super) demand: Demand,
    /// Whether the access log includes validations.
    pub(super) log_validations: bool,
    /// How long an ephemeral device may be unseen before it is removed; `None` for never.
    pub(super) ephemeral_after: Option<Duration>,
    pub(super) retention: Retention,
    /// How many connections to serve at most; `None` for as many as the process can.
    pub(super) connections: Option<usize>,
}

/// Why an authority could not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Admin(#[from] BindError),
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// An authority that accepts requests.
#[derive(Debug)]
pub(super) struct Running {
    addresses: Vec<ListenAddress>,
    /// The address for metrics.
    metrics: Option<ListenAddress>,
    tls: Option<Arc<Tls>>,
    store: Store,
    seen: Arc<SeenDevices>,
    proofs: Arc<Proofs>,
    hints: Arc<Hints>,
    stop: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

/// What a running server does by itself.
struct Upkeep {
    demand: Demand,
    retention: Retention,
    ephemeral_after: Option<Duration>,
}

/// The places for connections of clients: as many as are wanted, and as the process can have.
fn places(of_database: usize, wanted: Option<usize>) -> Arc<Connections> {
    let served = ProcessDescriptors::of_this_process(of_database).connections(wanted);
    if wanted.is_some_and(|wanted| wanted > served) {
        warn!(served, "the limit of open files is too low for --connections; raise LimitNOFILE of the unit");
    }
    Arc::new(Connections::new(ConnectionBounds::new(served)))
}

/// Looks at the database for the first time. Fails, with the store closed, when it is not as durable as is demanded.
async fn look_first(health: &Health, store: &Store, demand: Demand) -> Result<(), StartError> {
    first_look(health, store, demand).await;
    if demand != Demand::Synchronous || health.is_ready() {
        return Ok(());
    }
    let about_standbys = health.problems().into_iter().find(|found| found.concern == Concern::Durability);
    store.close().await;
    let problem = about_standbys.map_or_else(|| "the database is not ready".to_owned(), |found| found.problem);
    Err(OpenError::Asynchronous { problem }.into())
}

/// Where browsers reach a server that was told nothing about it.
fn own_url(encrypted: bool, addresses: &[ListenAddress]) -> String {
    let scheme = if encrypted { "https" } else { "http" };
    let port = addresses.iter().find_map(|address| match address {
        ListenAddress::Tcp(address) => Some(address.to_string()),
        ListenAddress::Unix(_) => None,
    });
    // Browsers reach a unix socket only through a proxy, whose address --public-url tells.
    format!("{scheme}://{}", port.as_deref().unwrap_or("localhost"))
}

impl Running {
    /// Starts an authority inside the current runtime; when this returns, it accepts requests.
    pub(super) async fn start(options: ServerOptions, handed: Vec<HandedSocket>) -> Result<Self, StartError> {
        // First of all: a second server must be refused before it migrates the database of the first.
        let threads = Threads::start().map_err(StartError::Threads)?;
        let ServerOptions { demand, retention, ephemeral_after, .. } = options;
        let upkeep = Upkeep { demand, retention, ephemeral_after };
        let door = {
            // The socket belongs to the runtime in which it is served.
            let _stops = threads.stops().map(Handle::enter);
            Door::open(&options.admin_socket)?
        };
        let tls = options.tls.map(Tls::load).transpose()?.map(Arc::new);
        // Before the database: a dropped store is released with a delay, so a caller that retries with another port
        // (`--dev`) would find its own database still locked.
        let listeners = bind_all(&options.listen, handed).await?;
        let addresses: Vec<_> = listeners.iter().map(|bound| bound.address.clone()).collect();
        let observed = match options.metrics {
            Some(address) => Some(bind_port(address).await?),
            None => None,
        };
        if matches!((&options.database, options.demand), (Database::Sqlite(_), Demand::Synchronous)) {
            return Err(OpenError::NoStandbys.into());
        }
        let store = Store::open(&options.database, options.terms, options.reserves).await?;
        let connections = places(options.terms.connections, options.connections);
        let health = Arc::<Health>::default();
        look_first(&health, &store, options.demand).await?;

        let seen = Arc::new(SeenDevices::new(machineid_clock::wall_now()));
        let proofs = Arc::<Proofs>::default();
        let hints = Arc::<Hints>::default();
        let reports = Arc::<Intake>::default();
        let public_url = options.public_url.unwrap_or_else(|| own_url(tls.is_some(), &addresses));
        let console = Arc::new(Console::new(&public_url));
        let metrics_on_loopback = observed.as_ref().is_some_and(|bound| !bound.address.is_beyond_loopback());
        let host_names = HostNames::new(&public_url, &options.allowed_hosts, metrics_on_loopback);
        let desk = Desk {
            store: store.clone(),
            public_url: public_url.clone(),
            console: Arc::clone(&console),
            health: Arc::clone(&health),
        };
        let app = App {
            store: store.clone(),
            seen: Arc::clone(&seen),
            proofs: Arc::clone(&proofs),
            hints: Arc::clone(&hints),
            reports: Arc::clone(&reports),
            sign_up: options.sign_up,
            public_url,
            console,
            limits: Limits::new(&options.rates),
            threads: threads.clone(),
            large: Arc::default(),
            trusted: options.trusted,
            host_names,
            metrics: Arc::new(Metrics::new()),
            connections: Arc::clone(&connections),
            health: Arc::clone(&health),
            log_validations: options.log_validations,
        };
        let app = Arc::new(app);
        let running = Self {
            addresses,
            metrics: observed.as_ref().map(|bound| bound.address.clone()),
            tls: tls.clone(),
            store,
            seen,
            proofs,
            hints: Arc::clone(&hints),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let desk = running.tasks.track_future(door.serve(desk, running.stop.clone()));
        drop(threads.spawn(Lane::Stop, desk));
        let work = reports.work(running.store.clone(), running.stop.clone());
        running.tasks.spawn(work);
        running.keep_watching(&upkeep, health, hints);
        let server = |router, tls, connections| Server {
            service: TowerToHyperService::new(router),
            tls,
            head: HEAD,
            metrics: Arc::clone(&app.metrics),
            connections,
            trusted: app.trusted.clone(),
            tasks: running.tasks.clone(),
            stop: running.stop.clone(),
            abort: running.abort.clone(),
        };
        let api = server(router(Arc::clone(&app)), tls, connections);
        for bound in listeners {
            running.tasks.spawn(api.clone().accept(bound.listener));
        }
        if let Some(bound) = observed {
            // Scrapers are few. Others must not take the descriptors of the API through a listener that asks for no key.
            let observers = Arc::new(Connections::new(ConnectionBounds::of_strangers(OBSERVERS)));
            let few = Server { head: FIRST_HEAD, ..server(observed_router(Arc::clone(&app)), None, observers) };
            running.tasks.spawn(few.accept(bound.listener));
        }
        running.keep_writing();
        Ok(running)
    }

    /// Starts to write what validations leave behind.
    fn keep_writing(&self) {
        let (seen, store, stop) = (Arc::clone(&self.seen), self.store.clone(), self.stop.clone());
        self.tasks.spawn(async move { seen.keep_writing(&store, stop).await });
        let (proofs, store, stop) = (Arc::clone(&self.proofs), self.store.clone(), self.stop.clone());
        self.tasks.spawn(async move { proofs.keep_writing(&store, stop).await });
    }

    /// Watches what is known to be wrong, deletes what is old, and tells watchers of changes.
    fn keep_watching(&self, upkeep: &Upkeep, health: Arc<Health>, hints: Arc<Hints>) {
        let looking = keep_looking(health, self.store.clone(), upkeep.demand, self.stop.clone());
        self.tasks.spawn(looking);
        self.tasks.spawn(keep_tidy(self.store.clone(), upkeep.retention, self.stop.clone()));
        let news = self.store.changes().listen();
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(Arc::clone(&hints).follow(news)));
        if let Some(after) = upkeep.ephemeral_after {
            self.tasks.spawn(keep_ageing(self.store.clone(), Arc::clone(&self.seen), after, self.stop.clone()));
        }
        self.tasks.spawn(tell_of_ends(hints, self.store.clone(), self.stop.clone()));
    }

    /// The addresses that the server listens on.
    pub(super) fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// The address for metrics.
    pub(super) fn metrics(&self) -> Option<&ListenAddress> {
        self.metrics.as_ref()
    }

    /// Reloads the certificate and its key, if HTTPS is on.
    pub(super) fn reload(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None => info!("nothing to reload: no certificate is in use"),
            Some(Ok(())) => info!("the certificate and its key were reloaded"),
            Some(Err(error)) => error!(%error, "cannot reload the certificate; the current one stays in use"),
        }
    }

    /// The store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Ends the server in order.
    pub(super) async fn end(self) {
        self.stop.cancel();
        // Watchers would otherwise wait for changes until they are cut off.
        self.hints.close();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            warn!("some requests took too long to finish and are cut off");
            self.abort.cancel();
            self.tasks.wait().await;
        }
        self.seen.flush(&self.store).await;
        self.proofs.flush(&self.store).await;
        self.store.close().await;
        info!("the authority has ended");
    }
}

/// The service behind a listener.
#[derive(Clone)]
struct Server {
    service: TowerToHyperService<axum::Router>,
    tls: Option<Arc<Tls>>,
    /// How long a later request head may take, including the idle time before it.
    head: Duration,
    metrics: Arc<Metrics>,
    connections: Arc<Connections>,
    trusted: Trusted,
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Server {
    async fn accept(self, mut listener: Listener) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
                _ = looks.tick() => {
                    listener.keep().await;
                    continue;
                },
            };
            match accepted {
                Ok(accepted) => {
                    let peer = accepted.peer();
                    let origin = if self.trusted.contains(peer) { Origin::Proxy } else { Origin::of(peer) };
                    let Some(place) = self.connections.admit(origin, BootTime::now()) else {
                        rarely!(warn, %peer, "too many connections; a new one was closed");
                        continue;
                    };
                    let server = self.clone();
                    drop(self.tasks.spawn(async move {
                        server.metrics.connections.inc();
                        let talk = async {
                            match accepted {
                                Accepted::Tcp(stream, address) => server.connection(stream, address, &place).await,
                                // Not encrypted: nothing on a unix socket leaves this host.
                                Accepted::Unix(stream, peer) => server.speak(stream, peer, &place).await,
                            }
                        };
                        tokio::select! {
                            () = talk => {}
                            () = place.is_taken() => debug!(%peer, "a connection was closed for another"),
                        }
                        server.metrics.connections.dec();
                    }));
                }
                Err(error) => {
                    // Most likely out of file descriptors; connections that end will free some.
                    rarely!(warn, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, place: &ConnectionPlace) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        // Otherwise a watcher whose cable was unplugged would keep its place until the kernel gives up, 15 minutes
        // later.
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNHEARD) {
            debug!(%error, "cannot set TCP_USER_TIMEOUT");
        }
        let peer = ClientAddress::Host(peer.ip());
        let Some(tls) = &self.tls else { return self.speak(stream, peer, place).await };
        let handshake = tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream));
        match self.stop.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.speak(stream, peer, place).await,
            Some(Ok(Err(error))) => debug!(%error, %peer, "TLS handshake failed"),
            Some(Err(_)) => debug!(%peer, "TLS handshake timed out"),
            None => {}
        }
    }

    async fn speak(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: ClientAddress, place: &ConnectionPlace) {
        let ticket = &place.ticket();
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            ticket.asks(request.extensions_mut());
            let answer = self.service.call(request);
            async move {
                let answer = answer.await;
                let kind = answer.as_ref().ok().and_then(|answer| answer.headers().get(header::CONTENT_TYPE));
                ticket.is_answered(kind.is_some_and(|kind| kind == "text/event-stream"));
                answer
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = place.is_silent(FIRST_HEAD) => return debug!(%peer, "a connection without a key was silent"),
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.abort.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, %peer, "a connection broke");
        }
    }
}
