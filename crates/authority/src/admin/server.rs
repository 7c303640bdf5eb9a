//! The server of the admin socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use machineid_clock::wall_now;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::desk::answer;
use super::{AdminCall, Desk};
use crate::audit::{Actor, Call};
use crate::repeated::rarely;
use crate::socket_file::{BindError, LOOK, SocketFile, SocketKind};

/// The largest request, in bytes.
const LARGEST: u64 = 16 * 1024;

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// The admin socket of this server.
#[derive(Debug)]
pub(crate) struct Door(SocketFile);

impl Door {
    /// Opens the socket. Needs a runtime.
    pub(crate) fn open(path: &Path) -> Result<Self, BindError> {
        SocketFile::open(SocketKind::Admin, path).map(Self)
    }

    /// Serves until `stop`, then removes the socket.
    pub(crate) async fn serve(self, desk: Desk, stop: CancellationToken) {
        let Self(mut file) = self;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = file.accept() => accepted,
                _ = looks.tick() => {
                    file.keep().await;
                    continue;
                },
            };
            match accepted {
                Ok(stream) => {
                    let desk = desk.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &desk).await {
                            rarely!(warn, %error, "an admin request failed");
                        }
                    });
                }
                Err(error) => {
                    rarely!(warn, %error, "cannot accept an admin connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
        rarely!(warn, uid = peer.uid(), "refused an admin connection from another user");
        return Ok(());
    }
    let (read, mut write) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(LARGEST));
    tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let AdminCall { request, reason } = serde_json::from_slice(&line)?;
    let request_id = Uuid::new_v4().hyphenated().to_string();
    info!(uid = peer.uid(), pid = peer.pid(), request_id, ?request, "admin request");
    let call = Call { at: wall_now(), request_id, actor: Actor::Uid(peer.uid()), reason };
    let reply = answer(desk, request, &call).await;
    let mut bytes = serde_json::to_vec(&reply)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    write.shutdown().await
}
