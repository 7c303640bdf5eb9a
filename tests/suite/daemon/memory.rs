//! How large a tree is, and an end for lack of memory.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::authority::Authority;
use crate::harness::place::{is_root, skipped};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;

/// A control group with little memory, removed when dropped.
struct Tight(PathBuf);

impl Tight {
    /// `None` where none can be made.
    fn make() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let of = |controller: &str| {
            let mut lines =
                groups.lines().filter_map(|line| line.split_once(':').and_then(|(_, rest)| rest.split_once(':')));
            lines.find(|(name, _)| *name == controller).map(|(_, path)| path.trim_start_matches('/').to_owned())
        };
        let name = format!("machineid-test-{}", std::process::id());
        let version_1 =
            of("memory").map(|path| (PathBuf::from("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes"));
        let version_2 = of("").map(|_| (PathBuf::from("/sys/fs/cgroup"), "memory.max"));
        let (above, limit) = version_1.or(version_2)?;
        let group = Self(above.join(name));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), "67108864").ok()?;
        // Else the agent is swapped out instead.
        for swap in ["memory.swap.max", "memory.memsw.limit_in_bytes"] {
            let _ = fs::write(group.0.join(swap), if limit == "memory.max" { "0" } else { "67108864" });
        }
        Some(group)
    }
}

impl Drop for Tight {
    fn drop(&mut self) {
        until("the group is empty", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn status_says_how_large_a_tree_is_and_an_end_for_lack_of_memory_is_named() {
    let Some(group) = is_root().then(Tight::make).flatten() else {
        skipped("an end for lack of memory", "no control group with a limit can be made here");
        return;
    };
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    let status_file = sidecar.directory().join("status");
    let agent = "import sys; print('up', flush=True); sys.stdin.readline(); x = b'x' * (256 << 20)";
    let flags = ["--name", "greedy", "--status-file", status_file.to_str().unwrap()];
    let wrap = sidecar.wrap(&flags, &["python3", "-S", "-c", agent]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&group.0)
        .arg(wrap.get_program())
        .args(wrap.get_args());
    command.envs(wrap.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(std::process::Stdio::piped());
    let mut wrapped = Wrapped::start(command);
    wrapped.line_with("up");
    // An early look may still see the process that becomes the command beside its guardian.
    until("a look sees the agent alone", || {
        let agent = sidecar.status()["agents"][0].clone();
        (agent["processes"] == 1 && agent["memory_bytes"].as_u64()? > 1 << 20).then_some(())
    });
    wrapped.stdin().write_all(b"go\n").unwrap();
    assert_eq!(wrapped.exit_code(), 137, "{}", wrapped.stderr());
    assert!(
        wrapped.stderr().contains("the kernel ended a process of its control group for lack of memory"),
        "{}",
        wrapped.stderr()
    );
    assert!(fs::read_to_string(&status_file).unwrap().contains("\"oom_kills\":1"));
    let ended = until("the daemon has noticed", || {
        Some(sidecar.status()["recent_oom"][0].clone()).filter(|oom| !oom.is_null())
    });
    assert_eq!((&ended["name"], &ended["oom_kills"]), (&"greedy".into(), &1.into()), "{ended}");
    for verb in ["status", "events"] {
        let output = sidecar.machineid(&[verb]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.replace('\n', " ").contains("OOM kill"), "{said}");
    }
}
