//! The baseline for checks: hyper on a unix socket, answering a constant and nothing else. A process of its own, as the
//! daemon is one, with as many threads: this very program, started with a flag.

use std::convert::Infallible;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::process::Guarded;
use super::{Outcome, until};

/// The first argument of the process that serves; the socket and the length of the body follow.
pub(crate) const FLAG: &str = "--bare-server";

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

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("bare.sock")
    }
}

/// The serving process. Ends when whoever started it does.
pub(crate) fn serve(arguments: &[String]) -> Outcome<()> {
    let [socket, length] = arguments else { return Err("a socket and a length are wanted".into()) };
    let body = Bytes::from(vec![b'x'; length.parse()?]);
    // As many as the daemon takes.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.spawn(accept(PathBuf::from(socket), body));
    // Held open by the benchmark for as long as it lives.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    runtime.shutdown_background();
    Ok(())
}

async fn accept(socket: PathBuf, body: Bytes) {
    let Ok(listener) = listen(&socket) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let body = body.clone();
        tokio::spawn(async move {
            let service = service_fn(|_: Request<hyper::body::Incoming>| {
                let response = Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    // Renamed into place, so that whoever sees the socket can connect.
    let unready = socket.with_extension("unready");
    let listener = UnixListener::bind(&unready)?;
    std::fs::rename(unready, socket)?;
    Ok(listener)
}
