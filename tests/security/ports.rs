//! Ports of the daemon that another program took before it.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::harness::authority::Authority;
use crate::harness::http;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const TOLD: &str = "echo \"given <$MACHINEID_BASE_URL>\"";

/// What an agent that starts now is told of the authority's address.
fn told(sidecar: &Sidecar) -> String {
    let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", TOLD]));
    let line = agent.line_with("given ");
    agent.exit_code();
    line.split(['<', '>']).nth(1).unwrap().to_owned()
}

fn problems(sidecar: &Sidecar) -> String {
    sidecar.status()["configuration"]["problems"].as_array().into_iter().flatten().map(Value::to_string).collect()
}

#[test]
fn a_program_that_takes_the_daemons_ports_stops_nothing_and_gets_no_token() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let squatters = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [compat, metrics] = squatters.each_ref().map(|squatter| squatter.local_addr().unwrap());
    let mut setup = Setup::of(&org, &authority.url(), "host:ports");
    setup.devices = format!("[compat]\nlisten = \"{compat}\"\n[metrics]\nlisten = \"{metrics}\"");
    let sidecar = setup.start();
    assert_eq!(sidecar.check().status, 200);
    assert_eq!(told(&sidecar), "", "an agent is not sent to the other program");
    let said = problems(&sidecar);
    for address in [compat, metrics] {
        assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    }
    let doctor = sidecar.machineid(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("compat.listen") && doctor.contains("metrics.listen"), "{doctor}");
    let page = sidecar.get("/metrics").unwrap().body;
    for setting in ["compat.listen", "metrics.listen"] {
        assert!(page.contains(&format!("port_listening{{setting=\"{setting}\"}} 0")), "{page}");
    }
    drop(squatters);
    until("the ports are served", || problems(&sidecar).is_empty().then_some(()));
    assert_eq!(http::request(metrics, "GET", "/metrics", &[], b"").status, 200);
    assert_eq!(told(&sidecar), format!("http://{compat}"));
}

#[test]
fn ports_that_a_service_manager_holds_are_served_and_one_that_no_setting_names_is_told() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [compat, metrics, unclaimed] = held.each_ref().map(|held| held.local_addr().unwrap());
    let mut setup = Setup::of(&org, &authority.url(), "host:held");
    setup.devices = format!("[compat]\nlisten = \"{compat}\"\n[metrics]\nlisten = \"{metrics}\"");
    std::fs::create_dir_all(setup.socket().parent().unwrap()).unwrap();
    let socket = UnixListener::bind(setup.socket()).unwrap();
    let script = "import os, socket, sys\n\
                  given = socket.socket(fileno=0)\n\
                  _, fds, _, _ = socket.recv_fds(given, 1, 8)\n\
                  for at, fd in enumerate(fds): os.dup2(fd, 30 + at, False)\n\
                  for at in range(len(fds)): os.dup2(30 + at, 3 + at)\n\
                  os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))\n\
                  os.execvp(sys.argv[1], sys.argv[1:])";
    setup.starter = ["python3", "-c", script].map(str::to_owned).to_vec();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    setup.input = Some(theirs.into());
    let [first, second, third] = &held;
    send_descriptors(&ours, &[third.as_fd(), first.as_fd(), socket.as_fd(), second.as_fd()]);
    let sidecar = setup.start();
    drop((ours, socket));
    assert_eq!(http::request(metrics, "GET", "/metrics", &[], b"").status, 200);
    assert_eq!(told(&sidecar), format!("http://{compat}"));
    let said = problems(&sidecar);
    assert!(said.contains(&unclaimed.to_string()) && !said.contains(&compat.to_string()), "{said}");
}

fn send_descriptors(stream: &std::os::unix::net::UnixStream, fds: &[std::os::fd::BorrowedFd<'_>]) {
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    assert_eq!(sendmsg(stream, &[IoSlice::new(b"f")], &mut ancillary, SendFlags::empty()).unwrap(), 1);
}
