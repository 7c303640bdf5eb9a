//! A look at what trees are connected to, and what later looks need not find out again. Pure: sockets and processes are told.

use std::collections::{BTreeMap, HashMap, HashSet};

use machineid_protocol::RunId;
use machineid_protocol::outside::OutsideHelper;
use machineid_tree::{Identity, Pid};

use super::budget::Budget;
use super::kinds;
use super::links::{self, Link, Sockets, Via};
use super::processes::{Descriptors, Processes, Program};

/// A tree to look at.
#[derive(Clone, Debug)]
pub struct TreeMembers {
    /// Its run.
    pub run: RunId,
    /// The user of its agent.
    pub uid: u32,
    /// Its processes.
    pub pids: Vec<Pid>,
    /// The processes that supervise it: the daemon, the wrapper, the guardian. They are no helpers.
    pub supervisors: Vec<Pid>,
}

/// A process outside that a tree uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHelper {
    /// The run of the tree.
    pub run: RunId,
    /// The process; `None` when the owner of the socket cannot be seen.
    pub process: Option<Identity>,
    /// The process, described.
    pub helper: OutsideHelper,
}

/// Why a look may have missed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// It ran out of time or entries; the next look goes on.
    Budget,
    /// The caller may not read the descriptors of the tree's processes.
    NotPermitted,
}

/// The result of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Connections that no earlier look has told.
    pub found: Vec<FoundHelper>,
    /// Whether the budget ended before the look.
    pub unfinished: bool,
    /// The runs whose processes the caller may not look at.
    pub not_permitted: Vec<RunId>,
}

/// The holder of a server's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Seen(Identity),
    /// No process that the caller may look at.
    Unseen,
}

/// What looks have found out.
#[derive(Clone, Debug, Default)]
pub struct Looker {
    /// Clients' sockets that need no further look: told, inside a tree, or of no tree.
    settled: HashSet<u64>,
    /// The holders of servers' sockets, by [`Link::key`].
    holders: HashMap<u64, Holder>,
    /// The runs whose processes have all been looked at once.
    known: HashSet<RunId>,
    /// Connections of trees whose server's holder no look has found yet, by the client's socket.
    pending: Vec<(RunId, u64)>,
    /// Where the next look goes on when this one ran out of its budget.
    members_from: Option<Pid>,
    holders_from: Option<Pid>,
}

impl Looker {
    /// Looks at these trees. `all`: there are no others. Connections by `own` addresses are left out: they are this program's.
    pub fn look(
        &mut self,
        trees: &[TreeMembers],
        all: bool,
        sockets: &Sockets,
        own: &[Via],
        processes: &mut dyn Processes,
        budget: &mut Budget,
    ) -> Look {
        let links: Vec<Link> = links::of(sockets).into_iter().filter(|link| !own.contains(&link.via)).collect();
        if sockets.is_complete() {
            let there = sockets.inodes();
            self.settled.retain(|client| there.contains(client));
            self.holders.retain(|key, _| there.contains(key));
        }
        let mut look = Look { unfinished: !sockets.is_complete(), ..Look::default() };
        // What an earlier look began is completed first.
        let pending = std::mem::take(&mut self.pending);
        let mut used = resumed(&pending, trees, &links);
        if used.is_empty() {
            used = self.used(trees, all, &links, processes, budget, &mut look);
        }
        self.search(trees, &used, &links, processes, budget, &mut look);
        for &(tree, at) in &used {
            let (tree, link) = (&trees[tree], &links[at]);
            let Some(holder) = self.holders.get(&link.key()).copied() else {
                self.pending.push((tree.run, link.client));
                continue;
            };
            self.settled.insert(link.client);
            look.found.extend(found(tree, link, holder, processes));
        }
        look
    }

