//! With no deny and no fault the agent cannot tell that it is wrapped: scenarios are played without the wrapper and in every
//! containment that can be had, and what can be observed must be the same.
//!
//! | file | concept |
//! |---|---|
//! | `way` | a scenario played bare and wrapped |
//! | `terminal` | a shell on a terminal |
//! | `keys` | Ctrl-C and Ctrl-\ |
//! | `suspending` | Ctrl-Z, `fg`, `bg`, and a deny in between |
//! | `after_a_stop` | what an emulator shows after a stop |
//! | `settings` | size, settings, passwords, full-screen programs |
//! | `background` | without the foreground, without a terminal, hung up |
//! | `plumbing` | pipes, `xargs`, one in another |
//! | `attributes` | what a process inherits: signals, limits, descriptors |
//! | `streams` | what is read, written and told in the environment |
//! | `codes` | exit codes and signals |
//! | `first_process` | as PID 1 |

mod after_a_stop;
mod attributes;
mod background;
mod codes;
mod first_process;
mod keys;
mod plumbing;
mod settings;
mod streams;
mod suspending;
mod terminal;
mod way;
