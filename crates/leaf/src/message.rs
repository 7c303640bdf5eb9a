//! Request and answer as bytes. Pure. Each is one message of a `SOCK_SEQPACKET` socket; a request carries one descriptor.

use machineid_protocol::RunId;
use rustix::io::Errno;

/// The most bytes of a request. The helper reads one more, to see that a request is too long.
pub(crate) const LONGEST_REQUEST: usize = 64;
/// The most bytes of an answer.
pub(crate) const LONGEST_ANSWER: usize = 2048;

/// What the helper is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafVerb {
    /// Put the process of the descriptor, a pidfd, into a control group named after the run, and let the caller's group kill
    /// and freeze it.
    Contain,
    /// Remove the control group of the descriptor, a directory named after the run, if no process is in it.
    Remove,
}

impl LeafVerb {
    const ALL: [Self; 2] = [Self::Contain, Self::Remove];

    const fn word(self) -> &'static str {
        match self {
            Self::Contain => "contain",
            Self::Remove => "remove",
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafRequest {
    /// What to do.
    pub verb: LeafVerb,
    /// The run whose control group it is.
    pub run: RunId,
}

impl LeafRequest {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        format!("{} {}", self.verb.word(), self.run).into_bytes()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (word, run) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        let verb = LeafVerb::ALL.into_iter().find(|verb| verb.word() == word)?;
        Some(Self { verb, run: run.parse().ok()? })
    }
}

/// Why the helper did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRefusal {
    /// The kernel's error, or the one that fits best.
    pub errno: Errno,
    /// A sentence for the operator.
    pub why: String,
}

impl LeafRefusal {
    pub(crate) fn new(errno: Errno, why: impl Into<String>) -> Self {
        Self { errno, why: why.into() }
    }
}

pub(crate) fn answer(result: &Result<(), LeafRefusal>) -> Vec<u8> {
    let mut bytes = match result {
        Ok(()) => b"ok".to_vec(),
        Err(LeafRefusal { errno, why }) => format!("no {} {why}", errno.raw_os_error()).into_bytes(),
    };
    bytes.truncate(LONGEST_ANSWER);
    bytes
}

/// Parses an answer; `None` for anything that the helper does not send.
pub(crate) fn parse_answer(bytes: &[u8]) -> Option<Result<(), LeafRefusal>> {
    let text = String::from_utf8_lossy(bytes);
    if text == "ok" {
        return Some(Ok(()));
    }
    let (errno, why) = text.strip_prefix("no ")?.split_once(' ')?;
    let errno = errno.parse().ok().filter(|errno| (1..4096).contains(errno))?;
    Some(Err(LeafRefusal::new(Errno::from_raw_os_error(errno), why)))
}

/// Runs both parsers over any bytes, for the fuzzer.
///
/// # Panics
///
/// When a request is written otherwise than it was read.
pub fn fuzz(bytes: &[u8]) {
    if let Some(request) = LeafRequest::parse(bytes) {
        assert_eq!(request.to_bytes(), bytes);
    }
    let _ = parse_answer(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for verb in LeafVerb::ALL {
            let request = LeafRequest { verb, run: RunId::random().unwrap() };
            assert_eq!(LeafRequest::parse(&request.to_bytes()), Some(request));
            assert!(request.to_bytes().len() <= LONGEST_REQUEST);
            fuzz(&request.to_bytes());
        }
    }

    #[test]
    fn nothing_else_is_a_request() {
        let id = "0123456789abcdef0123456789abcdef";
        for text in [
            String::new(),
            "contain".into(),
            format!("contain  {id}"),
            format!("contain {id}\n"),
            format!("contain ../{id}"),
            format!("contain {}", &id[1..]),
            format!("contain {}", id.to_uppercase()),
            format!("kill {id}"),
            format!("Contain {id}"),
        ] {
            assert_eq!(LeafRequest::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(LeafRequest::parse(&[0xff, b' ', 0xfe]), None);
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for result in [Ok(()), Err(LeafRefusal::new(Errno::BUSY, "a process is inside"))] {
            assert_eq!(parse_answer(&answer(&result)), Some(result));
        }
        for garbage in ["", "no", "no 0 x", "no -1 x", "no x y", "okay", "no 99999 x"] {
            assert_eq!(parse_answer(garbage.as_bytes()), None, "{garbage:?}");
            fuzz(garbage.as_bytes());
        }
    }
}
