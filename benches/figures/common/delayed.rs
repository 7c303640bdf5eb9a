//! A way to the authority that takes a given time: what is answered arrives that much later.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::Outcome;

/// Listens until the benchmark ends; its threads end with their connections.
pub(crate) struct Delayed {
    pub(crate) address: SocketAddr,
}

impl Delayed {
    pub(crate) fn start(authority: SocketAddr, delay: Duration) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // A client that finds the authority gone sees its connection closed.
                let _ = join(near, authority, delay);
            }
        });
        Ok(Self { address })
    }
}

fn join(near: TcpStream, authority: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let far = TcpStream::connect(authority)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_again, far_again) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || pass(&near, &far, Duration::ZERO));
    thread::spawn(move || pass(&far_again, &near_again, delay));
    Ok(())
}

/// One piece at a time. Answers are short and asked for one after another, so each is one piece.
fn pass(mut from: &TcpStream, mut to: &TcpStream, delay: Duration) {
    let mut room = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut room) {
        thread::sleep(delay);
        if to.write_all(&room[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
