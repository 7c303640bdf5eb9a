//! The operator, and the eyes beside it: requests to both authorities, past everything that breaks on the sidecars' way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::{self, Reply};
use crate::harness::let_time_pass;
use crate::ledger::{Ledger, Standing};
use crate::member::device;
use crate::plan::{Order, Side};

/// Longer than an authority takes for any request, so that what is not answered is over.
const ANSWERED: Duration = Duration::from_secs(12);
/// The pause between two questions of one pair of eyes.
const GLANCE: Duration = Duration::from_millis(100);

/// How to reach both authorities as the organisation.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) addresses: [SocketAddr; 2],
    pub(crate) key: String,
}

impl Reach {
    /// A request with the organisation's key; an error when there is no answer.
    fn post(&self, side: Side, path: &str, body: &Value) -> Result<(Reply, Value), String> {
        let to = self.addresses[side.index()];
        let headers = ["content-type: application/json".to_owned(), format!("x-org-key: {}", self.key)];
        let path = format!("/api/v1/devices/{path}");
        let message = http::message(to, "POST", &path, &headers, body.to_string().as_bytes());
        let reply = http::try_exchange(to, &message, ANSWERED).map_err(|error| error.to_string())?;
        let body = serde_json::from_str(&reply.text).map_err(|error| format!("{error}: {}", reply.text))?;
        Ok((reply, body))
    }

    /// Gives an order, and whether it was answered that it is done.
    pub(crate) fn order(&self, ledger: &Ledger, side: Side, member: usize, order: Order, reason: &str) -> bool {
        let path = match order {
            Order::Revoke => "revoke",
            Order::Restore => "unrevoke",
        };
        ledger.begins(member, order);
        let result = self.post(side, path, &json!({"deviceId": device(member), "reason": reason}));
        match result {
            Ok((reply, body)) if reply.status == 200 && body["status"] == "ok" => {
                ledger.was_answered(member, order, reason);
                ledger.say(&format!("  {reason}: {path} {} through {side:?}: done", device(member)));
                true
            }
            Ok((reply, body)) => {
                let why =
                    format!("{} {}", reply.status, body["code"].as_str().or(body["error"].as_str()).unwrap_or(""));
                ledger.say(&format!("  {reason}: {path} {} through {side:?}: {why}", device(member)));
                false
            }
            Err(error) => {
                ledger.say(&format!("  {reason}: {path} {} through {side:?}: {error}", device(member)));
                false
            }
        }
    }

    /// Validates a revoked device: it is a broken promise when that is allowed, unless something was ordered meanwhile.
    pub(crate) fn look(&self, ledger: &Ledger, side: Side, member: usize) {
        let before = ledger.promise(member);
        let Standing::Revoked { answered } = before.standing else { return };
        if ledger.excuses() {
            return;
        }
        let age = answered.elapsed();
        let Ok((reply, body)) = self.post(side, "validate", &json!({"deviceId": device(member)})) else { return };
        if body["allowed"] == true && ledger.promise(member) == before {
            let (device, status) = (device(member), reply.status);
            let request = reply.header("x-request-id").unwrap_or("?").to_owned();
            ledger.broken(&format!(
                "authority {side:?} answered {status} ALLOW for {device} {age:.2?} after its answered revoke (request {request})"
            ));
        }
    }
}

/// Validates revoked devices through both authorities, again and again, until it is dropped.
pub(crate) struct Watchers {
    ended: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Watchers {
    pub(crate) fn start(reach: &Reach, ledger: &Arc<Ledger>) -> Self {
        let (ended, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let watch = |side: Side| {
            let (reach, ledger) = (reach.clone(), Arc::clone(ledger));
            let (ended, looks) = (Arc::clone(&ended), Arc::clone(&looks));
            thread::spawn(move || {
                let mut turn = 0;
                while !ended.load(Ordering::Relaxed) {
                    let revoked = ledger.revoked();
                    if !revoked.is_empty() {
                        reach.look(&ledger, side, revoked[turn % revoked.len()]);
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                    turn += 1;
                    let_time_pass(GLANCE);
                }
            })
        };
        let threads = Mutex::new(Side::BOTH.map(watch).into());
        Self { ended, looks, threads }
    }

    /// How many validations there were.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.lock().unwrap().drain(..) {
            let _ = thread.join();
        }
    }
}
