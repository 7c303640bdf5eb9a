//! How a run ended: the exit code, the line on stderr, and the status file's JSON.

use std::fmt::Write;

use machineid_protocol::outside::{OutsideHelper, still_running};
use machineid_protocol::{Code, Containment, DeviceId, Exit, RequestId, RunId, oom_in_words};
use machineid_tree::{NamedProcess, OomWatch, StopSummary};
use serde::Serialize;

/// How many processes that a command left running are named on stderr; the status file has more.
const LEFTOVERS_IN_LINE: usize = 8;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EndCause {
    /// The command ended with an exit code.
    Exited,
    /// A signal ended the command.
    Signalled,
    /// Denied, before the start or while it ran.
    Denied,
    /// The lease ended.
    LeaseExpired,
    /// Whether the command may run could not be found out.
    CouldNotAsk,
    /// A signal ended the wrapper before the command was started.
    NotStarted,
    /// The command was not found or cannot be executed.
    CannotExecute,
    /// A daemon of the agent runs outside its tree.
    HelperOutside,
    /// The wrapper itself failed, or asked a question that the daemon refuses.
    WrapperFailed,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunOutcome {
    pub(super) exit: Exit,
    pub(super) cause: EndCause,
    pub(super) code: Option<Code>,
    pub(super) request_id: Option<RequestId>,
    pub(super) reason: Option<String>,
    pub(super) signal: Option<i32>,
    /// Whether the command had been started.
    pub(super) started: bool,
}

impl RunOutcome {
    /// The command ended by itself.
    pub(super) fn of_command(exit: Exit) -> Self {
        let signal = match exit {
            Exit::Signal(signal) => Some(i32::from(signal)),
            Exit::Success
            | Exit::Failure
            | Exit::Usage
            | Exit::Waiting
            | Exit::Blocked
            | Exit::Undecided
            | Exit::Denied
            | Exit::Wrapper
            | Exit::NotExecutable
            | Exit::NotFound
            | Exit::Command(_) => None,
        };
        let cause = if signal.is_some() { EndCause::Signalled } else { EndCause::Exited };
        Self { exit, cause, code: None, request_id: None, reason: None, signal, started: true }
    }

    /// Nothing was started; `reason` says why.
    pub(super) fn before_start(exit: Exit, cause: EndCause, reason: impl Into<String>) -> Self {
        Self { exit, cause, code: None, request_id: None, reason: Some(reason.into()), signal: None, started: false }
    }

    /// The command ran and was stopped.
    pub(super) const fn stopped(exit: Exit, cause: EndCause, code: Option<Code>) -> Self {
        Self { exit, cause, code, request_id: None, reason: None, signal: None, started: true }
    }

    /// Whether the command ran and was ended by its supervisors.
    pub(super) const fn was_stopped(&self) -> bool {
        match self.cause {
            EndCause::Denied | EndCause::LeaseExpired | EndCause::CouldNotAsk | EndCause::WrapperFailed => self.started,
            EndCause::Exited
            | EndCause::Signalled
            | EndCause::NotStarted
            | EndCause::CannotExecute
            | EndCause::HelperOutside => false,
        }
    }

    /// The line for stderr about processes that the command left running and that were ended; `None` when there were
    /// none, or the command did not end by itself.
    pub(super) fn leftovers(&self, stop: &StopSummary) -> Option<String> {
        let list = self.ended_leftovers(stop);
        let first = list.first()?;
        let shown = |process: &NamedProcess| format!("{} ({})", printable(&process.name), process.pid);
        let mut names = list.iter().take(LEFTOVERS_IN_LINE).map(shown).collect::<Vec<_>>().join(", ");
        let more = stop.signalled.max(list.len()).saturating_sub(LEFTOVERS_IN_LINE);
        if more > 0 {
            let _ = write!(names, " and {more} more");
        }
        let count = stop.signalled.max(list.len());
        let line = if count == 1 {
            format!("ended a process that was left running: {}", shown(first))
        } else {
            format!("ended {count} processes that were left running: {names}")
        };
        Some(format!("machineid-run: {line}; --leftovers wait lets them go on, supervised"))
    }

    /// The processes that the command left running and that were ended.
    fn ended_leftovers<'a>(&self, stop: &'a StopSummary) -> &'a [NamedProcess] {
        if self.cause == EndCause::Exited { &stop.named } else { &[] }
    }

    /// The line for stderr; `None` when the command simply ended.
    pub(super) fn line(&self) -> Option<String> {
        let what = match (self.cause, self.started) {
            (EndCause::Exited | EndCause::Signalled, _) => return None,
            (EndCause::Denied, false) => "denied, nothing was started",
            (EndCause::LeaseExpired | EndCause::CouldNotAsk, false) => {
                "could not find out whether it may run, nothing was started"
            }
            (EndCause::Denied | EndCause::LeaseExpired | EndCause::CouldNotAsk, true) => "stopped",
            (EndCause::NotStarted, _) => "interrupted, nothing was started",
            (EndCause::CannotExecute, _) => "cannot execute the command",
            (EndCause::HelperOutside, _) => "refused, nothing was started",
            (EndCause::WrapperFailed, false) => "failed, nothing was started",
            (EndCause::WrapperFailed, true) => "failed",
        };
        let mut line = format!("machineid-run: {what}");
        if let Some(code) = &self.code {
            let _ = write!(line, ": {code}");
        }
        if let Some(id) = &self.request_id {
            let _ = write!(line, " (request_id {id})");
        }
        if let Some(reason) = &self.reason {
            let _ = write!(line, ": {}", printable(reason));
        }
        Some(line)
    }

    /// The line for stderr about processes that the kernel ended for lack of memory; `None` when the command did not end of it,
    /// as far as can be told: it succeeded, or the count is the whole host's and nothing of the command's end points to it.
    pub(super) fn out_of_memory(&self, kills: OomKills) -> Option<String> {
        let killed = matches!(self.exit, Exit::Signal(9) | Exit::Command(137));
        let of_it = match kills {
            OomKills::None => return None,
            OomKills::OfGroup(_) => self.exit != Exit::Success,
            OomKills::OfHost(_) => killed,
        };
        let ended = matches!(self.cause, EndCause::Exited | EndCause::Signalled);
        (of_it && ended).then(|| format!("machineid-run: {}", kills.in_words()))
    }

    /// What a stop leaves outside the tree, to be put behind the line; empty when it leaves nothing, and when nothing was stopped.
    pub(super) fn left_outside(&self, outside: &[OutsideHelper]) -> String {
        // The daemon ends helpers for a deny and at the end of a lease, not because a supervisor failed.
        let ends = self.cause != EndCause::WrapperFailed;
        let outside: Vec<_> =
            outside.iter().cloned().map(|helper| OutsideHelper { ending: helper.ending && ends, ..helper }).collect();
        let left = still_running(&outside).filter(|_| self.was_stopped());
        left.map(|left| format!("; {}", printable(&left))).unwrap_or_default()
    }
}

