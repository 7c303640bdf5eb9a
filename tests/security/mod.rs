//! As the attacker: ordinary keys, users and connections that try to jam, forge or undo the switch, against the real programs.

mod bounds;
mod checks;
mod connections;
mod full_disk;
mod hardening;
mod keys;
mod limits;
mod local_places;
mod namespaces;
mod operator;
mod ports;
mod reports;
mod restores;
mod sign_up;
mod squatters;
mod tokens;
