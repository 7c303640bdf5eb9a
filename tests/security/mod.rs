//! As the attacker: ordinary keys, users and connections that try to jam, forge or undo the switch, against the real programs.

mod checks;
mod hardening;
mod keys;
mod limits;
mod operator;
mod ports;
mod reports;
mod restores;
mod sign_up;
mod squatters;