/// Processes that the kernel has ended for lack of memory while the command ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OomKills {
    #[default]
    None,
    /// In the control group of the command.
    OfGroup(u64),
    /// On this host, where the group's own are not counted.
    OfHost(u64),
}

impl OomKills {
    pub(super) fn since(watch: Option<&OomWatch>) -> Self {
        match watch.map(|watch| (watch.kills(), watch.is_of_the_host())) {
            None | Some((0, _)) => Self::None,
            Some((kills, false)) => Self::OfGroup(kills),
            Some((kills, true)) => Self::OfHost(kills),
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::None => String::new(),
            Self::OfGroup(kills) => oom_in_words(kills),
            Self::OfHost(_) => {
                "the command was killed, and the kernel ended processes on this machine for lack of memory \
                                meanwhile (OOM kill; dmesg names them)"
                    .to_owned()
            }
        }
    }

    /// The number for the status file: the host's count says nothing of this run.
    const fn count(self) -> u64 {
        match self {
            Self::None | Self::OfHost(_) => 0,
            Self::OfGroup(kills) => kills,
        }
    }
}

/// Makes foreign text fit for a terminal: one line, no control characters, of bounded length.
pub(super) fn printable(text: &str) -> String {
    machineid_protocol::printable::printable(text, '?').take(500).collect()
}

