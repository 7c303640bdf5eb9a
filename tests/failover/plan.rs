//! What is done to the world, step by step: a pure function of the seed.

use std::time::Duration;

use fastrand::Rng;

/// One of the two authorities, with its address of the database and its address for sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// How the old primary ends when another server is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldPrimary {
    /// It crashes.
    Crashes,
    /// It runs on where no client reaches it, until it is rebuilt.
    IsCutOff,
    /// It stands still, and goes on when the other one has been promoted.
    StandsStill,
    /// It runs on, and so do the sessions on it: only new connections are led to the new primary, as a proxy does that
    /// was not told to end them.
    KeepsItsSessions,
}

/// How the old primary becomes a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// By `pg_rewind`.
    Rewound,
    /// From a copy of the new primary.
    Copied,
}

/// A standby server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standby {
    Synchronous,
    Asynchronous,
}

/// What a network does to the connections through an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Connections are reset, new ones too.
    Reset,
    /// Nothing passes, and nothing is lost: it arrives afterwards.
    Held,
    /// Requests pass, answers are held.
    AnswersHeld,
}

/// What goes wrong in a step, for as long as the step lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The synchronous standby is promoted, and the address of the database leads there.
    Failover { old: OldPrimary, rebuild: Rebuild },
    /// The address of the database leads to a standby that has stopped replaying.
    StandbyBehindAddress { sides: Vec<Side>, standby: Standby },
    /// An administrator ends all sessions, so many times.
    SessionsEnded { times: u8 },
    /// The authorities' role may have so few connections.
    ConnectionLimit { connections: u8 },
    /// A backend is killed: the server ends all sessions and recovers.
    BackendKilled,
    /// The primary stands still.
    PrimaryStandsStill,
    /// The synchronous standby stands still: no change is confirmed.
    StandbyStandsStill,
    /// The primary is away, and comes back.
    PrimaryCrashes,
    /// The primary's file system is full.
    DiskFull,
    /// The way of these authorities to the database.
    DatabaseUnreachable { sides: Vec<Side>, outage: Outage },
    /// An authority is killed, and started again at the end.
    AuthorityKilled(Side),
    /// An authority stands still.
    AuthorityStandsStill(Side),
    /// Both authorities are replaced, one after the other, as a deployment does.
    RollingRestart,
    /// An authority is started on a host whose clocks since boot show a month more.
    OtherBootClock(Side),
    /// The way of the sidecars to these authorities.
    AuthoritiesUnreachable { sides: Vec<Side>, outage: Outage },
    /// All sidecars of one authority are led to the other one.
    SidecarsMoved(Side),
    /// Daemons are killed, and started again at the end.
    DaemonsKilled(Vec<usize>),
    /// Daemons stand still.
    DaemonsStandStill(Vec<usize>),
    /// Wrappers stand still, as after Ctrl-Z.
    WrappersStandStill(Vec<usize>),
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Revoke,
    Restore,
}

/// An order that is given in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    /// Since the step began.
    pub(crate) after: Duration,
    pub(crate) order: Order,
    /// The number of the sidecar, whose device it is about.
    pub(crate) member: usize,
    pub(crate) through: Side,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
    pub(crate) acts: Vec<Act>,
}

/// The shortest and the longest fault. Far below the lease: an agent that stops without a deny is a defect.
const SHORTEST: Duration = Duration::from_millis(1_500);
pub(crate) const LONGEST: Duration = Duration::from_secs(8);
/// The kinds of faults. A plan goes through all of them, in a random order, before it repeats one.
pub(crate) const KINDS: u8 = 19;
/// Those that a short plan begins with: each has undone a stop or stopped agents before.
const FIRST: [u8; 4] = [1, 2, 0, 7];

/// So many steps for so many sidecars.
pub(crate) fn plan(seed: u64, steps: usize, members: usize) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut revoked = vec![false; members];
    let mut deck = Vec::new();
    let mut planned = Vec::with_capacity(steps);
    while planned.len() < steps {
        let kind = deck.pop().unwrap_or_else(|| {
            deck = shuffled(&mut rng, planned.is_empty());
            deck.pop().unwrap_or_default()
        });
        let lasts = SHORTEST + LONGEST.saturating_sub(SHORTEST).mul_f64(rng.f64());
        let fault = fault(&mut rng, kind, members);
        let mut acts = acts(&mut rng, &mut revoked, lasts);
        if let (Fault::StandbyBehindAddress { sides, .. }, Some(first)) = (&fault, acts.first_mut()) {
            // One that is answered after the standby has stopped replaying, by an authority that is not led there.
            first.after = lasts / 6;
            first.through = if sides.contains(&Side::A) { Side::B } else { Side::A };
        }
        planned.push(Step { fault, lasts, acts });
    }
    planned
}

