//! `machineid drill`: starts a canary tree under real enforcement, stops it, and watches until its last process has
//! ended.
//!
//! | file | concept |
//! |---|---|
//! | `canary` | the processes that are hard to kill |
//! | `nest` | where they report, and how they are kept and released |
//! | `report` | the result |
//!
//! The drill does not rely on daemon and wrapper: it holds a pidfd of each canary and waits for that.

mod canary;
mod nest;
mod report;

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Child;
use tokio::task::JoinSet;

use canary::STAYING;
use machineid_clock::BootTime;
use machineid_protocol::local::StopRequest;
use machineid_protocol::status::{AgentReport, Status};
use machineid_protocol::{Exit, RunId};
use machineid_tree::Pid;

use super::interrupt::Interrupt;
use super::stop::outcome::Outcome;
use super::{status, stop, wrapper};
use crate::Env;
use crate::args::{DrillArgs, SocketArgs};
use crate::printer::Printer;
use crate::problem::Problem;
use crate::role::Role;
pub(crate) use canary::live;
use nest::{Canary, Nest};
use report::{End, Report};

/// The limit for one answer of the daemon.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The limit until the wrapper is allowed and the canaries have reported.
const START: Duration = Duration::from_secs(20);
/// The limit for the wrapper's end and the daemon's report once the canaries have ended.
const AFTERMATH: Duration = Duration::from_secs(4);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// The name in `machineid status` during the drill.
const NAME: &str = "machineid-drill";

pub(crate) async fn run(args: &DrillArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let (status, _) = status::ask(&args.socket, env, TIMEOUT).await.map_err(Problem::undecided)?;
    let bound = stop::longest(&status);
    let found = wrapper::find(env).ok_or_else(|| {
        Problem::failure("machineid-run is neither beside this program nor on the search path; install it")
    })?;
    let nest = Nest::make(env).map_err(|error| {
        Problem::failure(format!("no directory for the drill can be made: {error}; name another place in TMPDIR"))
    })?;
    let mut interrupt = Interrupt::watch().map_err(|error| Problem::failure(format!("cannot start: {error}")))?;
    let child = start(&found, args, env, &nest)
        .map_err(|error| Problem::failure(format!("{} cannot be started: {error}", found.path.display())))?;
    let mut drill = Drill { nest, wrapper: child, canaries: Vec::new() };
    let outcome = tokio::select! {
        outcome = drill.perform(args, env, bound, printer) => outcome,
        signal = interrupt.arrived() => Ok(Err(Exit::Signal(signal))),
    };
    let left = drill.clean_up().await;
    if !left.is_empty() {
        let left: Vec<_> = left.iter().map(ToString::to_string).collect();
        printer.note(&format!(
            "machineid: these processes may not be ended by this user: pids {}; as root: kill -9",
            left.join(", ")
        ));
    }
    match outcome? {
        Ok(report) => {
            if args.json {
                printer.json(&report);
            } else {
                report.show(Duration::from_millis(status.stop_bound.connected_ms), printer);
            }
            Ok(if report.passed() { Exit::Success } else { Exit::Failure })
        }
        Err(exit) => {
            let end = if left.is_empty() { "; the canaries are gone" } else { "" };
            printer.note(&format!("machineid: interrupted{end}"));
            Ok(exit)
        }
    }
}

fn start(found: &wrapper::Wrapper, args: &DrillArgs, env: Env<'_>, nest: &Nest) -> std::io::Result<Child> {
    let mut command = tokio::process::Command::from(found.command());
    command.args(["--quiet", "--name", NAME, "--socket"]).arg(super::socket::find(&args.socket, env));
    if let Some(containment) = args.containment {
        command.args(["--containment", containment.as_str()]);
    }
    command.arg("--").args(canary::command(&nest.program(), &nest.socket()));
    // In its own process group, so that a Ctrl-C reaches only the drill, which then cleans up.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(nest.words()?);
    command.spawn()
}

struct Drill {
    nest: Nest,
    wrapper: Child,
    canaries: Vec<Canary>,
}

