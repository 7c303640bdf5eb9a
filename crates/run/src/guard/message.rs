//! The messages between wrapper and guardian: of a fixed size, on a socket pair that preserves their boundaries. Pure.
//!
//! Both ends are one program in two processes, so no version is negotiated. Bytes that are not exactly a message are
//! refused all the same.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::Exit;
use machineid_protocol::local::Killer;
use rustix::process::Signal;

/// The size of every message, in bytes.
pub(super) const SIZE: usize = 24;

/// A message in bytes.
pub(super) type Bytes = [u8; SIZE];

/// The terms of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuardianTerms {
    /// The first signal.
    pub(crate) signal: Signal,
    /// Time from the first signal to SIGKILL; sent in whole milliseconds.
    pub(crate) grace: Duration,
    /// Whether the daemon can end the tree too.
    pub(crate) killer: Killer,
    /// Whether the tree is in a control group of its own.
    pub(crate) in_leaf: bool,
}

/// A message from the wrapper to the guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardianOrder {
    /// The command is about to be executed on these terms, and on a lease up to this point.
    Terms(GuardianTerms, BootTime),
    /// The end of the lease has moved.
    Deadline(BootTime),
    /// The wrapper has begun a stop; SIGKILL comes at this point.
    Stopping { kill_at: BootTime },
    /// The wrapper knows of the leader's end: the leader may be reaped.
    Acknowledge,
}

/// A message from the guardian's side to the wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardianReport {
    /// The leader exists and waits for the permit; it sends this itself, and the kernel adds its pid. `in_leaf`:
    /// whether it is in its control group. `numbers`: the error number because of which process numbers in a PID
    /// namespace begin at 2; 0 if they do not.
    Here { in_leaf: bool, numbers: i32 },
    /// The guardian cannot begin: this step failed with this error number.
    Cannot(GuardianStep, i32),
    /// The leader was stopped by this signal.
    LeaderStopped(i32),
    /// The leader has ended and waits to be reaped. `alone`: no other process of the tree lives.
    LeaderEnded { exit: Exit, alone: bool },
    /// The guardian has begun a stop by itself; SIGKILL comes at this point.
    Stopping { kill_at: BootTime },
}

/// A step of the guardian's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardianStep {
    /// Mapping its user into the user namespace.
    MapUser,
    /// Mounting a `/proc` of the PID namespace's own.
    MountProc,
    /// Tying the guardian's life to the wrapper's.
    Tie,
    /// Forking the process that becomes the command.
    Fork,
    /// Making namespaces of the leader's own, for `--isolate`.
    Isolate,
    /// Mapping the leader's user into its user namespace.
    IsolateUser,
    /// Covering a place of `--isolate`.
    Cover,
    /// Showing again what the command needs of a covered place.
    Restore,
    /// Anything the guardian needs for its own work: descriptors, memory, `/proc`.
    Prepare,
}

impl GuardianStep {
    const ALL: [Self; 9] = [
        Self::MapUser,
        Self::MountProc,
        Self::Tie,
        Self::Fork,
        Self::Isolate,
        Self::IsolateUser,
        Self::Cover,
        Self::Restore,
        Self::Prepare,
    ];
}

/// The fields of any message; fields that a kind does not use are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fields {
    kind: u8,
    flag: u8,
    number: i32,
    first: u64,
    second: u64,
}

impl Fields {
    fn write(self) -> Bytes {
        let mut bytes = [0; SIZE];
        bytes[0] = self.kind;
        bytes[1] = self.flag;
        bytes[4..8].copy_from_slice(&self.number.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.second.to_ne_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &Bytes = bytes.try_into().ok()?;
        let fields = Self {
            kind: bytes[0],
            flag: bytes[1],
            number: i32::from_ne_bytes(bytes[4..8].try_into().ok()?),
            first: u64::from_ne_bytes(bytes[8..16].try_into().ok()?),
            second: u64::from_ne_bytes(bytes[16..24].try_into().ok()?),
        };
        (fields.write() == *bytes).then_some(fields)
    }
}

fn nanos(point: BootTime) -> u64 {
    u64::try_from(point.since_boot().as_nanos()).unwrap_or(u64::MAX)
}

fn point(nanos: u64) -> BootTime {
    BootTime::default() + Duration::from_nanos(nanos)
}

impl GuardianOrder {
    pub(super) fn write(self) -> Bytes {
        let fields = match self {
            Self::Terms(terms, deadline) => Fields {
                kind: 1,
                flag: u8::from(terms.killer == Killer::Daemon) | u8::from(terms.in_leaf) << 1,
                number: terms.signal.as_raw(),
                first: u64::try_from(terms.grace.as_millis()).unwrap_or(u64::MAX),
                second: nanos(deadline),
            },
            Self::Deadline(at) => Fields { kind: 2, first: nanos(at), ..Fields::default() },
            Self::Stopping { kill_at } => Fields { kind: 3, first: nanos(kill_at), ..Fields::default() },
            Self::Acknowledge => Fields { kind: 4, ..Fields::default() },
        };
        fields.write()
    }

