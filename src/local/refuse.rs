//! The same refusal for every request, from a daemon that cannot decide anything yet.

use std::sync::Arc;
use std::time::Duration;

use machineid_protocol::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::reply;
use super::socket::Socket;

/// The most clients answered at once; others wait in the backlog.
const SLOW: usize = 256;
/// Time limit for a client to send its request and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before the next connection when there are no descriptors for it.
const BACK_OFF: Duration = Duration::from_millis(50);
/// The largest request head that is read to its end.
const LARGEST: usize = 8 * 1024;

/// Answers every request with this code and reason until `shutdown`.
pub(crate) async fn every_question(socket: &Socket, code: &Code, reason: &str, shutdown: &CancellationToken) {
    let answer: Arc<[u8]> = reply::raw("503 Service Unavailable", code, reason).into();
    let places = Arc::new(Semaphore::new(SLOW));
    loop {
        let accepting = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (socket.listener.accept().await, place)
        };
        let Some((stream, place)) = shutdown.run_until_cancelled(accepting).await else { return };
        match stream {
            Ok((stream, _)) => {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(PATIENCE, refuse(stream, &answer)).await;
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Reads the request's head before it answers: if the connection were closed with unread data, it would be reset and the
/// answer lost.
async fn refuse(mut stream: UnixStream, answer: &[u8]) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LARGEST {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // The rest of a body that is still arriving.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
