//! A link that loses packets, all of them or some: a network namespace for the daemon. Takes root.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::span;

use super::scene::{ENFORCEMENT, TIMEOUT, agent, outage};
use crate::harness::authority::{Authority, Org};
use crate::harness::fault::Injector;
use crate::harness::place::{is_root, skipped};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

/// A network namespace that reaches ours by one link. Removed when dropped.
struct Link {
    name: String,
    near: String,
    far: String,
}

fn run(program: &str, words: &str) -> bool {
    let mut command = Command::new(program);
    command.args(words.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").status().is_ok_and(|status| status.success())
}

impl Link {
    /// `None`, loudly, where it cannot be had.
    fn new(what: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            skipped(what, "takes root, for a network namespace");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let (pid, number) = (std::process::id(), u8::try_from(number).ok()?);
        // Of the addresses set aside for such tests; the process's number keeps two runs apart.
        let network = format!("198.18.{}.{}", pid % 256, u32::from(number % 64) * 4);
        let (network, last) = network.rsplit_once('.')?;
        let last: u32 = last.parse().ok()?;
        let (near, far) = (format!("{network}.{}", last + 1), format!("{network}.{}", last + 2));
        let link = Self { name: format!("mid{pid}-{number}"), near, far };
        let Self { name, near, far } = &link;
        let made = run("ip", &format!("netns add {name}"))
            && run("ip", &format!("link add {name} type veth peer name eth0 netns {name}"))
            && run("ip", &format!("addr add {near}/30 dev {name}"))
            && run("ip", &format!("link set {name} up"))
            && run("ip", &format!("-n {name} addr add {far}/30 dev eth0"))
            && run("ip", &format!("-n {name} link set eth0 up"))
            && link.within("iptables -L -n");
        if !made {
            skipped(what, "no network namespace with iptables is available (apt-get install iproute2 iptables)");
        }
        made.then_some(link)
    }

    fn within(&self, words: &str) -> bool {
        run("ip", &format!("netns exec {} {words}", self.name))
    }

    #[track_caller]
    fn must(&self, words: &str) {
        assert!(self.within(words), "{words}");
    }

    fn daemon(&self, org: &Org<'_>, injector: &Injector) -> Sidecar {
        let mut setup = Setup::of(org, &injector.url(), "host:link");
        setup.authority =
            format!("url = \"{}\"\ntimeout = \"{}\"\nallow_http = true", injector.url(), span::format(TIMEOUT));
        ENFORCEMENT.clone_into(&mut setup.enforcement);
        // Not `ip netns exec`, which mounts another /sys: the control groups stay where they are.
        let starter = ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name)];
        setup.starter = starter.into();
        setup.start()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        run("ip", &format!("netns del {}", self.name));
        run("ip", &format!("link del {}", self.name));
    }
}

#[test]
fn a_link_that_drops_every_packet_ends_agents_with_their_lease_and_not_with_the_patience_of_tcp() {
    let Some(link) = Link::new("DROP") else { return };
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start_at(&format!("{}:0", link.near), authority.address());
    let sidecar = link.daemon(&org, &injector);
    let rule = "OUTPUT -p tcp -j DROP";
    let lost = "no complete answer within";
    // What is dropped is first the packets of living connections, then those that would make new ones.
    let begin = || link.must(&format!("iptables -A {rule}"));
    outage("outgoing packets dropped", lost, &sidecar, begin, || link.must(&format!("iptables -D {rule}")));
    let rule = "INPUT -p tcp -j DROP";
    let begin = || link.must(&format!("iptables -A {rule}"));
    outage("incoming packets dropped", lost, &sidecar, begin, || link.must(&format!("iptables -D {rule}")));
}

#[test]
fn a_link_that_goes_down_and_comes_up_again_is_an_outage_like_others() {
    let Some(link) = Link::new("a link that goes down") else { return };
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start_at(&format!("{}:0", link.near), authority.address());
    let sidecar = link.daemon(&org, &injector);
    let set = |state: &str| assert!(run("ip", &format!("-n {} link set eth0 {state}", link.name)));
    outage("the link is down", "", &sidecar, || set("down"), || set("up"));
}

#[test]
fn a_link_that_loses_some_packets_stops_no_agent_without_cause() {
    let Some(link) = Link::new("packet loss") else { return };
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start_at(&format!("{}:0", link.near), authority.address());
    let sidecar = link.daemon(&org, &injector);
    let loss = "-p tcp -m statistic --mode random --probability 0.15 -j DROP";
    if !link.within(&format!("iptables -A OUTPUT {loss}")) || !link.within(&format!("iptables -A INPUT {loss}")) {
        skipped("packet loss", "the kernel has no statistic match");
        return;
    }
    let mut agent = agent(&sidecar);
    let began = BootTime::now();
    // Over several leases' time.
    until("four leases have gone by", || {
        assert!(!agent.has_ended(), "{}", agent.stderr());
        (BootTime::now().saturating_since(began) > Duration::from_secs(12)).then_some(())
    });
    let failures = sidecar.log().matches("no usable answer").count();
    eprintln!("with 15 % of the packets lost in each direction: {:?}, {failures} outages", injector.validations());
    org.device("revoke", "host:link");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
}
