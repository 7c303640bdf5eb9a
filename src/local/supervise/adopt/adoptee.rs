//! The process that is to be adopted: found, looked at, and refused in one sentence where it must not be supervised.

use std::sync::Arc;

use machineid_outside::{Proc, Processes as _};
use machineid_protocol::Code;
use machineid_sys as sys;
use machineid_tree::{Pid, PidNamespaces, Process, ProcessTable, Tree, Users};

use super::gather;
use super::kernel_thread::is_kernel_thread;
use crate::local::Context;
use crate::local::peer::Peer;
use crate::local::rights::AgentScope;
use crate::local::supervise::StartRefusal;
use crate::local::supervise::request;
use crate::registry::Run;
use crate::telemetry::AgentOwner;

/// A process that may be adopted.
#[derive(Debug)]
pub(super) struct Adoptee {
    pub(super) process: Process,
    pub(super) owner: AgentOwner,
    pub(super) command: Vec<String>,
    /// Its tree, which knows the members that several looks have found.
    pub(super) tree: Tree,
}

/// Finds the process and checks that this client may adopt it.
pub(super) fn find(context: &Context, peer: &Peer, pid: i32) -> Result<Adoptee, StartRefusal> {
    if !peer.namespaces().is_callers() {
        return Err(refused(
            "name the process from the daemon's own PID namespace, on the host: elsewhere its number is \
                            another process's",
        ));
    }
    let number = Pid::new(pid).ok_or_else(|| StartRefusal::new(Code::BadRequest, "a pid is a number above 0"))?;
    if number.is_init() {
        return Err(refused(
            "process 1 is the first process of this host or container, and every process is in its tree",
        ));
    }
    let gone = || refused(format!("there is no process {pid}; did it end?"));
    let process = Process::pin_any(number).map_err(|errno| overloaded(&errno))?.ok_or_else(gone)?;
    let stat = std::fs::read(format!("/proc/{pid}/stat")).map_err(|_| gone())?;
    let status = std::fs::read(format!("/proc/{pid}/status")).map_err(|_| gone())?;
    if is_kernel_thread(&stat) {
        return Err(refused(format!("process {pid} is a thread of the kernel")));
    }
    let users = Users::parse(&status).ok_or_else(gone)?;
    let owner = AgentOwner { uid: users.real, namespaces: PidNamespaces::of(process.identity()) };
    let scope = AgentScope::of(peer, &context.settings());
    if !(scope.is_all() || (users.are_one() && scope.covers(&owner))) {
        return Err(refused(format!(
            "process {pid} runs as uid {}, and uid {} may adopt its own processes only (root, the daemon's user and \
             local.admin_group may adopt those of all users)",
            users.shown(),
            peer.uid()
        )));
    }
    let table = ProcessTable::scan().map_err(|errno| overloaded(&errno))?;
    if number == Pid::own() || table.is_descendant(number, Pid::own()) {
        return Err(refused(format!("the tree of process {pid} holds this daemon, which cannot stop itself")));
    }
    if peer.pid().is_some_and(|asker| asker == number || table.is_descendant(number, asker)) {
        return Err(refused(format!(
            "the tree of process {pid} holds the process that asks; ask from outside of it, as from another terminal"
        )));
    }
    let supervised = context.runs.containing(|| Ok(Some(process.identity())));
    let supervised = supervised.map_err(|error| refused(format!("process {pid}: {error}")))?;
    if let Some(run) = supervised.first() {
        return Err(refused(format!("process {pid} is supervised already, as run {}", run.id())));
    }
    check_apart_in(&table, context, None, number)?;
    if process.has_exited().unwrap_or(true) {
        return Err(ended(pid));
    }
    if !sys::may_signal(&process) {
        return Err(refused(format!(
            "the daemon may not signal process {pid} (uid {}), so it could not stop it; run the daemon as root",
            users.shown()
        )));
    }
    let arguments = Proc.program(number).map(|program| program.args).unwrap_or_default();
    let command: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut tree = Tree::alone(process.identity(), None).without_group();
    gather::settle(&mut tree).map_err(|errno| overloaded(&errno))?;
    if !scope.is_all() {
        check_users(&mut tree, users.real)?;
    }
    Ok(Adoptee { process, owner, command: request::command_for_people(&command), tree })
}

/// Checks that all processes of a tree are of this user, who could otherwise end through the daemon what the kernel lets the
/// user send no signal to, such as what was started with sudo.
fn check_users(tree: &mut Tree, owner: u32) -> Result<(), StartRefusal> {
    let table = ProcessTable::scan().map_err(|errno| overloaded(&errno))?;
    for member in tree.members(&table) {
        let pid = member.identity.pid;
        let Ok(status) = std::fs::read(format!("/proc/{pid}/status")) else { continue };
        let Some(users) = Users::parse(&status) else { continue };
        if !users.are_one() || users.real != owner {
            return Err(refused(format!(
                "the tree holds process {pid}, which runs as uid {}; root, the daemon's user and local.admin_group may adopt \
                 processes of several users",
                users.shown()
            )));
        }
    }
    Ok(())
}

/// Checks that no other run is in the tree of this process.
pub(super) fn check_apart(context: &Context, own: &Arc<Run>, leader: Pid) -> Result<(), StartRefusal> {
    let table = ProcessTable::scan().map_err(|errno| overloaded(&errno))?;
    check_apart_in(&table, context, Some(own), leader)
}

fn check_apart_in(
    table: &ProcessTable,
    context: &Context,
    own: Option<&Arc<Run>>,
    leader: Pid,
) -> Result<(), StartRefusal> {
    let within = |pid: Pid| pid == leader || table.is_descendant(leader, pid);
    for run in context.runs.all().iter().filter(|run| own.is_none_or(|own| !Arc::ptr_eq(own, run))) {
        let processes = run.leader().into_iter().chain(run.wrapper());
        if processes.map(|process| process.pid).any(within) {
            return Err(refused(format!(
                "the tree of process {leader} holds a supervised agent, run {}; stop that one first, or adopt a process \
                 beside it",
                run.id()
            )));
        }
    }
    Ok(())
}

pub(super) fn ended(pid: impl std::fmt::Display) -> StartRefusal {
    refused(format!("process {pid} has ended meanwhile"))
}

pub(super) fn refused(reason: impl Into<String>) -> StartRefusal {
    StartRefusal::new(Code::PidNotPermitted, reason)
}

fn overloaded(errno: &dyn std::fmt::Display) -> StartRefusal {
    StartRefusal::new(Code::Overloaded, format!("cannot look at the processes of this host: {errno}"))
}
