//! An address whose target moves, and the network behind it.
//!
//! It passes bytes and knows nothing of what they mean: `PostgreSQL` and HTTP go through it alike.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// One thread for all of them.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

/// Does this when a signal comes, in the place of what the signal does by itself.
pub(crate) fn on_signal(signal: i32, then: impl Fn() + Send + 'static) {
    let _in_runtime = RUNTIME.enter();
    let mut signals = signal_hook_tokio::Signals::new([signal]).unwrap();
    RUNTIME.spawn(async move {
        while signals.next().await.is_some() {
            then();
        }
    });
}

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    Passes,
    /// Every connection is reset.
    Reset,
    /// Nothing passes, and nothing is lost.
    Held,
    /// Only what clients send.
    AnswersHeld,
}

#[derive(Clone, Debug)]
struct State {
    target: Target,
    traffic: Traffic,
    /// Connections of an earlier generation are cut.
    generation: u64,
}

/// The running proxy. Ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Proxy {
    pub(crate) fn start(target: Target) -> Self {
        let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(State { target, traffic: Traffic::Passes, generation: 0 });
        RUNTIME.spawn(accept(listener, seen));
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, traffic: Traffic) {
        self.state.send_modify(|state| state.traffic = traffic);
    }

    /// Leads new connections elsewhere from now on. Those that there are stay where they are.
    pub(crate) fn lead_new_to(&self, target: Target) {
        self.state.send_modify(|state| state.target = target);
    }

    /// Leads elsewhere from now on, and cuts what is connected, as an address that moves between hosts does.
    pub(crate) fn lead_to(&self, target: Target) {
        self.state.send_modify(|state| {
            state.target = target;
            state.generation += 1;
        });
    }
}

async fn accept(listener: TcpListener, mut seen: watch::Receiver<State>) {
    loop {
        let client = tokio::select! {
            client = listener.accept() => client,
            // The proxy has been dropped.
            () = ended(&mut seen) => return,
        };
        if let Ok((client, _)) = client {
            let _ = client.set_nodelay(true);
            tokio::spawn(serve(client, seen.clone()));
        }
    }
}

async fn ended(seen: &mut watch::Receiver<State>) {
    while seen.changed().await.is_ok() {}
}

/// One connection, until either side ends it or the network does.
async fn serve(client: TcpStream, mut seen: watch::Receiver<State>) {
    let generation = seen.borrow().generation;
    let cut = seen.clone();
    let connected = async {
        let at_first = seen.wait_for(|state| matches!(state.traffic, Traffic::Passes | Traffic::AnswersHeld)).await;
        let target = at_first.map_err(io::Error::other)?.target.clone();
        let server: Box<dyn Stream> = match target {
            Target::Tcp(address) => {
                let server = TcpStream::connect(address).await?;
                server.set_nodelay(true)?;
                Box::new(server)
            }
            Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        Ok::<_, io::Error>(server)
    };
    let is_cut = is_cut(cut, generation);
    tokio::pin!(is_cut);
    let server = tokio::select! {
        () = &mut is_cut => return reset(client),
        server = connected => server,
    };
    let Ok(server) = server else { return reset(client) };
    let broken = {
        let mut client = client;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = split(server);
        let broken = tokio::select! {
            () = &mut is_cut => true,
            _ = pump(from_client, to_server, seen.clone(), &[Traffic::Passes, Traffic::AnswersHeld]) => false,
            _ = pump(from_server, to_client, seen, &[Traffic::Passes]) => false,
        };
        broken.then_some(client)
    };
    if let Some(client) = broken {
        reset(client);
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn is_cut(mut seen: watch::Receiver<State>, generation: u64) {
    let _ = seen.wait_for(|state| state.traffic == Traffic::Reset || state.generation != generation).await;
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut seen: watch::Receiver<State>,
    passes: &[Traffic],
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        seen.wait_for(|state| passes.contains(&state.traffic)).await.map_err(io::Error::other)?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

/// Closes with RST, as a host does that knows nothing of the connection.
fn reset(client: TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO));
    drop(client);
}