/// The content of `--status-file`.
#[derive(Debug, Serialize)]
pub(super) struct StatusFile<'a> {
    run_id: RunId,
    device_id: Option<&'a DeviceId>,
    exit_code: u8,
    cause: EndCause,
    code: Option<&'a Code>,
    request_id: Option<&'a RequestId>,
    reason: Option<&'a str>,
    /// The signal that ended the command.
    signal: Option<i32>,
    /// How the tree was held together; null when nothing was started.
    containment: Option<Containment>,
    /// How many processes the wrapper sent the stop signal; 0 when the daemon did.
    signalled: usize,
    /// How many processes the wrapper sent SIGKILL.
    killed: usize,
    /// Milliseconds from the beginning of the stop to the last process gone; null without a stop, and when no process
    /// was left by the time the wrapper learnt of it.
    took_ms: Option<u64>,
    /// Processes that were left although SIGKILL was sent.
    survivors: Vec<SurvivorLine>,
    /// Processes that the command left running and that were ended; the first 64 of them.
    leftovers: Vec<LeftoverLine>,
    /// How many processes of the command's control group the kernel ended for lack of memory.
    oom_kills: u64,
    /// Processes outside the tree that the agent used, and that run on after a stop as far as is known.
    outside: &'a [OutsideHelper],
}

#[derive(Debug, Serialize)]
struct LeftoverLine {
    pid: i32,
    name: String,
}

#[derive(Debug, Serialize)]
struct SurvivorLine {
    pid: i32,
    reason: &'static str,
}

