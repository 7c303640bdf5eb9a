//! The bound on a stop, as the daemon states it, against real stops of an agent that ignores SIGTERM: for each kind of deny
//! the time from the act to the last process gone.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::agents::{Agent, STUBBORN, post, stop_of};
use crate::harness::authority::{Authority, Org};
use crate::harness::load::Stalls;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "bounded-host:1";

/// Which of the two bounds is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Connected,
    CutOff,
}

type Act = fn(&mut Case<'_>);

struct Case<'a> {
    authority: &'a mut Authority,
    /// Its id and key.
    org: (String, String),
    sidecar: Sidecar,
}

impl Case<'_> {
    fn org(&self) -> Org<'_> {
        Org { authority: self.authority, id: self.org.0.clone(), key: self.org.1.clone() }
    }
}

/// Each way in which an agent is stopped: its name, the code it is stopped with, the bound it keeps, and the act.
const WAYS: [(&str, &str, Bound, Act); 9] = [
    ("revoked", "DEVICE_REVOKED", Bound::Connected, |case| {
        assert_eq!(case.org().device("revoke", DEVICE).status, 200);
    }),
    ("org disabled", "ORG_DISABLED", Bound::Connected, |case| drop(case.org().admin("disable", &[]))),
    ("plan frozen", "PLAN_FROZEN", Bound::Connected, |case| drop(case.org().admin("freeze", &[]))),
    ("entitlement expired", "ENTITLEMENT_EXPIRED", Bound::Connected, |case| drop(case.org().admin("expire", &[]))),
    ("device removed", "DEVICE_NOT_FOUND", Bound::Connected, |case| {
        assert_eq!(case.org().device("remove", DEVICE).status, 200);
    }),
    ("key invalid", "INVALID_ORG_KEY", Bound::Connected, |case| {
        drop(case.org().admin("rotate-key", &["--overlap", "0s"]));
    }),
    ("kill file", "LOCAL_KILL", Bound::Connected, |case| {
        std::fs::write(case.sidecar.directory().join("kill"), "").unwrap();
    }),
    ("local stop", "LOCAL_STOP", Bound::Connected, |case| {
        assert_eq!(post(&case.sidecar.socket(), "/v1/stop", &json!({"all": true})).status, 200);
    }),
    ("authority gone", "LEASE_EXPIRED", Bound::CutOff, |case| case.authority.kill()),
];

#[test]
#[expect(clippy::disallowed_methods, reason = "what is promised is a time, and this measures it")]
fn every_kind_of_deny_stops_within_the_bound_that_the_daemon_states() {
    let mut authority = Authority::start();
    for (name, code, bound, act) in WAYS {
        let made = authority.org("pro");
        let org = (made.id.clone(), made.key.clone());
        let mut setup = Setup::of(&made, &authority.url(), DEVICE);
        setup.authority = setup.authority.replace("2s", "1s");
        let kill_file = setup.directory.path().join("kill");
        setup.enforcement = format!(
            "interval = \"300ms\"\nlease = \"3s\"\nstop_grace = \"500ms\"\nkill_file = \"{}\"",
            kill_file.display()
        );
        let sidecar = setup.start();
        let mut agent = Agent::start(&sidecar, &[], STUBBORN);
        let status = sidecar.status();
        let run_id = status["agents"][0]["run_id"].as_str().unwrap().to_owned();
        let promised = Duration::from_millis(
            match bound {
                Bound::Connected => &status["stop_bound"]["connected_ms"],
                Bound::CutOff => &status["stop_bound"]["cut_off_ms"],
            }
            .as_u64()
            .unwrap(),
        );
        let mut case = Case { authority: &mut authority, org, sidecar };
        let (began, stalls) = (Instant::now(), Stalls::from_now());
        act(&mut case);
        agent.is_gone();
        let took = began.elapsed();
        println!(
            "  {name}: {took:.0?} of {promised:.0?} promised ({:.2})",
            took.as_secs_f64() / promised.as_secs_f64()
        );
        // What the machine gave to others is not the daemon's.
        assert!(
            took <= promised + stalls.allowance(),
            "{name}: {took:?} is longer than {promised:?}\n{}",
            case.sidecar.log()
        );
        let stop =
            until("the stop is over", || stop_of(&case.sidecar, &run_id).filter(|stop| stop["confirmed"] == true));
        assert_eq!((&stop["code"], agent.terms()), (&json!(code), 1), "{name}: {stop}");
        let exit = if code == "LEASE_EXPIRED" { 75 } else { 77 };
        assert_eq!(agent.wrapped.exit_code(), exit, "{name}: {}", agent.wrapped.stderr());
        case.sidecar.signal(Signal::TERM);
    }
}
