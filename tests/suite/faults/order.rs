//! Answers that come in another order than their questions were asked.

use super::scene::agent;
use crate::harness::authority::{Authority, Org};
use crate::harness::fault::{Fault, Injector};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Answer, Setup, Sidecar};
use crate::harness::{PATIENCE, eventually};

struct Scene<'a> {
    org: Org<'a>,
    injector: Injector,
    sidecar: Sidecar,
    agent: Wrapped,
}

impl<'a> Scene<'a> {
    /// Nothing is asked here but by who asks.
    fn new(authority: &'a Authority) -> Self {
        let org = authority.org("pro");
        let injector = Injector::start(authority.address());
        let mut setup = Setup::of(&org, &injector.url(), "host:test");
        setup.authority = format!("url = \"{}\"\ntimeout = \"1m\"", injector.url());
        "interval = \"1h\"\nlease = \"2h\"\nstop_grace = \"2s\"".clone_into(&mut setup.enforcement);
        let sidecar = setup.start();
        // The second validation comes at a random phase: not while answers are held.
        let agent = agent(&sidecar);
        Self { org, injector, sidecar, agent }
    }

    /// Asks, lets the answer be made and held; meanwhile `change` happens and another client asks, whose answer passes.
    /// Gives both answers, the held one's first.
    fn overtake(&self, change: impl FnOnce()) -> (Answer, Answer) {
        self.injector.set(Fault::HoldNext);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| self.sidecar.check());
            self.injector.wait_for_held();
            change();
            let second = self.sidecar.check();
            self.injector.release();
            eventually("the late answer has arrived", || self.injector.validations().in_flight == 0);
            (first.join().unwrap(), second)
        })
    }
}

#[test]
fn an_allow_that_was_overtaken_undoes_nothing() {
    let authority = Authority::start();
    let mut scene = Scene::new(&authority);
    let (first, second) = scene.overtake(|| drop(scene.org.device("revoke", "host:test")));
    assert_eq!((second.status, second.code().as_str()), (403, "DEVICE_REVOKED"), "{second:?}");
    // Who asked before may take the later answer too, and gets the one that comes first.
    assert_eq!((first.status, first.code().as_str()), (403, "DEVICE_REVOKED"), "{first:?}");
    assert_eq!(scene.agent.exit_code(), 77, "{}", scene.agent.stderr());
    assert_eq!(scene.sidecar.status()["devices"][0]["standing"], "denied");
    assert_eq!(scene.sidecar.check().status, 403);
}

#[test]
fn a_deny_counts_although_an_allow_that_began_later_came_first() {
    let authority = Authority::start();
    let mut scene = Scene::new(&authority);
    scene.org.device("revoke", "host:test");
    let (first, second) = scene.overtake(|| drop(scene.org.device("unrevoke", "host:test")));
    assert_eq!((first.status, second.status), (200, 200), "{first:?} {second:?}");
    assert_eq!(scene.agent.exit_code(), 77, "{}", scene.agent.stderr());
    assert!(scene.agent.stderr().contains("DEVICE_REVOKED"), "{}", scene.agent.stderr());
    // And the next question is answered as things are now.
    assert_eq!(scene.sidecar.check().status, 200);
}

#[test]
fn a_renewal_that_hangs_does_not_hide_that_the_lease_is_over() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = Setup::of(&org, &injector.url(), "host:test");
    // The request may take nearly as long as the whole lease: no answer is there to be late when that is over.
    setup.authority = format!("url = \"{}\"\ntimeout = \"1800ms\"", injector.url());
    "interval = \"100ms\"\nlease = \"2s\"\nstop_grace = \"1s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let mut agent = agent(&sidecar);
    injector.set(Fault::Delay(PATIENCE));
    assert_eq!(agent.exit_code(), 75, "{}", agent.stderr());
    assert!(agent.stderr().contains("LEASE_EXPIRED"), "{}", agent.stderr());
}
