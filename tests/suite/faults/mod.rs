//! What passes between daemon and authority, broken in every way: never an ALLOW by mistake, no agent stopped before the end
//! of its lease, and none a second later.

mod freshness;
mod link;
mod order;
mod outages;
mod scene;
mod undecided;
