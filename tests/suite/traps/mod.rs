//! What breaks wrappers and supervisors in real life, against the real programs.
//!
//! Each number is a trap that some wrapper or supervisor fell into; "shape" is a row of [`shapes::SHAPES`], tried by
//! [`matrix`] in every containment, as root, as an ordinary user and as one under root's daemon, ended by a revoke, by
//! SIGKILL to the wrapper and by the end of the lease with the daemon killed.
//!
//! | trap | test |
//! |---|---|
//! | 1 child in a session of its own | shape; `end_to_end::an_agent_that_ignores_sigterm_…` |
//! | 2 double-forked daemon | shape |
//! | 3 leader obeys, child does not | shape |
//! | 4 both ignore TERM | shape |
//! | 5 a shell that cannot exec | shape |
//! | 6 stopped child, with and without a trap | two shapes; the first must have cleaned up |
//! | 7 comets | shape; at full speed in `crates/tree/tests/tree/comets.rs` and `cargo bench -- comets` |
//! | fork storm at a limit of processes | [`storm`]; `tree::ladder_tests` |
//! | 8 forked between TERM and KILL | shape |
//! | 9 closed descriptors, output held open | shape |
//! | 10 moves to the parent control group | shape |
//! | 11 frozen control group | [`trees`], of version 2 and, on a host that has one, of version 1 |
//! | 12 no control group available | [`trees`]; that a hybrid mount is found is what [`matrix`] runs on where there is one |
//! | 13 number recycled between the signals | [`trees`]; the zombie leader in `tree::table_tests` |
//! | 14 pid 1, 0, -1, oneself | `tree::members_tests` (properties); `hostile::strangers` |
//! | 15 a child that is another user's | [`trees`] |
//! | 16 a child that cannot be interrupted | [`trees`] |
//! | 17 zombies are not alive | [`trees`] |
//! | 18 wrapper SIGKILLed | [`matrix`]; `end_to_end::when_the_wrapper_is_killed_…` |
//! | 19 wrapper SIGSTOPped, then denied | shape; `end_to_end::a_stopped_wrapper_does_not_save_its_agent_…` |
//! | 20 daemon SIGKILLed, restarted or not | [`matrix`]; `end_to_end::a_daemon_that_is_…`; `daemon::adoption` |
//! | 21 parent-death signal of a pool thread | [`deaths`] |
//! | 22 wrapper killed while it starts | [`deaths`]; `run::asking::a_wrapper_killed_while_asking_…` |
//! | 23 parent-death signal cleared, or not inherited | shapes; 15 |
//! | 24 signals to the wrapper | [`deaths`]; `run::ending` |
//! | 25 TERM while it asks | `run::asking::a_signal_while_asking_…` |
//! | 26 revoke in the instant of the start | [`deaths`]; `run::asking::nothing_is_executed_before_the_allow` |
//! | 27 end of the daemon's unit | [`deaths`] (with control groups as systemd makes them; systemd itself is not in reach) |
//! | 28, 29 terminal, Ctrl-C | `transparency::{keys, settings, background}` |
//! | 30 Ctrl-Z, and denied while suspended | `transparency::suspending` |
//! | 31 background, no terminal, foreground given back | `transparency::background` |
//! | 32 the terminal goes | `transparency::background` |
//! | 33 mask and dispositions | `transparency::attributes`; `hostile::places::under_nohup_…` |
//! | 34 descriptors, environment, input | `transparency::{attributes, streams}` |
//! | 35 signals that are the wrapper's own | `run::core::tests`; `run::ending::signals_reach_the_command_…` |
//! | 36 exit codes | `transparency::codes`; `run::ending` |
//! | 37 reaped before it reports | [`matrix`]: no process is left the moment the wrapper has ended |
//! | 41 a slow validation in flight | [`times`]; `gate::core::tests` |
//! | 42 suspend beyond the lease | `tests/machine` (a real one); `gate::core::tests`, `runs::enforcer::tests`, `run::core::tests` |
//! | 43 wall clock set | `tests/machine`; nothing that decides can read it (`clippy.toml`) |
//! | 44 restart with the authority away | [`times`]; `daemon::adoption::without_an_authority_…` |
//! | 45 a crowd, failures, then a deny | [`times`]; ten thousand gates in `gate::fleet_tests` |
//! | a crowd that does not listen, and agents that make stops dear | [`crowd`]; `cargo bench -- stubborn` |
//! | 46 what is told of a stop | [`accounts`] |
//! | 47 one agent's child, another's deny | [`accounts`]; `end_to_end::agents_with_devices_of_their_own_…` |
//! | 48 a wrapper inside another | [`accounts`]; `transparency::plumbing`; shape |

mod accounts;
mod census;
mod comet;
mod crowd;
mod deaths;
mod matrix;
pub(crate) mod shapes;
mod storm;
mod times;
mod trees;
