//! Makes foreign text, times and counts readable.

use std::time::Duration;

use jiff::Timestamp;

/// Text from outside, with every control or invisible character shown as `�`.
pub(super) fn printable(text: &str) -> String {
    machineid_protocol::printable::printable(text, char::REPLACEMENT_CHARACTER).collect()
}

/// A duration in its two largest units: `3d 4h`, `5m 2s`, `12s`; below ten seconds with one decimal.
pub(super) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds < 10 {
        return format!("{:.1}s", (span.as_secs_f64() * 10.0).floor() / 10.0);
    }
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(3);
    let (unit, size) = units[first];
    let large = format!("{}{unit}", seconds / size);
    match units.get(first + 1).map(|(unit, smaller)| (unit, seconds % size / smaller)) {
        Some((unit, rest)) if rest > 0 => format!("{large} {rest}{unit}"),
        Some(_) | None => large,
    }
}

/// Milliseconds, formatted like [`duration`].
pub(super) fn millis(count: u64) -> String {
    duration(Duration::from_millis(count))
}

/// Milliseconds without rounding: `12 ms`, `2.003 s`.
pub(super) fn precise(count: u64) -> String {
    if count < 1_000 { format!("{count} ms") } else { format!("{}.{:03} s", count / 1_000, count % 1_000) }
}

/// An RFC 3339 time relative to `now`; any other text unchanged.
pub(super) fn ago(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return printable(time) };
    match Duration::try_from(now.duration_since(time)) {
        Ok(past) => format!("{} ago", duration(past)),
        // The clock of another host may be ahead of ours.
        Err(_) => "just now".to_owned(),
    }
}

/// An RFC 3339 time as the time of day in UTC; any other text unchanged.
pub(super) fn clock_time(time: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return printable(time) };
    time.strftime("%H:%M:%S UTC").to_string()
}

/// `1 device`, `2 devices`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_durations() {
        for (milliseconds, text) in [
            (0, "0.0s"),
            (1_250, "1.2s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h"),
            (93_784_000, "1d 2h"),
        ] {
            assert_eq!(millis(milliseconds), text);
        }
    }

    #[test]
    fn what_was_measured_is_not_rounded() {
        for (milliseconds, text) in [(0, "0 ms"), (999, "999 ms"), (1_000, "1.000 s"), (12_045, "12.045 s")] {
            assert_eq!(precise(milliseconds), text);
        }
    }

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}1m\u{202e}b\nc"), "a�[2J�1m�b�c");
        assert_eq!(printable("worker:é:日本"), "worker:é:日本");
    }

    #[test]
    fn times_are_told_from_now() {
        let now = "2026-11-23T15:00:00Z".parse().unwrap();
        assert_eq!(ago("2026-11-23T14:59:30Z", now), "30s ago");
        assert_eq!(ago("2026-11-23T15:00:30Z", now), "just now");
        assert_eq!(ago("soon\n", now), "soon�");
    }
}
