//! Durations as text: whole numbers with `ms`, `s`, `m` or `h`, possibly joined (`1m30s`).

use std::fmt;
use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanError {
    /// The text is empty.
    Empty,
    /// A unit has no number before it, or a character is neither a digit nor part of a unit.
    NotANumber,
    /// A number has none of the four units behind it.
    NoUnit,
    /// More than `u64::MAX` milliseconds.
    TooLong,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the duration is empty; write a whole number and a unit, as in 500ms, 10s, 1m30s or 2h",
            Self::NotANumber => {
                "not a duration; write whole numbers, each with a unit ms, s, m or h, as in 500ms, 10s or 1m30s"
            }
            Self::NoUnit => "the duration lacks a unit; write ms, s, m or h behind each number, as in 10s",
            Self::TooLong => "the duration is too long",
        })
    }
}

impl std::error::Error for SpanError {}

/// The whole seconds of a duration. A part of a second counts as one: a key that is to stay valid for half a second must
/// not end at once.
#[must_use]
pub fn whole_seconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Reads a duration such as `500ms`, `10s`, `1m30s` or `0s`.
///
/// Fails with a [`SpanError`] on anything else: fractions, signs, spaces, a missing or an unknown unit.
pub fn parse(text: &str) -> Result<Duration, SpanError> {
    if text.is_empty() {
        return Err(SpanError::Empty);
    }
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        if number.is_empty() {
            return Err(SpanError::NotANumber);
        }
        let letters = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, next) = behind.split_at(letters);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" if next.is_empty() => return Err(SpanError::NoUnit),
            _ => return Err(SpanError::NotANumber),
        };
        let number: u64 = number.parse().map_err(|_| SpanError::TooLong)?;
        millis = number.checked_mul(factor).and_then(|part| millis.checked_add(part)).ok_or(SpanError::TooLong)?;
        rest = next;
    }
    Ok(Duration::from_millis(millis))
}

/// Writes a duration so that [`parse`] reads it back; fractions of a millisecond are dropped. Examples: `1m30s`,
/// `250ms`, `0s`.
#[must_use]
pub fn format(span: Duration) -> String {
    let mut millis = span.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let count = millis / size;
        millis %= size;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_of_a_second_counts_as_a_whole_one() {
        let seconds = [0, 1, 999, 1_000, 1_001].map(|millis| whole_seconds(Duration::from_millis(millis)));
        assert_eq!(seconds, [0, 1, 1, 1, 2]);
    }

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("1m30s", 90_000), ("2h", 7_200_000), ("0s", 0), ("1s500ms", 1_500)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else_with_a_reason() {
        for (text, error) in [
            ("", SpanError::Empty),
            ("10", SpanError::NoUnit),
            ("s", SpanError::NotANumber),
            ("1.5s", SpanError::NotANumber),
            ("-1s", SpanError::NotANumber),
            ("1 s", SpanError::NotANumber),
            ("1d", SpanError::NotANumber),
            ("99999999999999999999s", SpanError::TooLong),
            ("18446744073709551615h", SpanError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..10_000_000_000) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(span)), Ok(span));
        }
    }
}
