//! `machineid stop`: ends agents on this host, without the authority, and waits for their end.
//!
//! | file | concept |
//! |---|---|
//! | `choose` | pure: the agents that the command line means |
//! | `outcome` | pure: the result of a stop, from the daemon's status |
//! | `page` | pure: the outcomes as a table and as JSON |

mod choose;
pub(super) mod outcome;
mod page;

use std::collections::BTreeSet;
use std::time::Duration;

use choose::Choice;
use machineid_clock::BootTime;
use machineid_protocol::local::{CheckAnswer, HoldRequest, StopAnswer, StopRequest};
use machineid_protocol::status::{AgentReport, AgentState, AgentsShown, Status};
use machineid_protocol::{Code, DeviceId, Exit, RunId};
use outcome::{StopOutcome, Stopped};

use super::{release, socket, status};
use crate::args::StopArgs;
use crate::printer::Printer;
use crate::problem::Problem;
use crate::words::{count, millis};
use crate::{Env, confirm};

/// The limit for one answer of the daemon.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// The time in addition to the daemon's own bound, for its answer to arrive on a busy host.
const LENIENCE: Duration = Duration::from_secs(2);
/// The bound of a daemon whose status cannot be read.
const UNKNOWN_BOUND: Duration = Duration::from_mins(1);

pub(crate) async fn run(args: &StopArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    // A stop must not depend on a list: without one the command line alone decides.
    let before = status::ask(&args.socket, env, TIMEOUT).await.map(|(status, _)| status);
    let agents = before.as_ref().map_or(&[][..], |status| &status.agents);
    let choice = choose::choose(&args.targets, agents).map_err(Problem::usage)?;
    // A device can be held while none of its agents runs.
    let may_match_none = args.hold && args.targets.agent.is_none();
    // The daemon cannot tell in which container this command runs: it shows no agents, and stops one by its run id.
    let blind = before.as_ref().is_ok_and(|status| status.agents_shown == Some(AgentsShown::None));
    let may_match_unseen = blind && matches!(choice.request, StopRequest::RunId(_));
    if before.is_ok() && choice.agents.is_empty() && !may_match_none && !may_match_unseen {
        return Err(Problem::failure(choose::no_match(&args.targets, agents)));
    }
    let labels = choose::labels(choice.agents.iter().copied());
    if args.targets.all && !args.yes {
        let seen = before.as_ref().map_err(Problem::undecided).map(|_| choice.agents.len())?;
        printer.note(&format!("these run: {labels}"));
        let and_hold = if args.hold { " and deny every further one" } else { "" };
        let deed = format!("stop {}{and_hold} on this host", count(seen, "agent", "agents"));
        confirm::typed(&deed, seen, "look first with: machineid status", printer)?;
    } else if !labels.is_empty() {
        printer.note(&format!("stopping {labels}"));
    }
    let (runs, held) = if args.hold {
        if let Err(why) = &before {
            return Err(Problem::undecided(why));
        }
        hold(args, env, &choice, printer).await?
    } else {
        (request_stop(&args.socket, env, &choice).await?, Vec::new())
    };
    let known = |run: &RunId| agents.iter().find(|agent| agent.run_id == *run).cloned();
    let mut stopped: Vec<Stopped> =
        runs.iter().map(|run| Stopped { run: *run, agent: known(run), outcome: StopOutcome::Requested }).collect();
    if args.no_wait || blind {
        page::show(&stopped, &held, args.json, printer);
        return Ok(Exit::Success);
    }
    let bound = before.as_ref().map_or(UNKNOWN_BOUND, longest);
    wait(&args.socket, env, &mut stopped, bound, printer).await?;
    page::show(&stopped, &held, args.json, printer);
    Ok(if stopped.iter().all(|one| one.outcome.is_complete()) { Exit::Success } else { Exit::Failure })
}

/// The longest time that a stop may take from now on; any grace period is included.
pub(super) fn longest(status: &Status) -> Duration {
    Duration::from_millis(status.stop_bound.connected_ms) + LENIENCE
}

