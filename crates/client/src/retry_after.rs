//! `Retry-After`: the delay that a server requests.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use machineid_clock as clock;

/// The longest delay that is accepted. A longer one is an error, or an attempt to keep this host from asking.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// Parses the header, in seconds or as a date. `date` is the answer's own `Date`: compared with that, the host's clock
/// need not be right.
pub(super) fn read(text: &str, date: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit into a u64 are a very long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let until = http_date(text)?;
        let now = date.and_then(http_date).unwrap_or_else(clock::wall_now);
        Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

/// Fuzzes the reader with a header, a line feed and a date: no delay exceeds the maximum.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (wish, sent) = text.split_once('\n').map_or((text, None), |(wish, sent)| (wish, Some(sent)));
    assert!(read(wish, sent).is_none_or(|wait| wait <= LONGEST_RETRY_AFTER), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: Option<&str> = Some("Sun, 06 Nov 1994 08:49:37 GMT");

    #[test]
    fn reads_both_forms_and_caps_them() {
        for (text, seconds) in [
            ("0", 0),
            (" 7 ", 7),
            ("86400", 300),
            ("99999999999999999999999", 300),
            ("Sun, 06 Nov 1994 08:49:57 GMT", 20),
            ("Sun, 06 Nov 1994 08:49:17 GMT", 0),
            ("Mon, 07 Nov 1994 08:49:37 GMT", 300),
        ] {
            assert_eq!(read(text, DATE), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_wish_at_all() {
        for text in ["", "-1", "1.5", "soon", "1994-11-06T08:49:37Z"] {
            assert_eq!(read(text, DATE), None, "{text}");
        }
    }

    #[test]
    fn without_a_date_the_host_clock_counts() {
        assert_eq!(read("Sun, 06 Nov 1994 08:49:57 GMT", None), Some(Duration::ZERO));
    }
}
