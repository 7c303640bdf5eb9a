//! The question as HTTP/1.0, and the parser of the answer. Pure.
//!
//! HTTP/1.0, because its answer is neither chunked nor kept alive: a head, then lines until the end. An HTTP library
//! would be most of the wrapper.

use machineid_protocol::http_head::{end_of_head, status_of};
use machineid_protocol::local::{OutsideReport, SuperviseEvent, SuperviseRequest};
use machineid_protocol::{RunId, Wish};
use serde::{Deserialize, Serialize};

use super::event::{ConnectionLost, DaemonRefusal, DaemonState, WrapperEvent};

/// The longest head of an answer, in bytes.
const LONGEST_HEAD: usize = 8 * 1024;
/// The longest line of the stream, in bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// The length of the rest of the question, in bytes: the head announces it before its numbers are known, so it is
/// padded with spaces.
const REST: usize = 96;
/// How a question begins whose pid is 0.
const OF_PID_0: &[u8] = b"{\"pid\":0,";

/// The part of the question that is known only once the processes exist.
#[derive(Debug, Serialize)]
pub(super) struct Rest {
    pub(super) pid: i32,
    pub(super) guardian: i32,
    pub(super) containment: Option<Wish>,
}

/// The question without its rest. It is sent while the processes are being made, so that the daemon has read it by
/// then.
pub(super) fn beginning(question: &SuperviseRequest) -> Vec<u8> {
    let known = SuperviseRequest { pid: 0, guardian: None, containment: None, ..question.clone() };
    // Strings and numbers only: nothing in it can fail to be written.
    let known = serde_json::to_vec(&known).unwrap_or_default();
    // The first field belongs to the rest, which continues the object.
    let known = known.strip_prefix(OF_PID_0).and_then(|known| known.strip_suffix(b"}")).unwrap_or_default();
    let mut bytes = format!(
        "POST /v1/supervise HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{{",
        1 + known.len() + REST
    )
    .into_bytes();
    bytes.extend(known);
    bytes
}

/// The rest of the question.
pub(super) fn rest(rest: &Rest) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(rest).unwrap_or_default();
    if let Some(opening) = bytes.first_mut() {
        *opening = b',';
    }
    bytes.resize(REST, b' ');
    bytes
}

