//! Why a run could not be started.

use std::{error, fmt};

use machineid_sys::in_words;
use rustix::io::Errno;

use super::super::containment::ContainmentError;
use super::super::guard::LeaderError;
use super::super::outcome::EndCause;
use super::super::outside::OutsideDaemon;

/// Why a run could not be started. The command was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunStartError {
    /// The end of children cannot be waited for.
    Children(Errno),
    /// Signals cannot be read.
    Signals(Errno),
    /// The processes were not made.
    Containment(ContainmentError),
    /// There is no timer.
    Timer(Errno),
    /// The guardian has made no leader.
    Leader(LeaderError),
    /// This daemon of the agent runs outside.
    Outside(OutsideDaemon),
}

impl RunStartError {
    /// Why the run ended, for the status file.
    pub(super) const fn cause(self) -> EndCause {
        match self {
            Self::Outside(_) => EndCause::HelperOutside,
            Self::Children(_) | Self::Signals(_) | Self::Containment(_) | Self::Timer(_) | Self::Leader(_) => {
                EndCause::WrapperFailed
            }
        }
    }
}

impl fmt::Display for RunStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Children(errno) => write!(f, "cannot wait for children: {errno}"),
            Self::Signals(errno) => write!(f, "cannot receive signals: {}", in_words(*errno)),
            Self::Containment(error) => write!(f, "{error}"),
            Self::Timer(errno) => write!(f, "cannot make a timer: {}", in_words(*errno)),
            Self::Leader(error) => write!(f, "{error}"),
            Self::Outside(daemon) => f.write_str(&daemon.refusal()),
        }
    }
}

impl error::Error for RunStartError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Children(errno) | Self::Signals(errno) | Self::Timer(errno) => Some(errno),
            Self::Containment(error) => Some(error),
            Self::Leader(error) => Some(error),
            Self::Outside(_) => None,
        }
    }
}
