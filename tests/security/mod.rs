//! As the attacker: ordinary keys, users and connections that try to jam, forge or undo the switch, against the real programs.

mod checks;
mod keys;
mod limits;
mod namespaces;
mod operator;