impl Drill {
    async fn perform(
        &mut self,
        args: &DrillArgs,
        env: Env<'_>,
        bound: Duration,
        printer: &mut Printer,
    ) -> Result<Result<Report, Exit>, Problem> {
        printer.progress("starting a canary tree");
        self.gather().await?;
        let run = self.run()?;
        let agent = agent(&args.socket, env, run).await?;

        let mut watched = JoinSet::new();
        for canary in &self.canaries {
            let watch =
                canary.watch().map_err(|error| Problem::failure(format!("cannot watch the canaries: {error}")))?;
            watched.spawn(watch);
        }
        let asked = BootTime::now();
        stop::post(&args.socket, env, &StopRequest::RunId(run)).await?;
        let mut ends: Vec<(Pid, BootTime)> = Vec::new();
        loop {
            let took = BootTime::now().saturating_since(asked);
            let left = bound.saturating_sub(took);
            printer.progress(&format!("stopped; {} of {} canaries left", watched.len(), self.canaries.len()));
            match tokio::time::timeout(left, watched.join_next()).await {
                Ok(Some(Ok(end))) => ends.push(end),
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let since = |at: BootTime| u64::try_from(at.saturating_since(asked).as_millis()).unwrap_or(u64::MAX);
        self.canaries.sort_by_key(|canary| canary.role);
        let canaries: Vec<End> = self
            .canaries
            .iter()
            .map(|canary| End {
                canary: canary.role,
                pid: canary.pid.as_raw(),
                gone_after_ms: ends.iter().find(|(pid, _)| *pid == canary.pid).map(|(_, at)| since(*at)),
            })
            .collect();
        let survivors: Vec<i32> =
            canaries.iter().filter(|end| end.gone_after_ms.is_none()).map(|end| end.pid).collect();
        let wrapper_exit = tokio::time::timeout(AFTERMATH, self.wrapper.wait()).await.ok().and_then(Result::ok);
        let daemon = account(&args.socket, env, run).await;
        let others_alive = self.others_alive(wrapper_exit.is_some());
        Ok(Ok(Report {
            run_id: run,
            containment: agent.containment,
            holds_against: agent.holds_against,
            containment_reason: agent.containment_reason,
            took_ms: ends.iter().map(|(_, at)| since(*at)).max().unwrap_or(0),
            canaries,
            others_alive,
            survivors,
            daemon,
            wrapper_exit: wrapper_exit.map(code),
        }))
    }

    /// Waits until every canary has reported. If the wrapper ends first, fails with the wrapper's reason.
    async fn gather(&mut self) -> Result<(), Problem> {
        let deadline = tokio::time::Instant::now() + START;
        while !STAYING.iter().all(|role| self.canaries.iter().any(|canary| canary.role == *role)) {
            tokio::select! {
                canary = self.nest.next() => self.canaries.push(
                    canary.map_err(|error| Problem::failure(format!("the canaries cannot report: {error}")))?
                ),
                ended = self.wrapper.wait() => return Err(self.refused(ended)),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Problem::failure(format!(
                        "only {} of {} canaries reported; the wrapper says: {}",
                        self.canaries.len(), STAYING.len(), self.nest.said()
                    )));
                }
            }
        }
        Ok(())
    }

    /// The reason why the wrapper ended without a tree, with the matching exit code.
    fn refused(&self, ended: std::io::Result<ExitStatus>) -> Problem {
        let said = self.nest.said();
        let code = ended.map_or(-1, code);
        let exit = match u8::try_from(code) {
            Ok(code) if code == Exit::Denied.code() => Exit::Denied,
            Ok(code) if code == Exit::Undecided.code() => Exit::Undecided,
            Ok(_) | Err(_) => Exit::Failure,
        };
        let text = if said.is_empty() { format!("the wrapper ended with exit code {code}") } else { said };
        Problem { text: format!("no canary tree was started: {text}"), exit }
    }

    /// The run's id, from the leader's environment.
    fn run(&self) -> Result<RunId, Problem> {
        let leader = self.canaries.iter().find(|canary| canary.role == Role::Leader);
        leader.and_then(|leader| leader.run).ok_or_else(|| {
            Problem::failure("the canary has no run id in its environment: it was not started by machineid-run")
        })
    }

    /// The processes of the run besides the canaries. The wrapper counts once it should have ended.
    fn others_alive(&self, wrapper_ended: bool) -> Vec<i32> {
        if !wrapper_ended {
            return Vec::new();
        }
        let reported = |pid: Pid| self.canaries.iter().any(|canary| canary.pid == pid);
        let left = self.nest.still_here().into_iter().map(|process| process.identity().pid);
        left.filter(|pid| !reported(*pid)).map(Pid::as_raw).collect()
    }

    /// Releases the canaries, kills the remaining ones, and lets the wrapper end. Returns the processes that it may not
    /// kill.
    async fn clean_up(mut self) -> Vec<Pid> {
        for canary in self.canaries.drain(..).filter(|canary| !canary.has_ended()) {
            canary.end();
        }
        // The wrapper's tree has ended, so it ends by itself, with its guardian.
        if tokio::time::timeout(AFTERMATH, self.wrapper.wait()).await.is_err() {
            let _ = self.wrapper.start_kill();
        }
        let until = BootTime::now() + AFTERMATH;
        loop {
            let left = self.nest.still_here();
            let refused: Vec<Pid> = left.iter().filter_map(|process| nest::kill(process).err()).collect();
            if left.is_empty() || BootTime::now() >= until {
                let _ = self.wrapper.try_wait();
                return refused;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The run as the daemon lists it, before it is stopped.
async fn agent(socket: &SocketArgs, env: Env<'_>, run: RunId) -> Result<AgentReport, Problem> {
    let (status, _) = status::ask(socket, env, TIMEOUT).await.map_err(Problem::undecided)?;
    let listed = |status: Status| status.agents.into_iter().find(|agent| agent.run_id == run);
    listed(status).ok_or_else(|| Problem::failure(format!("the daemon does not list the canary tree (run {run})")))
}

/// The daemon's report about the stop, which may take a moment.
async fn account(socket: &SocketArgs, env: Env<'_>, run: RunId) -> Option<machineid_protocol::status::StopReport> {
    let until = BootTime::now() + AFTERMATH;
    loop {
        let status = status::ask(socket, env, TIMEOUT).await;
        let outcome = status.map(|(status, _)| Outcome::of(run, &status));
        match outcome {
            Ok(Outcome::Gone(report)) => return report,
            Ok(Outcome::NotOver(report)) if BootTime::now() >= until => return Some(report),
            Ok(Outcome::Requested) | Err(_) if BootTime::now() >= until => return None,
            Ok(Outcome::NotOver(_) | Outcome::Requested) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
