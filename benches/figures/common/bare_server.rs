//! The baseline for checks and validations: hyper on a socket, answering a constant and nothing else. A process of its own, as the
//! daemon is one: this very program, started with a flag.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::process::Guarded;
use super::{Outcome, until};

/// The first argument of the process that serves; the socket, or `tcp` and the file that is to say which port, and the length
/// of the body follow.
pub(crate) const FLAG: &str = "--bare-server";

/// In the place of the socket's path: a port of loopback.
const TCP: &str = "tcp:";

pub(crate) struct BareServer {
    process: Guarded,
    directory: TempDir,
}

impl BareServer {
    /// Answers with a body of this many bytes.
    pub(crate) fn start(length: usize) -> Outcome<Self> {
        let directory = TempDir::new()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(FLAG).arg(directory.path().join("bare.sock")).arg(length.to_string()).stdin(Stdio::piped());
        let server = Self { process: Guarded::start(&mut command)?, directory };
        until("the bare server listens", || server.socket().exists().then_some(()))?;
        Ok(server)
    }

    /// The same on loopback, whose address is the second.
    pub(crate) fn start_on_loopback(length: usize) -> Outcome<(Self, SocketAddr)> {
        let directory = TempDir::new()?;
        let file = directory.path().join("port");
        let mut command = Command::new(std::env::current_exe()?);
        let place = format!("{TCP}{}", file.display());
        command.arg(FLAG).arg(place).arg(length.to_string()).stdin(Stdio::piped());
        let server = Self { process: Guarded::start(&mut command)?, directory };
        let address = until("the bare server listens", || std::fs::read_to_string(&file).ok()?.parse().ok())?;
        Ok((server, address))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("bare.sock")
    }
}

/// The serving process. Ends when its parent does.
pub(crate) fn serve(arguments: &[String]) -> Outcome<()> {
    let [socket, length] = arguments else { return Err("a socket and a length are wanted".into()) };
    let body = Bytes::from(vec![b'x'; length.parse()?]);
    // As a server has them; the daemon does with one.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    match socket.strip_prefix(TCP) {
        Some(file) => runtime.spawn(accept_on_loopback(PathBuf::from(file), body)),
        None => runtime.spawn(accept(PathBuf::from(socket), body)),
    };
    // Held open by the benchmark for as long as it lives.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    runtime.shutdown_background();
    Ok(())
}

async fn accept(socket: PathBuf, body: Bytes) {
    let Ok(listener) = listen(&socket) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, body.clone()));
    }
}

async fn accept_on_loopback(file: PathBuf, body: Bytes) {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0").await else { return };
    let Ok(address) = listener.local_addr() else { return };
    let unready = file.with_extension("unready");
    if std::fs::write(&unready, address.to_string()).and_then(|()| std::fs::rename(unready, file)).is_err() {
        return;
    }
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(answer(stream, body.clone()));
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, body: Bytes) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let body = body.clone();
        async move {
            // What was sent is read, as every server that answers must do.
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    // Renamed into place, so that a client that sees the socket can connect.
    let unready = socket.with_extension("unready");
    let listener = UnixListener::bind(&unready)?;
    std::fs::rename(unready, socket)?;
    Ok(listener)
}
