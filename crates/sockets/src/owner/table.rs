//! `/proc/net/tcp` and `/proc/net/tcp6`, where `sock_diag` does not answer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{SocketEntry, Wanted};

/// The most of a table that is read: half a million sockets.
const MOST_BYTES: u64 = 80 << 20;

/// States, as in the tables: one that listens, and one that only waits for late packets.
const LISTEN: u8 = 0x0a;
const TIME_WAIT: u8 = 0x06;

/// A line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

/// Looks for a socket. Fails when a table cannot be read, but for that of IPv6 where the kernel has none.
pub(super) fn find(wanted: Wanted) -> io::Result<SocketEntry> {
    // IPv4 connections of an IPv6 socket are in the table of IPv6, with mapped addresses.
    let mut best = None;
    for (table, needed) in [("/proc/net/tcp", true), ("/proc/net/tcp6", false)] {
        match File::open(table) {
            Ok(file) => search(BufReader::new(file.take(MOST_BYTES)), wanted, &mut best)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{table}: {error}"))),
        }
    }
    Ok(best.map_or(SocketEntry::Absent, |(_, found)| found))
}

/// Keeps the best match so far, with how well it fits.
fn search(mut table: impl BufRead, wanted: Wanted, best: &mut Option<(u8, SocketEntry)>) -> io::Result<()> {
    let mut line = String::new();
    let mut read = 0;
    loop {
        line.clear();
        let length = table.read_line(&mut line)?;
        read += length as u64;
        if read >= MOST_BYTES {
            return Err(io::Error::other("the host has too many sockets to look for one in /proc/net/tcp"));
        }
        if length == 0 {
            return Ok(());
        }
        let Some(row) = parse(&line) else { continue };
        let Some(fit) = fit(&row, wanted) else { continue };
        if best.is_none_or(|(other, _)| fit > other) {
            *best = Some((fit, SocketEntry::new(row.uid, row.inode, None)));
        }
    }
}

/// How well a row fits; `None` when it is not the socket.
fn fit(row: &Row, wanted: Wanted) -> Option<u8> {
    match wanted {
        Wanted::Connection { local, remote } => {
            let same = row.local == local && row.remote == remote && row.state != TIME_WAIT && row.state != LISTEN;
            same.then_some(3)
        }
        Wanted::Listener(address) => {
            if row.state != LISTEN || row.local.port() != address.port() {
                return None;
            }
            match (row.local.ip(), address.ip()) {
                (bound, asked) if bound == asked => Some(3),
                (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(_)) => Some(2),
                // One of both families; or of IPv6 alone, and then a better match is the one that was connected to.
                (IpAddr::V6(Ipv6Addr::UNSPECIFIED), _) => Some(1),
                (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
            }
        }
    }
}

/// Parses a line; `None` for the heading, and for what the kernel does not write.
fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace();
    fields.next()?.strip_suffix(':')?;
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let mut fields = fields.skip(3);
    let uid = fields.next()?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Row { local, remote, state, uid, inode })
}

/// `0100007F:1F90`: the words of the address as numbers in the byte order of this machine, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(word(0)?.into()),
        32 => {
            let octets: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(<[u8; 16]>::try_from(octets).ok()?.into())
        }
        _ => return None,
    };
    Some(super::plain(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_both_families() {
        let line =
            "   0: 0100007F:1F90 0200007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        let row = parse(line).unwrap();
        assert_eq!((row.uid, row.inode, row.state), (1000, 4711, 1));
        if cfg!(target_endian = "little") {
            assert_eq!(
                (row.local.to_string(), row.remote.to_string()),
                ("127.0.0.1:8080".into(), "127.0.0.2:54321".into())
            );
            let mapped = "0000000000000000FFFF00000100007F:0050";
            assert_eq!(address(mapped).unwrap().to_string(), "127.0.0.1:80");
            assert_eq!(address("00000000000000000000000001000000:0050").unwrap().to_string(), "[::1]:80");
        }
    }

    #[test]
    fn what_the_kernel_does_not_write_is_no_row() {
        let heading =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        for line in
            ["", "0:", heading, "0: 01:1 02:2 01", "0: 0100007F:1F90 é00007F:D431 01 0 0 0 0 0 0", "0: ééééé:1 é:2"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_listener_of_the_very_address_comes_first() {
        let row = |local: &str, uid| Row {
            local: local.parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            state: LISTEN,
            uid,
            inode: 1,
        };
        let wanted = Wanted::Listener("127.0.0.1:80".parse().unwrap());
        let fits = |local: &str| fit(&row(local, 1), wanted);
        assert!(fits("127.0.0.1:80") > fits("0.0.0.0:80") && fits("0.0.0.0:80") > fits("[::]:80"));
        assert_eq!((fits("127.0.0.2:80"), fits("127.0.0.1:81"), fits("[::1]:80")), (None, None, None));
    }
}
