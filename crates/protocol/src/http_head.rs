//! The head of an HTTP/1.0 answer, for clients of the local socket that link no HTTP library. Its body is neither chunked nor
//! kept alive: it goes on until the end of the connection.

/// Finds where the head ends and where the body begins.
#[must_use]
pub fn end_of_head(bytes: &[u8]) -> Option<(usize, usize)> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| (at, at + 4))
}

/// The status of `HTTP/1.x NNN …`; `None` when the head is malformed, or when its body is in chunks.
#[must_use]
pub fn status_of(head: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let version = words.next()?;
    let status = words.next().filter(|status| status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit()))?;
    // A chunked answer would have its sizes inside the body.
    let chunked = lines.any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding:"));
    (matches!(version, "HTTP/1.0" | "HTTP/1.1") && !chunked).then(|| status.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_only_from_a_whole_head_without_chunks() {
        assert_eq!(status_of(b"HTTP/1.0 200 OK\r\ncontent-length: 2"), Some(200));
        assert_eq!(status_of(b"HTTP/1.1 403 Forbidden"), Some(403));
        for head in ["hello", "HTTP/2 200", "HTTP/1.0 2000 OK", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", ""] {
            assert_eq!(status_of(head.as_bytes()), None, "{head}");
        }
        assert_eq!(end_of_head(b"a\r\n\r\nb"), Some((1, 5)));
        assert_eq!(end_of_head(b"a\r\n"), None);
    }
}
