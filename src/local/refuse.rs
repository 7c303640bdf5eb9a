//! One answer, a no, for whatever is asked: a daemon that cannot decide anything yet.

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

/// How many clients may be slow at once; others wait in the backlog.
const SLOW: usize = 256;
/// Time for a question to be sent, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time before another connection is accepted when there are no descriptors for it.
const BACK_OFF: Duration = Duration::from_millis(50);
/// The largest question that is read to its end.
const LARGEST: usize = 8 * 1024;

/// Answers with this code and reason until `shutdown`.
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

/// Reads the question's head first: closed with something unread, the connection would be reset under the answer.
async fn refuse(mut stream: UnixStream, answer: &[u8]) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LARGEST {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // A body that is still under way.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