/// Sends the request and returns the runs that it affects: those that it began to stop, and those that were already
/// ending.
async fn request_stop(
    socket: &crate::args::SocketArgs,
    env: Env<'_>,
    choice: &Choice<'_>,
) -> Result<Vec<RunId>, Problem> {
    let runs = post(socket, env, &choice.request).await?;
    Ok(with_those_ending(runs, choice))
}

/// Denies the agents' devices on this host, which stops all agents of these devices; also returns the devices.
async fn hold(
    args: &StopArgs,
    env: Env<'_>,
    choice: &Choice<'_>,
    printer: &mut Printer,
) -> Result<(Vec<RunId>, Vec<DeviceId>), Problem> {
    let requests: Vec<HoldRequest> = match (&args.targets.device, args.targets.all) {
        (Some(device), _) => vec![HoldRequest::Device(device.clone())],
        (None, true) => vec![HoldRequest::All(true)],
        (None, false) => {
            let devices: BTreeSet<&DeviceId> = choice.agents.iter().map(|agent| &agent.device_id).collect();
            devices.into_iter().cloned().map(HoldRequest::Device).collect()
        }
    };
    let (mut runs, mut held) = (Vec::new(), Vec::new());
    for request in &requests {
        let answer = release::hold(&args.socket, env, request).await?;
        if let Some(problem) = &answer.problem {
            printer.note(&format!("the hold is in force, but {problem}"));
        }
        runs.extend(answer.run_ids);
        held.extend(answer.devices);
    }
    Ok((with_those_ending(runs, choice), held))
}

fn with_those_ending(mut runs: Vec<RunId>, choice: &Choice<'_>) -> Vec<RunId> {
    let ending = |agent: &&&AgentReport| agent.state == AgentState::Stopping;
    for agent in choice.agents.iter().filter(ending) {
        if !runs.contains(&agent.run_id) {
            runs.push(agent.run_id);
        }
    }
    runs
}

/// Sends `POST /v1/stop` and returns the runs that it began to stop.
pub(super) async fn post(
    socket: &crate::args::SocketArgs,
    env: Env<'_>,
    request: &StopRequest,
) -> Result<Vec<RunId>, Problem> {
    let answer = socket::post(socket, env, "/v1/stop", request, TIMEOUT).await.map_err(Problem::undecided)?;
    if answer.status == 200
        && let Ok(answer) = serde_json::from_slice::<StopAnswer>(&answer.body)
    {
        return Ok(answer.run_ids);
    }
    Err(match serde_json::from_slice::<CheckAnswer>(&answer.body) {
        Ok(said) if said.code == Code::Overloaded => Problem::undecided("the daemon is overloaded; try again"),
        Ok(said) => Problem::failure(said.reason.unwrap_or_else(|| format!("the daemon refused: {}", said.code))),
        Err(_) => Problem::undecided(format!(
            "what listens on {} did not answer like machineid-sidecar (HTTP {}); is it another program's socket, or an older \
             daemon?",
            answer.socket.display(),
            answer.status
        )),
    })
}

/// Waits until every stop has ended or the bound is reached.
async fn wait(
    socket: &crate::args::SocketArgs,
    env: Env<'_>,
    stopped: &mut [Stopped],
    bound: Duration,
    printer: &mut Printer,
) -> Result<(), Problem> {
    let began = BootTime::now();
    loop {
        let now = status::ask(socket, env, TIMEOUT).await;
        let took = BootTime::now().saturating_since(began);
        match now {
            Ok((status, _)) => {
                for one in stopped.iter_mut() {
                    one.look(&status);
                }
            }
            // The daemon may be restarting; its stops continue.
            Err(_) if took < bound => {}
            Err(why) => {
                let text = format!("the stop was requested and is not confirmed: {why}");
                return Err(Problem::undecided(text));
            }
        }
        let left = stopped.iter().filter(|one| !one.outcome.is_over()).count();
        if left == 0 || took >= bound {
            return Ok(());
        }
        let whole = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        printer.progress(&format!(
            "{left} of {} still stopping, {}",
            count(stopped.len(), "agent", "agents"),
            millis(whole)
        ));
        tokio::time::sleep(PAUSE).await;
    }
}