    /// Parses an order. `None` for anything that [`GuardianOrder::write`] does not write.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let fields = Fields::read(bytes)?;
        let order = match fields.kind {
            1 => {
                let killer = if fields.flag & 1 == 1 { Killer::Daemon } else { Killer::Wrapper };
                let signal = Signal::from_named_raw(fields.number)?;
                let grace = Duration::from_millis(fields.first);
                Self::Terms(
                    GuardianTerms { signal, grace, killer, in_leaf: fields.flag & 2 == 2 },
                    point(fields.second),
                )
            }
            2 => Self::Deadline(point(fields.first)),
            3 => Self::Stopping { kill_at: point(fields.first) },
            4 => Self::Acknowledge,
            _ => return None,
        };
        (order.write() == bytes).then_some(order)
    }
}

impl GuardianReport {
    pub(super) fn write(self) -> Bytes {
        let fields = match self {
            Self::Here { in_leaf, numbers } => {
                Fields { kind: 11, flag: u8::from(in_leaf), number: numbers, ..Fields::default() }
            }
            Self::Cannot(step, errno) => {
                let place = GuardianStep::ALL.iter().position(|&other| other == step);
                let first = place.and_then(|place| u64::try_from(place).ok()).unwrap_or(u64::MAX);
                Fields { kind: 12, number: errno, first, ..Fields::default() }
            }
            Self::LeaderStopped(signal) => Fields { kind: 13, number: signal, ..Fields::default() },
            Self::LeaderEnded { exit, alone } => {
                let by_signal = matches!(exit, Exit::Signal(_));
                let number = if let Exit::Signal(signal) = exit { signal } else { exit.code() };
                Fields {
                    kind: 14,
                    flag: u8::from(alone),
                    number: i32::from(number),
                    first: u64::from(by_signal),
                    ..Fields::default()
                }
            }
            Self::Stopping { kill_at } => Fields { kind: 15, first: nanos(kill_at), ..Fields::default() },
        };
        fields.write()
    }

    /// Parses a report. `None` for anything that [`GuardianReport::write`] does not write.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let fields = Fields::read(bytes)?;
        let report = match fields.kind {
            11 => Self::Here { in_leaf: fields.flag == 1, numbers: fields.number },
            12 => {
                let place = usize::try_from(fields.first).ok()?;
                Self::Cannot(*GuardianStep::ALL.get(place)?, fields.number)
            }
            13 => Self::LeaderStopped(fields.number),
            14 => {
                let number = u8::try_from(fields.number).ok()?;
                let exit = if fields.first == 1 { Exit::Signal(number) } else { Exit::Command(number) };
                Self::LeaderEnded { exit, alone: fields.flag == 1 }
            }
            15 => Self::Stopping { kill_at: point(fields.first) },
            _ => return None,
        };
        (report.write() == bytes).then_some(report)
    }
}

/// Checks that foreign bytes that can be read as a message are written as the same bytes.
pub(crate) fn fuzz(data: &[u8]) {
    assert!(GuardianOrder::read(data).is_none_or(|order| order.write() == data));
    assert!(GuardianReport::read(data).is_none_or(|report| report.write() == data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let at = BootTime::from_millis(12_345) + Duration::from_nanos(7);
        let terms = GuardianTerms {
            signal: Signal::INT,
            grace: Duration::from_millis(250),
            killer: Killer::Daemon,
            in_leaf: true,
        };
        let remote = GuardianTerms { killer: Killer::Wrapper, in_leaf: false, ..terms };
        for order in [
            GuardianOrder::Terms(terms, at),
            GuardianOrder::Terms(remote, at),
            GuardianOrder::Deadline(at),
            GuardianOrder::Stopping { kill_at: at },
            GuardianOrder::Acknowledge,
        ] {
            assert_eq!(GuardianOrder::read(&order.write()), Some(order));
            assert_eq!(GuardianReport::read(&order.write()), None);
        }
        let mut reports = vec![
            GuardianReport::Here { in_leaf: true, numbers: 0 },
            GuardianReport::Here { in_leaf: false, numbers: 13 },
            GuardianReport::LeaderStopped(20),
            GuardianReport::LeaderEnded { exit: Exit::Command(255), alone: true },
            GuardianReport::LeaderEnded { exit: Exit::Signal(9), alone: false },
            GuardianReport::Stopping { kill_at: at },
        ];
        reports.extend(GuardianStep::ALL.map(|step| GuardianReport::Cannot(step, 13)));
        for report in reports {
            assert_eq!(GuardianReport::read(&report.write()), Some(report));
            assert_eq!(GuardianOrder::read(&report.write()), None);
        }
    }

    proptest! {
        #[test]
        fn anything_else_is_no_message(mut bytes in proptest::array::uniform24(any::<u8>()), kind in 0_u8..17) {
            bytes[0] = kind;
            prop_assert!(GuardianOrder::read(&bytes).is_none_or(|order| order.write() == bytes));
            prop_assert!(GuardianReport::read(&bytes).is_none_or(|report| report.write() == bytes));
            prop_assert!(GuardianOrder::read(&bytes[..23]).is_none() && GuardianReport::read(&bytes[1..]).is_none());
        }
    }
}