/// The request for the newest event of a run.
pub(super) fn inquiry(run_id: RunId) -> Vec<u8> {
    format!("GET /v1/supervise?run_id={run_id} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The request to thaw a run's processes.
pub(super) fn thaw(run_id: RunId) -> Vec<u8> {
    let head = format!("POST /v1/thaw?run_id={run_id} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n");
    format!("{head}Content-Length: 0\r\n\r\n").into_bytes()
}

/// What the agent uses outside its tree.
pub(super) fn outside(run_id: RunId, report: &OutsideReport) -> Vec<u8> {
    // Strings and numbers only: nothing in it can fail to be written.
    let body = serde_json::to_vec(report).unwrap_or_default();
    let head = format!("POST /v1/outside?run_id={run_id} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n");
    let head = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

/// The answer as far as it was read.
#[derive(Debug, Default)]
pub(super) struct AnswerReader {
    held: Vec<u8>,
    status: Option<u16>,
    broken: bool,
}

impl AnswerReader {
    /// Takes bytes and returns the events that they complete. No event comes after a [`WrapperEvent::Lost`].
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<WrapperEvent> {
        let mut events = Vec::new();
        if self.broken {
            return events;
        }
        self.held.extend_from_slice(bytes);
        if self.status.is_none() {
            let Some((end, start)) = end_of_head(&self.held) else {
                if self.held.len() > LONGEST_HEAD {
                    events.push(self.lost("the head of its answer is too long"));
                }
                return events;
            };
            let Some(status) = status_of(&self.held[..end]).filter(|_| end <= LONGEST_HEAD) else {
                events.push(self.lost("its answer is not HTTP; does another program listen there?"));
                return events;
            };
            self.status = Some(status);
            self.held.drain(..start);
        }
        while let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.held.drain(..=end).collect();
            events.extend(self.line(&line[..end]));
            if self.broken {
                return events;
            }
        }
        if self.held.len() > LONGEST_LINE {
            events.push(self.lost("a line of its answer is too long"));
        }
        events
    }

    /// Takes the end of the stream. A refusal may lack the final line feed; on a running stream a line without one is
    /// torn and ignored.
    pub(super) fn end(&mut self) -> Vec<WrapperEvent> {
        if self.broken {
            return Vec::new();
        }
        let refused = self.status.is_some_and(|status| status != 200);
        let rest = std::mem::take(&mut self.held);
        let mut events: Vec<WrapperEvent> = refused.then(|| self.line(&rest)).flatten().into_iter().collect();
        if !self.broken {
            let why = match self.status {
                None => "it closed the connection without an answer; its log says why".to_owned(),
                Some(200) => "it closed the connection".to_owned(),
                Some(status) => format!("it answered with HTTP status {status}"),
            };
            events.push(self.lost(&why));
        }
        events
    }

    fn lost(&mut self, why: &str) -> WrapperEvent {
        self.broken = true;
        self.held = Vec::new();
        WrapperEvent::Lost(ConnectionLost { why: why.to_owned(), daemon: DaemonState::There })
    }

    fn line(&mut self, line: &[u8]) -> Option<WrapperEvent> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        if line.len() > LONGEST_LINE {
            return Some(self.lost("a line of its answer is too long"));
        }
        let Ok(kind) = serde_json::from_slice::<EventName>(line) else {
            return Some(self.lost("its answer does not follow the protocol"));
        };
        if !matches!(&*kind.event, "allow" | "lease" | "undecided" | "outside" | "look" | "stop" | "error") {
            // An event of a newer daemon.
            return None;
        }
        let Ok(event) = serde_json::from_slice::<SuperviseEvent>(line) else {
            return Some(self.lost("its answer does not follow the protocol"));
        };
        match (self.status, event) {
            (Some(200), event) => Some(WrapperEvent::Line(event)),
            (Some(status), SuperviseEvent::Error { code, request_id, reason, .. }) => {
                self.broken = true;
                Some(WrapperEvent::Refused(DaemonRefusal { status, code, request_id, reason }))
            }
            // A refusal never permits, whatever it says beside its error.
            (_, _) => Some(self.lost("its answer contradicts itself")),
        }
    }
}

#[derive(Deserialize)]
struct EventName {
    event: String,
}

/// Checks that an answer gives the same events however its bytes are cut into pieces, and none after its end. The first
/// byte says how the answer is cut.
pub(super) fn fuzz(data: &[u8]) {
    let Some((size, answer)) = data.split_first() else { return };
    let whole = |mut reader: AnswerReader, pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut events: Vec<WrapperEvent> = pieces.flat_map(|piece| reader.feed(piece)).collect();
        events.extend(reader.end());
        assert!(
            reader.feed(b"HTTP/1.0 200 OK\r\n\r\n{\"event\":\"lease\"}\n").is_empty(),
            "nothing comes after the end"
        );
        events
    };
    let cut = whole(AnswerReader::default(), &mut answer.chunks(usize::from(*size).max(1)));
    let ends = |event: &WrapperEvent| matches!(event, WrapperEvent::Lost(_) | WrapperEvent::Refused(_));
    assert_eq!(cut.iter().filter(|event| ends(event)).count(), 1, "it ends once: {cut:?}");
    assert!(cut.last().is_some_and(ends));
    // Where a limit is exceeded depends on the pieces; events that were complete before do not.
    if answer.len() < LONGEST_HEAD {
        assert_eq!(cut, whole(AnswerReader::default(), &mut std::iter::once(answer)));
    }
    let allowed = cut.iter().any(|event| matches!(event, WrapperEvent::Line(SuperviseEvent::Allow { .. })));
    assert!(!allowed || answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"), "{cut:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "HTTP/1.0 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n";
    const LEASE: &str = r#"{"event":"lease","boot_ms":1,"until_boot_ms":2,"newer":true}"#;

    fn is_lost(events: &[WrapperEvent]) -> bool {
        matches!(events, [WrapperEvent::Lost(_)])
    }

    #[test]
    fn the_two_parts_of_a_question_are_one() {
        let question = SuperviseRequest {
            pid: 0,
            run_id: "00000000000000000000000000000007".parse().unwrap(),
            device: Some("a".parse().unwrap()),
            alone: true,
            name: Some("}\u{e9}".to_owned()),
            command: vec!["{\"pid\":0,".to_owned(), String::new()],
            guardian: None,
            containment: None,
            leftovers: Some("stop".to_owned()),
            stop_signal: Some("TERM".to_owned()),
            stop_grace: None,
        };
        for containment in [None, Some(Wish::Auto), Some(Wish::Named(machineid_protocol::Containment::Subreaper))] {
            let largest = Rest { pid: i32::MAX, guardian: i32::MAX, containment };
            let text = [beginning(&question), rest(&largest)].concat();
            let (head, body) = end_of_head(&text).map(|(head, body)| (&text[..head], &text[body..])).unwrap();
            let length = format!("Content-Length: {}", body.len());
            assert!(String::from_utf8_lossy(head).ends_with(&length), "{}", String::from_utf8_lossy(&text));
            let read: SuperviseRequest = serde_json::from_slice(body).unwrap();
            let whole = SuperviseRequest { pid: i32::MAX, guardian: Some(i32::MAX), containment, ..question.clone() };
            assert_eq!(read, whole);
        }
    }

    #[test]
    fn lines_come_out_however_the_bytes_are_cut() {
        let text = format!("{HEAD}{LEASE}\n\n{{\"event\":\"unheard-of\",\"x\":[1]}}\n{LEASE}\n");
        for size in [1, 2, 7, 1000] {
            let mut reader = AnswerReader::default();
            let events: Vec<_> = text.as_bytes().chunks(size).flat_map(|bytes| reader.feed(bytes)).collect();
            let lease = WrapperEvent::Line(SuperviseEvent::Lease { boot_ms: 1, until_boot_ms: 2 });
            assert_eq!(events, [lease.clone(), lease]);
            assert!(is_lost(&reader.end()));
        }
    }

    #[test]
    fn garbage_torn_lines_and_oversized_ones_end_the_stream() {
        for text in [
            "hello\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n".to_owned(),
            "HTTP/1.0 2000 OK\r\n\r\n".to_owned(),
            format!("{HEAD}not json\n"),
            format!("{HEAD}{{\"event\":\"allow\"}}\n"),
            format!("{HEAD}{{\"event\":\"lease\",\"boot_ms\":1,\"boot_ms\":1,\"until_boot_ms\":2}}\n"),
            format!("{HEAD}{}", "x".repeat(70_000)),
            format!("{HEAD}{{\"event\":\"{}\"}}\n", "x".repeat(70_000)),
            "x".repeat(9_000),
        ] {
            let mut reader = AnswerReader::default();
            assert!(is_lost(&reader.feed(text.as_bytes())), "{}", &text[..60.min(text.len())]);
            assert_eq!(reader.feed(format!("{LEASE}\n").as_bytes()), []);
        }
        let mut reader = AnswerReader::default();
        assert_eq!(reader.feed(format!("{HEAD}{LEASE}").as_bytes()), []);
        assert!(is_lost(&reader.end()), "a line without its end is none");
    }

    #[test]
    fn a_refusal_is_read_with_or_without_a_final_line_feed_and_never_allows() {
        let error = r#"{"event":"error","code":"DEVICE_REVOKED","request_id":"r","device_id":null,"reason":"why"}"#;
        for end in ["", "\n"] {
            let mut reader = AnswerReader::default();
            let mut events = reader.feed(format!("HTTP/1.0 403 Forbidden\r\n\r\n{error}{end}").as_bytes());
            events.extend(reader.end());
            let [WrapperEvent::Refused(refusal)] = &events[..] else { panic!("{events:?}") };
            assert_eq!((refusal.status, refusal.code.as_str()), (403, "DEVICE_REVOKED"));
        }
        let mut reader = AnswerReader::default();
        assert!(is_lost(&reader.feed(format!("HTTP/1.0 500 Oops\r\n\r\n{LEASE}\n").as_bytes())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = AnswerReader::default();
            reader.feed(HEAD.as_bytes());
            reader.feed(&bytes);
            reader.end();
        }
    }
}