/// All kinds, the next one last.
fn shuffled(rng: &mut Rng, is_first: bool) -> Vec<u8> {
    let mut kinds: Vec<u8> = (0..KINDS).collect();
    rng.shuffle(&mut kinds);
    if is_first {
        let mut first = FIRST;
        rng.shuffle(&mut first);
        kinds.retain(|kind| !first.contains(kind));
        kinds.extend(first);
    }
    kinds
}

fn fault(rng: &mut Rng, kind: u8, members: usize) -> Fault {
    match kind {
        0 => Fault::Failover {
            old: one_of(
                rng,
                &[OldPrimary::Crashes, OldPrimary::IsCutOff, OldPrimary::StandsStill, OldPrimary::KeepsItsSessions],
            ),
            rebuild: one_of(rng, &[Rebuild::Rewound, Rebuild::Copied]),
        },
        1 => Fault::StandbyBehindAddress {
            sides: sides(rng),
            standby: one_of(rng, &[Standby::Synchronous, Standby::Asynchronous]),
        },
        2 => Fault::SessionsEnded { times: rng.u8(1..=5) },
        3 => Fault::ConnectionLimit { connections: rng.u8(0..=6) },
        4 => Fault::BackendKilled,
        5 => Fault::PrimaryStandsStill,
        6 => Fault::StandbyStandsStill,
        7 => Fault::PrimaryCrashes,
        8 => Fault::DiskFull,
        9 => Fault::DatabaseUnreachable { sides: sides(rng), outage: outage(rng) },
        10 => Fault::AuthorityKilled(side(rng)),
        11 => Fault::AuthorityStandsStill(side(rng)),
        12 => Fault::RollingRestart,
        13 => Fault::OtherBootClock(side(rng)),
        14 => Fault::AuthoritiesUnreachable { sides: sides(rng), outage: outage(rng) },
        15 => Fault::SidecarsMoved(side(rng)),
        16 => Fault::DaemonsKilled(some(rng, members)),
        17 => Fault::DaemonsStandStill(some(rng, members)),
        _ => Fault::WrappersStandStill(some(rng, members)),
    }
}

/// At most a third of the devices is revoked at a time, so that there are agents to be stopped wrongly.
fn acts(rng: &mut Rng, revoked: &mut [bool], lasts: Duration) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut used = vec![false; revoked.len()];
    for _ in 0..rng.usize(1..=4) {
        let most = (revoked.len() / 3).max(1);
        let many = revoked.iter().filter(|revoked| **revoked).count();
        let is_first = acts.is_empty();
        let order = if many >= most || (!is_first && rng.u8(0..2) == 0) { Order::Restore } else { Order::Revoke };
        let is_restore = order == Order::Restore;
        // One order about a device a step: two at a time would have no order.
        let candidates: Vec<_> = (0..revoked.len()).filter(|at| revoked[*at] == is_restore && !used[*at]).collect();
        let Some(member) = rng.choice(&candidates).copied() else { continue };
        used[member] = true;
        revoked[member] = !is_restore;
        // Half of them in the first tenth: what is lost is lost at the edges.
        let reach = if rng.bool() { lasts / 10 } else { lasts };
        let after = Duration::from_millis(rng.u64(0..=u64::try_from(reach.as_millis()).unwrap_or(0)));
        acts.push(Act { after, order, member, through: side(rng) });
    }
    acts
}

fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(0..choices.len())]
}

fn side(rng: &mut Rng) -> Side {
    one_of(rng, &Side::BOTH)
}

fn sides(rng: &mut Rng) -> Vec<Side> {
    one_of(rng, &[[Side::A].as_slice(), &[Side::B], &Side::BOTH]).to_vec()
}

fn outage(rng: &mut Rng) -> Outage {
    one_of(rng, &[Outage::Reset, Outage::Held, Outage::AnswersHeld])
}

/// About a fifth of the sidecars.
fn some(rng: &mut Rng, members: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..members).collect();
    rng.shuffle(&mut all);
    all.truncate((members / 5).max(1));
    all.sort_unstable();
    all
}
