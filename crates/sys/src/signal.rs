//! Signals by name.

use std::fmt;

use rustix::process::Signal;

/// The signals that may begin a stop, by their names in `kill -l`. Signals that cannot be caught, except KILL, and
/// signals that only the kernel sends are left out.
const NAMES: &[(&str, Signal)] = &[
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("WINCH", Signal::WINCH),
    ("PWR", Signal::POWER),
];

/// The text does not name a signal that may begin a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalNameError;

impl fmt::Display for SignalNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a signal that can begin a stop; use one of")?;
        for (name, _) in NAMES {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SignalNameError {}

/// Reads `TERM`, `SIGTERM` or `15`, in either case.
pub fn parse_signal(text: &str) -> Result<Signal, SignalNameError> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number: Option<i32> = text.parse().ok();
    NAMES
        .iter()
        .find(|(known, signal)| *known == name || Some(signal.as_raw()) == number)
        .map(|&(_, signal)| signal)
        .ok_or(SignalNameError)
}

/// The name of a signal without `SIG`, or its number.
#[must_use]
pub fn signal_name(signal: Signal) -> String {
    let known = NAMES.iter().find(|&&(_, known)| known == signal);
    known.map_or_else(|| signal.as_raw().to_string(), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_in_three_spellings_and_written_back() {
        for &(name, signal) in NAMES {
            let spellings = [name.to_owned(), format!("sig{}", name.to_lowercase()), signal.as_raw().to_string()];
            for spelling in spellings {
                assert_eq!(parse_signal(&spelling), Ok(signal), "{spelling}");
            }
            assert_eq!(signal_name(signal), name);
        }
        for wrong in ["", "SIG", "0", "-1", "99", "STOP", "CHLD", "TERM ", "+15x"] {
            assert_eq!(parse_signal(wrong), Err(SignalNameError), "{wrong}");
        }
    }
}