/// The status file's text.
pub(super) fn status_json(
    outcome: &RunOutcome,
    run_id: RunId,
    device_id: Option<&DeviceId>,
    (containment, outside): (Option<Containment>, &[OutsideHelper]),
    stop: Option<&StopSummary>,
    oom: OomKills,
) -> String {
    let survivors = stop.map_or(&[][..], |stop| &stop.survivors);
    let survivors = survivors
        .iter()
        .map(|survivor| SurvivorLine { pid: survivor.pid.as_raw(), reason: survivor.reason.in_words() })
        .collect();
    let status = StatusFile {
        run_id,
        device_id,
        exit_code: outcome.exit.code(),
        cause: outcome.cause,
        code: outcome.code.as_ref(),
        request_id: outcome.request_id.as_ref(),
        reason: outcome.reason.as_deref(),
        signal: outcome.signal,
        containment,
        signalled: stop.map_or(0, |stop| stop.signalled),
        killed: stop.map_or(0, |stop| stop.killed),
        took_ms: stop.map(|stop| u64::try_from(stop.took.as_millis()).unwrap_or(u64::MAX)),
        survivors,
        leftovers: stop
            .map_or(&[][..], |stop| outcome.ended_leftovers(stop))
            .iter()
            .map(|process| LeftoverLine { pid: process.pid.as_raw(), name: printable(&process.name) })
            .collect(),
        oom_kills: oom.count(),
        outside,
    };
    // Strings and numbers only: nothing in it can fail to be written.
    serde_json::to_string(&status).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_code_request_id_and_reason_and_nothing_that_moves_a_cursor() {
        let outcome = RunOutcome {
            exit: Exit::Denied,
            cause: EndCause::Denied,
            code: Some(Code::DeviceRevoked),
            request_id: RequestId::from_foreign("r-1"),
            reason: Some("by\n\u{1b}[2Jadmin".to_owned()),
            signal: None,
            started: true,
        };
        let line = outcome.line().unwrap();
        assert_eq!(line, "machineid-run: stopped: DEVICE_REVOKED (request_id r-1): by??[2Jadmin");
    }

    #[test]
    fn what_a_normal_end_stopped_is_named_with_the_way_to_keep_it() {
        let process =
            |pid, name: &str| NamedProcess { pid: machineid_tree::Pid::new(pid).unwrap(), name: name.to_owned() };
        let mut stop = StopSummary {
            containment: Containment::Subreaper,
            signalled: 2,
            killed: 0,
            took: std::time::Duration::ZERO,
            survivors: Vec::new(),
            named: vec![process(4711, "gradle"), process(4712, "no\n\u{1b}de")],
        };
        let ended = RunOutcome::of_command(Exit::Success);
        assert_eq!(
            ended.leftovers(&stop).unwrap(),
            "machineid-run: ended 2 processes that were left running: gradle (4711), no??de (4712); --leftovers wait lets \
             them go on, supervised"
        );
        let json = |outcome| {
            let run = "00000000000000000000000000000007".parse().unwrap();
            status_json(outcome, run, None, (None, &[]), Some(&stop), OomKills::OfGroup(2))
        };
        assert!(json(&ended).contains(r#""leftovers":[{"pid":4711,"name":"gradle"},{"pid":4712,"name":"no??de"}]"#));
        assert!(json(&ended).contains(r#""oom_kills":2"#));
        // After a stop nothing was left running by the command.
        let stopped = RunOutcome::stopped(Exit::Denied, EndCause::Denied, None);
        assert_eq!(stopped.leftovers(&stop), None);
        assert!(json(&stopped).contains(r#""leftovers":[]"#));
        stop.named = (1..=64).map(|number| process(number + 10, "sh")).collect();
        stop.signalled = 100;
        let line = ended.leftovers(&stop).unwrap();
        assert!(line.contains("ended 100 processes") && line.contains("sh (18) and 92 more;"), "{line}");
    }

    #[test]
    fn what_a_stop_leaves_outside_is_named_and_what_an_end_leaves_is_not() {
        let daemon = OutsideHelper {
            pid: Some(4711),
            exe: None,
            uid: Some(1000),
            via: "unix:/tmp/x".to_owned(),
            kind: machineid_protocol::outside::OutsideKind::AgentDaemon,
            name: "codex\u{1b} app-server".to_owned(),
            ending: false,
        };
        let stopped = RunOutcome::stopped(Exit::Denied, EndCause::Denied, Some(Code::DeviceRevoked));
        assert_eq!(
            stopped.left_outside(std::slice::from_ref(&daemon)),
            "; still running outside: codex? app-server (pid 4711), which this agent used"
        );
        assert_eq!(stopped.left_outside(&[]), "");
        assert_eq!(RunOutcome::of_command(Exit::Command(0)).left_outside(&[daemon]), "");
    }

    #[test]
    fn a_kill_for_lack_of_memory_is_named_where_it_can_be_the_cause() {
        let ended = RunOutcome::of_command;
        let group = OomKills::OfGroup(1);
        let line = ended(Exit::Signal(9)).out_of_memory(group).unwrap();
        assert!(line.contains("the kernel ended a process of its control group for lack of memory"), "{line}");
        // A shell tells its child's end by its own code.
        assert!(ended(Exit::Command(137)).out_of_memory(OomKills::OfHost(1)).is_some());
        assert!(ended(Exit::Command(1)).out_of_memory(group).is_some());
        assert_eq!(ended(Exit::Command(1)).out_of_memory(OomKills::OfHost(1)), None);
        assert_eq!(ended(Exit::Success).out_of_memory(group), None);
        assert_eq!(ended(Exit::Signal(9)).out_of_memory(OomKills::None), None);
        let stopped = RunOutcome::stopped(Exit::Denied, EndCause::Denied, None);
        assert_eq!(stopped.out_of_memory(group), None);
    }

    #[test]
    fn a_command_that_simply_ends_is_not_commented_on() {
        assert_eq!(RunOutcome::of_command(Exit::Command(3)).line(), None);
        assert_eq!(RunOutcome::of_command(Exit::Signal(9)).signal, Some(9));
    }
}
