//! The client at the other end of a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use machineid_sys as sys;
use machineid_tree::{Identity, Pid, PidNamespaces, Process, ProcessEntry};
use rustix::io::Errno;

use crate::registry::{Run, RunRegistry};

/// The client of one connection, as the kernel reports it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    uid: u32,
    /// `None` when the client is in a PID namespace that the daemon's does not contain.
    pid: Option<Pid>,
    pidfd: Option<Arc<OwnedFd>>,
    /// The effective and supplementary groups; none when unknown.
    groups: Arc<[u32]>,
    known: Arc<Mutex<Option<Known>>>,
}

/// The runs whose tree the client is in, as of this generation of the roster.
#[derive(Debug)]
struct Known {
    generation: u64,
    /// Weak: an idle connection must not keep a run's gates running.
    runs: Vec<Weak<Run>>,
}

impl Peer {
    /// Asks the kernel for the peer of a socket. Fails when the socket is not a unix socket or has lost its peer.
    pub(crate) fn of(socket: impl AsFd) -> io::Result<Self> {
        let credentials = sys::peer_credentials(socket.as_fd())?;
        let pidfd = sys::peer_pidfd(socket.as_fd()).ok().flatten().map(Arc::new);
        let supplementary = sys::peer_groups(socket.as_fd()).unwrap_or_default();
        let groups = std::iter::once(credentials.gid).chain(supplementary).collect();
        Ok(Self { uid: credentials.uid, pid: Pid::new(credentials.pid), pidfd, groups, known: Arc::default() })
    }

    /// The runs whose tree the client is in; determined once for each connection, until a run is added or removed.
    ///
    /// The result stays right as long as the runs are the same: a process only loses ancestors, since an orphan is inherited
    /// by a process that it descends from already. A client whose supervisors have died still counts as theirs.
    ///
    /// Fails when that is unknown, which must not read as "in no run".
    pub(crate) fn runs(&self, runs: &RunRegistry) -> io::Result<Vec<Arc<Run>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the look: a run added meanwhile makes the result out of date.
        let generation = runs.generation();
        if let Some(known) = known.as_ref().filter(|known| known.generation == generation) {
            let living: Vec<_> = known.runs.iter().filter_map(Weak::upgrade).collect();
            if living.len() == known.runs.len() {
                return Ok(living);
            }
        }
        let found = runs.containing(|| self.seen())?;
        *known = Some(Known { generation, runs: found.iter().map(Arc::downgrade).collect() });
        Ok(found)
    }

    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether the client is root or the daemon's own user.
    pub(crate) fn is_privileged(&self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }

    /// Whether the client was in this group when it connected. Group ids are those of the daemon's user namespace.
    pub(crate) fn is_member(&self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// Whether the client is a user that the daemon's user namespace cannot map. Such a client may only check.
    pub(crate) fn is_unmapped_user(&self) -> bool {
        machineid_sockets::is_ambiguous(self.uid)
    }

    /// The PID namespaces that the client is in, as far as the daemon can tell.
    pub(crate) fn namespaces(&self) -> PidNamespaces {
        self.identity().ok().flatten().map(PidNamespaces::of).unwrap_or_default()
    }

    /// Whether the client is in the daemon's own PID and user namespaces; `false` when unknown.
    pub(crate) fn is_in_our_namespaces(&self) -> bool {
        self.namespaces().is_callers() && self.is_in_our_user_namespace()
    }

    /// Whether the client is in the daemon's own user namespace; `false` when unknown.
    ///
    /// Compares the uid maps, which tell apart any two namespaces that could be mistaken for each other: reading
    /// `/proc/<pid>/ns` needs rights over the process that the daemon may not have.
    pub(crate) fn is_in_our_user_namespace(&self) -> bool {
        let map = |process: &str| std::fs::read_to_string(format!("/proc/{process}/uid_map")).ok();
        let theirs = self.pid.and_then(|pid| map(&pid.to_string()));
        theirs.is_some() && theirs == map("self") && self.identity().is_ok_and(|identity| identity.is_some())
    }

    /// The client's process, held by a descriptor: it cannot be mistaken for a later process with the same number. `None`
    /// when it has ended or cannot be seen from here.
    ///
    /// Fails when that is unknown (no descriptor left), which must not read as "not an agent".
    pub(crate) fn process(&self) -> io::Result<Option<Process>> {
        let Some(pid) = self.pid else { return Ok(None) };
        Ok(match &self.pidfd {
            Some(pidfd) => Process::from_pidfd(pid, pidfd.try_clone()?)?,
            // On kernels before 6.5 the number is all there is. It was right when the connection was made.
            None => Process::pin_any(pid)?,
        })
    }

    /// The identity of the client's process; `None` when it is in another PID namespace, or hidden from the daemon's user
    /// (`hidepid`).
    ///
    /// Fails as [`Peer::process`] does, and when the process has ended: the process that holds its connection now may be in
    /// the same runs.
    fn seen(&self) -> io::Result<Option<Identity>> {
        let identity = self.identity()?;
        let Some(pid) = self.pid.filter(|_| identity.is_none()) else { return Ok(identity) };
        let number = rustix::process::Pid::from_raw(pid.as_raw());
        let hidden = number.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::PERM));
        if hidden && ProcessEntry::read(pid)?.is_none() {
            return Ok(None);
        }
        Err(io::Error::other("the process that connected has ended"))
    }

    /// The identity of the client's process. Fails as [`Peer::process`] does.
    pub(crate) fn identity(&self) -> io::Result<Option<Identity>> {
        Ok(self.process()?.map(|process| process.identity()))
    }
}
