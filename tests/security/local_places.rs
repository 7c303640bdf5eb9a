//! Users who keep as many connections open as they can.

use std::process::{Command, Stdio};

use crate::daemon::agents::{Agent, OBEDIENT, as_user, is_root, open_to_all};
use crate::daemon::compat;
use crate::harness::authority::Authority;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, chmod};
use crate::hostile::limits::{Crowd, FEW, GREEDY, OTHER, OTHERS, STREAMS, can_be_several_users, open_with};

const THIRD: u32 = 54_351;
const FOURTH: u32 = 54_352;

#[test]
fn two_users_who_take_all_they_can_keep_no_third_from_the_socket() {
    if !can_be_several_users("places on the socket", 6000) {
        return;
    }
    let authority = Authority::start();
    let (_org, sidecar) = open_with(&authority, "", &["prlimit", FEW]);
    chmod(sidecar.directory(), 0o755);
    let half = OTHERS / 2 + STREAMS / 2;
    let mut first = Crowd::start(&sidecar, GREEDY, "G", half + 10);
    first.comes_to((half, 10));
    let third = OTHERS / 3 + STREAMS / 3;
    let mut second = Crowd::start(&sidecar, OTHER, "G", third + 10);
    second.comes_to((third, 10));
    // As many as its share: idle connections of those who hold more make room.
    let quarter = OTHERS / 4 + STREAMS / 4;
    let mut other = Crowd::start(&sidecar, THIRD, "G", quarter);
    other.comes_to((quarter, 0));
    let mut fourth = Crowd::start(&sidecar, FOURTH, "G", 0);
    assert_eq!(fourth.count(), (0, 0));
    assert_eq!(fourth.check(), "checked 200");
    assert!(Agent::start_as(FOURTH, &sidecar, &[], OBEDIENT).is_alive());
    assert_eq!(sidecar.check().status, 200, "an operator gets through");
}

/// Opens so many connections to an address, and keeps those that are not refused. Says how many were refused, once each of
/// them has been refused or closed that will be.
const HOLD: &str = "
import select, socket, sys, time
host, port = sys.argv[1].rsplit(':', 1)
held = {}
poll = select.poll()
for _ in range(int(sys.argv[2])):
    s = socket.create_connection((host, int(port)))
    held[s.fileno()] = s
    poll.register(s, select.POLLIN)
refused = 0
while held and refused < int(sys.argv[3]):
    for number, _ in poll.poll():
        refused += b' 503 ' in held[number].recv(100)
        poll.unregister(number)
        held.pop(number).close()
print('refused', refused, flush=True)
time.sleep(1000)
";

#[test]
fn one_user_who_takes_all_it_can_keeps_no_agent_from_the_port() {
    if !is_root("agents of two users") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    open_to_all(&mut setup);
    "[compat]\nlisten = \"127.0.0.1:0\"".clone_into(&mut setup.devices);
    let sidecar = setup.start();
    let agent = compat::Agent::of(as_user(THIRD, &sidecar.wrap(&[], &compat::Agent::program(&[]))));
    let mut greedy = Command::new("python3");
    // Half of the 512 places, and no more.
    greedy.args(["-S", "-c", HOLD, &agent.address, "520", "264"]).stdin(Stdio::null());
    let mut greedy = Wrapped::start(as_user(GREEDY, &greedy));
    assert_eq!(greedy.line_with("refused"), "refused 264");
    assert_eq!(compat::decision(&agent.ask("validate", "host:test")), (200, true, "ALLOW".to_owned()));
}
