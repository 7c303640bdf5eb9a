//! Parses server-sent events. Pure, with limits for any input: a stream that violates the format ends.

/// The maximum size of a line and of an event, in bytes: an event of our authority has at most 100 ids of 128
/// characters.
const LONGEST: usize = 64 * 1024;

/// A parsed element of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSentEvent {
    /// A comment: the connection is alive.
    Alive,
    /// An event with its name (`message` if it has none) and its data.
    Named {
        /// The event's name.
        name: String,
        /// The event's data; several lines are joined.
        data: String,
    },
}

/// The stream is not an event stream: it is not UTF-8, or a line or an event is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoEvents;

/// Parses bytes in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    name: Option<String>,
    data: Option<String>,
}

impl Reader {
    /// Appends the events that `bytes` complete to `events`.
    pub(super) fn take(&mut self, bytes: &[u8], events: &mut Vec<ServerSentEvent>) -> Result<(), NoEvents> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() > LONGEST {
                return Err(NoEvents);
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let line = std::str::from_utf8(&line).map_err(|_| NoEvents)?;
                let line = line.strip_suffix('\n').unwrap_or(line);
                events.extend(self.line(line.strip_suffix('\r').unwrap_or(line))?);
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<Option<ServerSentEvent>, NoEvents> {
        if line.is_empty() {
            let name = self.name.take();
            return Ok(self
                .data
                .take()
                .map(|data| ServerSentEvent::Named { name: name.unwrap_or("message".to_owned()), data }));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Ok(Some(ServerSentEvent::Alive)),
            "event" => self.name = Some(value.to_owned()),
            "data" => {
                let data = self.data.get_or_insert_default();
                if data.len() + value.len() + 1 > LONGEST {
                    return Err(NoEvents);
                }
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(value);
            }
            // `id` and `retry` are not used, and the standard requires unknown fields to be ignored.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "event: ready\ndata: {\"a\":1}\n\n: alive\n\r\ndata: x\ndata: y\r\nid: 7\n\nevent: none\n\n";

    fn read(pieces: &[&[u8]]) -> Result<Vec<ServerSentEvent>, NoEvents> {
        let (mut reader, mut events) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.take(piece, &mut events)?;
        }
        Ok(events)
    }

    fn named(name: &str, data: &str) -> ServerSentEvent {
        ServerSentEvent::Named { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_comments_and_the_lines_of_data_are_told_apart() {
        let expected = vec![named("ready", "{\"a\":1}"), ServerSentEvent::Alive, named("message", "x\ny")];
        assert_eq!(read(&[STREAM.as_bytes()]), Ok(expected));
    }

    #[test]
    fn a_stream_that_never_ends_its_line_or_its_event_is_given_up() {
        assert_eq!(read(&[&vec![b'x'; LONGEST + 1]]), Err(NoEvents));
        let lines = "data: 0123456789\n".repeat(LONGEST / 10 + 1);
        assert_eq!(read(&[lines.as_bytes()]), Err(NoEvents));
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(NoEvents));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(cuts in proptest::collection::vec(0..STREAM.len(), 0..9)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &STREAM.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[STREAM.as_bytes()]));
        }

        #[test]
        fn no_bytes_make_it_fall_over_or_grow(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..40)) {
            let (mut reader, mut events) = (Reader::default(), Vec::new());
            for piece in &pieces {
                if reader.take(piece, &mut events).is_err() {
                    break;
                }
                prop_assert!(reader.line.len() <= LONGEST);
            }
        }
    }
}
