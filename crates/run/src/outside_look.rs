//! Looks for what the agent uses outside its tree, where the daemon may not read the descriptors of the agent's processes, and
//! tells the daemon. A thread of its own: reading a process may block, and nothing that ends the tree may wait for that. What it
//! tells informs people; it saves and condemns no process.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;

use machineid_clock::BootTime;
use machineid_outside::{Helpers, LOOK, LeftHelper, Looker, Proc, Processes as _, TreeMembers, Via, budget, list};
use machineid_protocol::RunId;
use machineid_protocol::local::OutsideReport;
use machineid_tree::{Guardian, Pid, ProcessTable, Tree};
use nix::poll::{PollFd, PollTimeout, poll};

use super::connection::DaemonConnection;
use super::wire;

/// How long the daemon may take to accept what it is told.
const ANSWER: u16 = 2_000;

/// The niceness of the thread.
const NICENESS: i32 = 10;

/// The thread, once it was needed.
#[derive(Debug, Default)]
pub(super) struct OutsideLooks(Option<SyncSender<Tree>>);

impl OutsideLooks {
    /// Has this tree looked at; returns at once. A look that has not ended stands for this one too.
    pub(super) fn look(&mut self, tree: &Tree, run: RunId, socket: &Path) {
        let send = self.0.get_or_insert_with(|| start(run, socket.to_owned()));
        match send.try_send(tree.clone()) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            // The thread could not be started, or panicked.
            Err(TrySendError::Disconnected(_)) => self.0 = None,
        }
    }
}

fn start(run: RunId, socket: PathBuf) -> SyncSender<Tree> {
    let (send, trees) = mpsc::sync_channel(1);
    // Without a thread the daemon is told nothing, and says so.
    let _ = thread::Builder::new().name("outside".to_owned()).spawn(move || work(&trees, run, &socket));
    send
}

/// Returns when no tree can come any more.
fn work(trees: &Receiver<Tree>, run: RunId, socket: &Path) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    let (mut looker, mut known) = (Looker::default(), Helpers::default());
    let own = [Via::Unix(socket.as_os_str().as_encoded_bytes().to_vec())];
    let uid = rustix::process::geteuid().as_raw();
    for mut tree in trees {
        let now = BootTime::now();
        let (Some(pids), Ok(sockets)) = (members(&mut tree), list(now + LOOK)) else { continue };
        let guardian = tree.guardian().map(Guardian::identity).map(|guardian| guardian.pid);
        let supervisors = [Some(Pid::own()), guardian].into_iter().flatten().collect();
        let members = TreeMembers { run, uid, pids, supervisors };
        let look = looker.look(&[members], true, &sockets, &own, &mut Proc, &mut budget(now));
        for found in look.found {
            known.learn(LeftHelper::seen(found));
        }
        known.forget_ended(|process| Proc.identity(process.pid) == Some(process));
        tell(&OutsideReport { helpers: known.all() }, run, socket);
    }
}

fn members(tree: &mut Tree) -> Option<Vec<Pid>> {
    let members = match tree.members_by_descent() {
        Ok(Some(members)) => members,
        Ok(None) => tree.members(&ProcessTable::scan().ok()?),
        Err(_) => return None,
    };
    Some(members.iter().map(|member| member.identity.pid).collect())
}

/// Tells the daemon. A daemon that does not take it is told again after the next look.
fn tell(report: &OutsideReport, run: RunId, socket: &Path) {
    let request = wire::outside(run, report);
    let Ok(mut connection) = DaemonConnection::open(socket).and_then(|connection| connection.ask(request)) else {
        return;
    };
    while connection.advance().is_empty() {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&connection), connection.interest())];
        if !poll(&mut fds, PollTimeout::from(ANSWER)).is_ok_and(|ready| ready > 0) {
            return;
        }
    }
}
