//! A log that cannot be written.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use crate::harness::authority::Authority;
use crate::harness::eventually;
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;

/// A pipe with no room left and no reader; both ends.
fn full_pipe() -> (OwnedFd, File) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut writer = File::from(writer);
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    for piece in [4096, 1] {
        while writer.write(&vec![b'x'; piece]).is_ok() {}
    }
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

fn a_revoke_stops_an_agent_of_a_daemon_that_logs_to(log: File) {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start_logging_to(log.into());
    let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", "echo agent $$; exec sleep 1000"]));
    let pid = number_after(&agent.line_with("agent"), "agent");
    agent.watch(&[pid]);
    org.device("revoke", "host:test");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    eventually("the agent is gone", || !is_alive(pid));
    until("the daemon answers on", || (sidecar.get("/v1/check")?.status == 403).then_some(()));
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_stop() {
    let (_reader, writer) = full_pipe();
    a_revoke_stops_an_agent_of_a_daemon_that_logs_to(writer);
}

#[test]
fn a_log_on_a_full_disk_holds_up_no_stop() {
    a_revoke_stops_an_agent_of_a_daemon_that_logs_to(File::options().write(true).open("/dev/full").unwrap());
}