    /// The links that processes of the trees use and that no earlier look has settled, each with its tree.
    fn used(
        &mut self,
        trees: &[TreeMembers],
        all: bool,
        links: &[Link],
        processes: &mut dyn Processes,
        budget: &mut Budget,
        look: &mut Look,
    ) -> Vec<(usize, usize)> {
        let by_client: HashMap<u64, usize> = links.iter().enumerate().map(|(at, link)| (link.client, at)).collect();
        let mut open: HashSet<u64> =
            by_client.keys().copied().filter(|client| !self.settled.contains(client)).collect();
        // A process may be in several trees, of which one is in the other.
        let mut members: BTreeMap<Pid, Vec<usize>> = BTreeMap::new();
        for (at, tree) in trees.iter().enumerate() {
            tree.pids.iter().for_each(|pid| members.entry(*pid).or_default().push(at));
        }
        let is_new = |places: &[usize]| places.iter().any(|&at| !self.known.contains(&trees[at].run));
        // Those of new trees first: they may hold connections that were settled before the tree was there.
        let (new, known): (Vec<Pid>, Vec<Pid>) = members.keys().copied().partition(|pid| is_new(&members[pid]));
        let order = [new, known].map(|pids| from(&pids, self.members_from)).concat();
        let mut used = Vec::new();
        let mut cut = false;
        for pid in order {
            let places = &members[&pid];
            let new = is_new(places);
            if !new && open.is_empty() {
                break;
            }
            let mut held: Vec<usize> = Vec::new();
            let read = budget.for_one(|budget| {
                processes.sockets(pid, budget, &mut |inode| {
                    held.extend(by_client.get(&inode).filter(|_| new || open.contains(&inode)));
                })
            });
            for at in held {
                open.remove(&links[at].client);
                for &place in places {
                    let before = self.known.contains(&trees[place].run) && self.settled.contains(&links[at].client);
                    if !before && !used.contains(&(place, at)) {
                        used.push((place, at));
                    }
                }
            }
            match read {
                Descriptors::All => {}
                Descriptors::NotPermitted => {
                    look.not_permitted.extend(places.iter().map(|&place| trees[place].run));
                }
                Descriptors::Cut if budget.is_spent() => {
                    self.members_from = Some(pid);
                    cut = true;
                    break;
                }
                // It holds more than a look reads of one process.
                Descriptors::Cut => look.unfinished = true,
            }
        }
        look.not_permitted.sort_unstable();
        look.not_permitted.dedup();
        look.unfinished |= cut;
        if !cut {
            self.members_from = None;
            self.known.extend(trees.iter().map(|tree| tree.run));
            if all {
                let there: HashSet<RunId> = trees.iter().map(|tree| tree.run).collect();
                self.known.retain(|run| there.contains(run));
                // Of no tree.
                self.settled.extend(open);
            }
        }
        used
    }

