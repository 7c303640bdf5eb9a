//! Processes outside a tree that the tree works through: what they start belongs to no supervised tree.

use serde::{Deserialize, Serialize};

use super::printable::printable;

/// The most outside helpers that are kept for one agent.
pub const MOST_HELPERS: usize = 32;

/// The most outside helpers that are named in a line; the others are counted.
const NAMED: usize = 4;

/// The longest text about a helper that is taken from another program, in characters.
const LONGEST: usize = 200;

/// What kind of process an outside helper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OutsideKind {
    /// The daemon of an agent program, which runs tool commands for it.
    AgentDaemon,
    /// A container engine: the agent may have started containers.
    ContainerEngine,
    /// A service manager: the agent may have started units.
    ServiceManager,
    /// A terminal multiplexer: the agent may have started programs in its windows.
    TerminalMultiplexer,
    /// A process that is not recognised.
    Other,
    /// An ordinary service, such as a resolver, a bus, a database or a model proxy. It starts nothing for the agent.
    Service,
}

impl OutsideKind {
    /// Every kind, the most important first.
    pub const ALL: [Self; 6] = [
        Self::AgentDaemon,
        Self::ContainerEngine,
        Self::ServiceManager,
        Self::TerminalMultiplexer,
        Self::Other,
        Self::Service,
    ];

    /// The name, as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentDaemon => "agent-daemon",
            Self::ContainerEngine => "container-engine",
            Self::ServiceManager => "service-manager",
            Self::TerminalMultiplexer => "terminal-multiplexer",
            Self::Other => "other",
            Self::Service => "service",
        }
    }

    /// Whether a process of this kind can go on with the agent's work, as far as is known.
    #[must_use]
    pub const fn is_helper(self) -> bool {
        match self {
            Self::AgentDaemon
            | Self::ContainerEngine
            | Self::ServiceManager
            | Self::TerminalMultiplexer
            | Self::Other => true,
            Self::Service => false,
        }
    }
}

/// A process outside a tree that a process of the tree is or was connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutsideHelper {
    /// The process id, as the daemon sees it; `None` when the owner of the socket cannot be seen.
    pub pid: Option<u32>,
    /// The program of the process; `None` when it may not be read.
    pub exe: Option<String>,
    /// The user of the process.
    pub uid: Option<u32>,
    /// The connection: `unix:PATH`, where `@` begins an abstract name, or `tcp:ADDRESS:PORT`.
    pub via: String,
    /// What kind of process it is.
    pub kind: OutsideKind,
    /// The process in a few words, such as `codex app-server`.
    pub name: String,
    /// Whether the daemon is ending the process (`enforcement.outside_helpers = "stop"`).
    #[serde(default)]
    pub ending: bool,
}

impl OutsideHelper {
    /// The same with texts of bounded length without control characters: for one that another program describes.
    #[must_use]
    pub fn bounded(self) -> Self {
        let cut = |text: String| printable(&text, '?').take(LONGEST).collect::<String>();
        Self { exe: self.exe.map(cut), via: cut(self.via), name: cut(self.name), ..self }
    }

    /// The process for people, such as `codex app-server (pid 4711)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        match (self.pid, self.uid) {
            (Some(pid), _) => format!("{} (pid {pid})", self.name),
            (None, Some(uid)) => format!("{} (uid {uid}, {})", self.name, self.via),
            (None, None) => format!("{} ({})", self.name, self.via),
        }
    }
}

/// The helpers as a list for people, ordinary services left out; `None` without any.
#[must_use]
pub fn listed(helpers: &[OutsideHelper]) -> Option<String> {
    let told: Vec<&OutsideHelper> = helpers.iter().filter(|helper| helper.kind.is_helper()).collect();
    let mut words: Vec<String> = told.iter().take(NAMED).map(|helper| helper.in_words()).collect();
    if told.len() > NAMED {
        words.push(format!("{} more", told.len() - NAMED));
    }
    let last = words.pop()?;
    Some(if words.is_empty() { last } else { format!("{} and {last}", words.join(", ")) })
}

/// What a stop left: `still running outside: codex app-server (pid 4711), which this agent used`. `None` when it left nothing.
#[must_use]
pub fn still_running(helpers: &[OutsideHelper]) -> Option<String> {
    let (ending, staying): (Vec<_>, Vec<_>) = helpers.iter().cloned().partition(|helper| helper.ending);
    let staying = listed(&staying).map(|words| format!("still running outside: {words}, which this agent used"));
    let ending = listed(&ending).map(|words| format!("ending outside: {words}, which this agent used"));
    match (staying, ending) {
        (Some(staying), Some(ending)) => Some(format!("{staying}; {ending}")),
        (staying, ending) => staying.or(ending),
    }
}

/// The number of helpers that are not ordinary services, as in `1 outside helper`; `None` without any.
#[must_use]
pub fn counted(helpers: &[OutsideHelper]) -> Option<String> {
    match helpers.iter().filter(|helper| helper.kind.is_helper()).count() {
        0 => None,
        1 => Some("1 outside helper".to_owned()),
        many => Some(format!("{many} outside helpers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(pid: u32, kind: OutsideKind) -> OutsideHelper {
        OutsideHelper {
            pid: Some(pid),
            exe: None,
            uid: Some(1000),
            via: "unix:/tmp/x".to_owned(),
            kind,
            name: "codex app-server".to_owned(),
            ending: false,
        }
    }

    #[test]
    fn a_line_names_helpers_and_no_service() {
        let daemon = helper(4711, OutsideKind::AgentDaemon);
        let service = helper(1, OutsideKind::Service);
        assert_eq!(
            still_running(&[service.clone(), daemon.clone()]).unwrap(),
            "still running outside: codex app-server (pid 4711), which this agent used"
        );
        assert_eq!((still_running(std::slice::from_ref(&service)), counted(&[service])), (None, None));
        let ending = OutsideHelper { ending: true, ..daemon.clone() };
        assert!(still_running(&[ending]).unwrap().starts_with("ending outside: "));
        assert_eq!(counted(&[daemon]).unwrap(), "1 outside helper");
        let many: Vec<_> = (1..=6).map(|pid| helper(pid, OutsideKind::Other)).collect();
        assert!(listed(&many).unwrap().ends_with("(pid 4) and 2 more"), "{:?}", listed(&many));
    }

    #[test]
    fn kinds_are_sent_as_documented() {
        for kind in OutsideKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        let unseen = OutsideHelper { pid: None, uid: Some(0), ..helper(1, OutsideKind::ContainerEngine) };
        assert_eq!(unseen.in_words(), "codex app-server (uid 0, unix:/tmp/x)");
    }
}
