//! Finds the agents that the command line means.

use machineid_protocol::RunId;
use machineid_protocol::local::StopRequest;
use machineid_protocol::status::AgentReport;

use crate::args::TargetArgs;

/// The request to the daemon, and the agents that it will stop, as far as is known.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) request: StopRequest,
    pub(super) agents: Vec<&'a AgentReport>,
}

/// A word is the name of one agent and the pid of another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{word} is the name of one agent (run {named}) and the pid of another (run {with_pid}); say which by its run id"
)]
pub(super) struct Ambiguous {
    word: String,
    named: RunId,
    with_pid: RunId,
}

/// Fails when a word matches two agents: stopping the wrong one would be worse than asking again.
pub(super) fn choose<'a>(targets: &TargetArgs, agents: &'a [AgentReport]) -> Result<Choice<'a>, Ambiguous> {
    let pick = |request, picks: &dyn Fn(&AgentReport) -> bool| {
        Ok(Choice { request, agents: agents.iter().filter(|agent| picks(agent)).collect() })
    };
    if targets.all {
        return pick(StopRequest::All(true), &|_| true);
    }
    if let Some(device) = &targets.device {
        return pick(StopRequest::Device(device.clone()), &|agent| agent.device_id == *device);
    }
    let word = targets.agent.as_deref().unwrap_or_default();
    if let Ok(run) = word.parse() {
        return pick(StopRequest::RunId(run), &|agent| agent.run_id == run);
    }
    let is_named = |agent: &AgentReport| agent.name.as_deref() == Some(word);
    let Some(pid) = word.parse().ok().filter(|pid: &i32| *pid > 0) else {
        return pick(StopRequest::Name(word.to_owned()), &is_named);
    };
    let has_pid = |agent: &AgentReport| agent.pid.and_then(|own| i32::try_from(own).ok()) == Some(pid);
    let named = agents.iter().find(|agent| is_named(agent));
    match (named, agents.iter().find(|agent| has_pid(agent))) {
        (Some(named), Some(other)) if named.run_id != other.run_id => {
            Err(Ambiguous { word: word.to_owned(), named: named.run_id, with_pid: other.run_id })
        }
        (Some(_), None) => pick(StopRequest::Name(word.to_owned()), &is_named),
        (Some(_) | None, Some(_)) | (None, None) => pick(StopRequest::Pid(pid), &has_pid),
    }
}

/// Why no agent matched, and which agents could be named.
pub(super) fn no_match(targets: &TargetArgs, agents: &[AgentReport]) -> String {
    if agents.is_empty() {
        return "no agent runs here that you could stop; those of other users and containers are root's to see (sudo \
                machineid status, on the host)"
            .to_owned();
    }
    let what = match (&targets.device, &targets.agent) {
        (Some(device), _) => format!("no agent runs as device {device}"),
        (None, Some(word)) => format!("no agent has the name, pid or run id {word}"),
        (None, None) => "no agent matched".to_owned(),
    };
    format!("{what}; these run: {}", labels(agents.iter()))
}

/// Agents without a name are shown by their command, up to this length.
const LONGEST: usize = 20;

/// The name of an agent for users.
pub(super) fn label(agent: Option<&AgentReport>, run: &str) -> String {
    let Some(agent) = agent else { return run.to_owned() };
    let command = || {
        let command = agent.command.join(" ");
        let short: String = command.chars().take(LONGEST).collect();
        if short.len() < command.len() { short + "…" } else { command }
    };
    let name = agent.name.clone().unwrap_or_else(command);
    let name = if name.is_empty() { run.to_owned() } else { name };
    agent.pid.map_or(name.clone(), |pid| format!("{name} (pid {pid})"))
}

/// The names of several agents, as many as fit into a line.
pub(super) fn labels<'a>(agents: impl ExactSizeIterator<Item = &'a AgentReport>) -> String {
    let more = agents.len().saturating_sub(SHOWN);
    let mut labels: Vec<String> =
        agents.take(SHOWN).map(|agent| label(Some(agent), &agent.run_id.to_string())).collect();
    if more > 0 {
        labels.push(format!("{more} more"));
    }
    labels.join(", ")
}

const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn agent(run: u32, name: Option<&str>, pid: u32) -> AgentReport {
        serde_json::from_value(json!({
            "run_id": format!("{run:032x}"), "pid": pid, "name": name, "command": ["python3", "a.py"],
            "device_id": format!("device:{run}"), "uid": 1000, "started_at": "", "uptime_ms": 1, "lease_left_ms": 1,
            "state": "running", "stop_code": null, "containment": "cgroup", "holds_against": "bugs",
            "containment_reason": null, "frozen": false, "killer": "daemon"
        }))
        .unwrap()
    }

    fn word(text: &str) -> TargetArgs {
        TargetArgs { agent: Some(text.to_owned()), device: None, all: false }
    }

    fn chosen(targets: &TargetArgs, agents: &[AgentReport]) -> (StopRequest, usize) {
        let choice = choose(targets, agents).unwrap();
        (choice.request, choice.agents.len())
    }

    #[test]
    fn a_word_is_a_run_id_a_name_or_a_pid() {
        let agents = [agent(1, Some("scraper"), 10), agent(2, Some("scraper"), 11), agent(3, None, 12)];
        assert_eq!(chosen(&word("scraper"), &agents), (StopRequest::Name("scraper".to_owned()), 2));
        assert_eq!(chosen(&word("12"), &agents), (StopRequest::Pid(12), 1));
        assert_eq!(chosen(&word("13"), &agents), (StopRequest::Pid(13), 0));
        assert_eq!(chosen(&word("-12"), &agents), (StopRequest::Name("-12".to_owned()), 0));
        let run = format!("{:032x}", 3);
        assert_eq!(chosen(&word(&run), &agents), (StopRequest::RunId(run.parse().unwrap()), 1));
        let device: machineid_protocol::DeviceId = "device:2".parse().unwrap();
        let targets = TargetArgs { agent: None, device: Some(device.clone()), all: false };
        assert_eq!(chosen(&targets, &agents), (StopRequest::Device(device), 1));
        let targets = TargetArgs { agent: None, device: None, all: true };
        assert_eq!(chosen(&targets, &agents), (StopRequest::All(true), 3));
    }

    #[test]
    fn a_number_may_be_a_name_but_not_two_agents() {
        let agents = [agent(1, Some("12"), 10), agent(2, Some("7"), 7), agent(3, None, 12)];
        assert!(choose(&word("12"), &agents).unwrap_err().to_string().contains("by its run id"));
        assert_eq!(chosen(&word("12"), &agents[..1]), (StopRequest::Name("12".to_owned()), 1));
        assert_eq!(chosen(&word("7"), &agents), (StopRequest::Pid(7), 1));
    }

    #[test]
    fn who_meant_nobody_is_told_who_there_is() {
        let agents = [agent(1, Some("scraper"), 10), agent(3, None, 12)];
        let text = no_match(&word("scrapper"), &agents);
        assert_eq!(
            text,
            "no agent has the name, pid or run id scrapper; these run: scraper (pid 10), python3 a.py (pid 12)"
        );
        assert!(no_match(&word("x"), &[]).contains("no agent runs here"));
    }
}