    /// Looks for the holders of the servers' ends.
    fn search(
        &mut self,
        trees: &[TreeMembers],
        used: &[(usize, usize)],
        links: &[Link],
        processes: &mut dyn Processes,
        budget: &mut Budget,
        look: &mut Look,
    ) {
        self.holders.retain(|_, holder| match holder {
            Holder::Seen(identity) => processes.identity(identity.pid) == Some(*identity),
            Holder::Unseen => true,
        });
        let wanted: Vec<&Link> =
            used.iter().map(|&(_, at)| &links[at]).filter(|link| !self.holders.contains_key(&link.key())).collect();
        if wanted.is_empty() {
            return;
        }
        // Each ends the search for its key; a listener's holder only does where nothing has accepted the connection.
        let servers: HashMap<u64, u64> = wanted.iter().filter_map(|link| Some((link.server?, link.key()))).collect();
        let listeners: HashSet<u64> = wanted.iter().filter_map(|link| link.listener).collect();
        let mut open: HashSet<u64> = wanted.iter().map(|link| link.key()).collect();
        let (mut by_server, mut by_listener) = (HashMap::new(), HashMap::<u64, Vec<Pid>>::new());
        let accepted: HashSet<u64> = servers.values().copied().collect();
        let mut hints: Vec<Pid> = trees.iter().flat_map(|tree| tree.supervisors.iter().copied()).collect();
        hints.extend(self.holders.values().filter_map(|holder| match holder {
            Holder::Seen(identity) => Some(identity.pid),
            Holder::Unseen => None,
        }));
        let mut all = processes.all();
        all.sort_unstable();
        let mut asked = HashSet::new();
        let mut cut = false;
        for pid in hints.into_iter().chain(from(&all, self.holders_from)) {
            if open.is_empty() {
                break;
            }
            if !asked.insert(pid) {
                continue;
            }
            let read = budget.for_one(|budget| {
                processes.sockets(pid, budget, &mut |inode| {
                    if let Some(key) = servers.get(&inode) {
                        by_server.insert(*key, pid);
                        open.remove(key);
                    }
                    if listeners.contains(&inode) {
                        by_listener.entry(inode).or_default().push(pid);
                        // A service manager may hold the listeners of others.
                        if !accepted.contains(&inode) && !pid.is_init() {
                            open.remove(&inode);
                        }
                    }
                })
            });
            if read == Descriptors::Cut && budget.is_spent() {
                self.holders_from = Some(pid);
                cut = true;
                break;
            }
        }
        look.unfinished |= cut;
        if !cut {
            self.holders_from = None;
        }
        for link in wanted {
            let key = link.key();
            let heard = by_listener.get(&key).and_then(|pids| pids.iter().find(|pid| !pid.is_init()).or(pids.first()));
            let holder = match by_server.get(&key).or(heard.filter(|_| !cut)) {
                Some(pid) => match processes.identity(*pid) {
                    Some(identity) => Holder::Seen(identity),
                    // It has just ended, and the connection with it.
                    None => continue,
                },
                None if cut => continue,
                None => Holder::Unseen,
            };
            self.holders.insert(key, holder);
        }
    }
}

/// The pending connections that are still there.
fn resumed(pending: &[(RunId, u64)], trees: &[TreeMembers], links: &[Link]) -> Vec<(usize, usize)> {
    let place = |(run, client): &(RunId, u64)| {
        let tree = trees.iter().position(|tree| tree.run == *run)?;
        Some((tree, links.iter().position(|link| link.client == *client)?))
    };
    pending.iter().filter_map(place).collect()
}

/// The numbers behind `last`, then the others.
fn from(sorted: &[Pid], last: Option<Pid>) -> Vec<Pid> {
    let split = last.map_or(0, |last| sorted.partition_point(|pid| *pid <= last));
    let (before, behind) = sorted.split_at(split);
    [behind, before].concat()
}

/// The helper behind a link; `None` when the holder belongs to the tree or supervises it, or is gone.
fn found(tree: &TreeMembers, link: &Link, holder: Holder, processes: &mut dyn Processes) -> Option<FoundHelper> {
    let (process, program) = match holder {
        Holder::Seen(identity) if tree.pids.contains(&identity.pid) || tree.supervisors.contains(&identity.pid) => {
            return None;
        }
        Holder::Seen(identity) => {
            let program = processes.program(identity.pid)?;
            // The number may have passed to another process meanwhile.
            if processes.identity(identity.pid) != Some(identity) {
                return None;
            }
            (Some(identity), Some(program))
        }
        Holder::Unseen => (None, None),
    };
    let (kind, name) = match &program {
        Some(program) => kinds::of(program, tree.uid),
        None => kinds::of_unseen(&link.via),
    };
    let exe = |program: &Program| {
        let exe = program.exe.as_ref()?.to_string_lossy().into_owned();
        Some(machineid_protocol::printable::printable(&exe, '?').take(300).collect())
    };
    let helper = OutsideHelper {
        pid: process.and_then(|process| u32::try_from(process.pid.as_raw()).ok()),
        exe: program.as_ref().and_then(exe),
        uid: program.as_ref().map(|program| program.uid).or(link.uid),
        via: link.via.to_string(),
        kind,
        name,
        ending: false,
    };
    Some(FoundHelper { run: tree.run, process, helper })
}

#[cfg(test)]
#[path = "looker_tests.rs"]
mod tests;
