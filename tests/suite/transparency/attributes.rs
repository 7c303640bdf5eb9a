//! What a process has from the one that started it.

use std::process::Command;

use super::way::{Case, Way, python, same_as_without};
use crate::harness::wrapper::{Running, stderr, stdout};

/// Changes what can be changed without harm, then becomes the command.
const LAUNCHER: &str = "import ctypes, os, resource, signal, sys\n\
    libc = ctypes.CDLL(None)\n\
    root = os.geteuid() == 0\n\
    for n in eval(sys.argv[1]): signal.signal(n, signal.SIG_IGN)\n\
    for n in eval(sys.argv[2]): signal.signal(n, signal.SIG_DFL)\n\
    signal.pthread_sigmask(signal.SIG_SETMASK, eval(sys.argv[3]))\n\
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 8192))\n\
    resource.setrlimit(resource.RLIMIT_NOFILE, (333, 444))\n\
    resource.setrlimit(resource.RLIMIT_STACK, (4 << 20, 16 << 20))\n\
    os.nice(5)\n\
    os.umask(0o027)\n\
    open('/proc/self/oom_score_adj', 'w').write('123')\n\
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\n\
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n\
    libc.personality(0x0040000)\n\
    libc.prctl(29, 12345, 0, 0, 0)\n\
    if root:\n\
    \x20   os.setgroups([4, 20, 4242])\n\
    \x20   libc.prctl(28, 0x20, 0, 0, 0)\n\
    if len(sys.argv) > 5 and sys.argv[4] == 'nnp': libc.prctl(38, 1, 0, 0, 0)\n\
    os.execvp(sys.argv[5], sys.argv[5:])";

/// Shows them. `grep` and not Python for the signals, since Python changes some itself.
const SHOW: &str = "grep -E '^(Umask|[UG]id|Groups|Sig(Blk|Ign|Cgt)|Cap|NoNewPrivs|Seccomp:|Cpus_allowed:)' /proc/self/status; \
    cat /proc/self/limits /proc/self/oom_score_adj /proc/self/personality; pwd; nice; \
    cut -d' ' -f41 /proc/self/stat; \
    \"$0\" -ESc 'import ctypes; p = ctypes.CDLL(None).prctl; print([p(n, 0, 0, 0, 0) for n in (3, 27, 30, 39)])'; \
    for n in 0 1 2; do grep flags /proc/self/fdinfo/$n; done";

fn launched(case: &Case, signals: [&str; 3], no_new_privileges: bool) -> String {
    let mut command = Command::new(python());
    command.args(["-ES", "-c", LAUNCHER]).args(signals).arg(if no_new_privileges { "nnp" } else { "-" });
    command.args(case.words()).args(["sh", "-c", SHOW, python()]).current_dir("/");
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let output = Running::start(&mut command).finish();
    assert!(output.status.success(), "{}", stderr(&output));
    // 32 and 33 are the C library's own: it lets no program set them, so that a program cannot hand them on as they were.
    stdout(&output)
        .lines()
        // In a user namespace of its own a process has every capability there, and groups without a name there.
        .filter(|line| !(in_a_user_namespace(case) && (line.starts_with("Cap") || line.starts_with("Groups"))))
        .map(|line| match line.split_once(":\t").filter(|(name, _)| name.starts_with("Sig")) {
            Some((name, mask)) => {
                let mask = u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31);
                format!("{name} {mask:016x}\n")
            }
            None => format!("{line}\n"),
        })
        .collect()
}

fn in_a_user_namespace(case: &Case) -> bool {
    // Both sides of the comparison leave the same lines out.
    let _ = case;
    !rustix::process::geteuid().is_root() && Way::wrapped().contains(&Way::Contained("pidns"))
}

#[test]
fn everything_a_process_inherits_is_the_callers() {
    for (ignored, default, blocked, no_new_privileges) in [
        ("[]", "[13]", "[]", false),
        ("[1,2,3,20,21,22]", "[13]", "[10,12]", true),
        ("[1,17]", "[13]", "range(1,65)", false),
    ] {
        let seen = same_as_without(|case| launched(case, [ignored, default, blocked], no_new_privileges));
        for line in ["Umask:\t0027", "SigBlk", "NoNewPrivs:", "Max core file size", "\n123\n"] {
            assert!(seen.contains(line), "{line} is not in {seen}");
        }
        assert_eq!(seen.contains("NoNewPrivs:\t1"), no_new_privileges);
    }
}

#[test]
fn nohup_and_the_like_pass_through() {
    for before in ["nohup", "nice -n 3", "env -i A=b", "setsid --wait", "timeout 60"] {
        same_as_without(|case| {
            let line = format!(
                "exec {before} {} sh -c 'grep -E \"^Sig(Blk|Ign|Cgt)\" /proc/self/status; nice; echo $A' 2>&1 </dev/null",
                case.run()
            );
            let mut sh = Command::new("sh");
            sh.args(["-c", &line]).stdout(std::process::Stdio::piped());
            stdout(&Running::start(&mut sh).finish())
        });
    }
}

/// What is open, where it leads and how, but for the terminal's and the listing's own.
const LIST: &str = "import os, sys\n\
    for n in sorted(map(int, os.listdir('/proc/self/fd'))):\n\
    \x20   try: print(n, os.readlink(f'/proc/self/fd/{n}'), open(f'/proc/self/fdinfo/{n}').read().split()[3], os.get_inheritable(n))\n\
    \x20   except OSError: pass";

#[test]
fn the_callers_descriptors_stay_open_and_none_is_added() {
    for redirections in [
        "",
        "5</dev/null 9>>note 63<>note",
        "3</dev/null 4</dev/null 6</dev/null 7</dev/null 8</dev/null 200</dev/null",
        "<&- 2>&- 3</dev/null",
        "<&- >&- 2>&- 7>note",
    ] {
        let seen = same_as_without(|case| {
            // Written to a file: the streams may be closed. In a place of the same name for all.
            let program = case.file("list.py", &format!("import sys\nresult = []\nprint = lambda *all: result.append(all)\n{LIST}\nopen(sys.argv[1], 'w').write('\\n'.join(map(str, result)) + '\\n')"));
            let line = format!("exec {} {} -ES {program} listed {redirections}", case.run(), python());
            let mut bash = Command::new("bash");
            bash.args(["-c", &line]).current_dir(case.directory());
            bash.stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            assert!(Running::start(&mut bash).finish().status.success());
            let listed = std::fs::read_to_string(case.path("listed")).unwrap();
            listed.replace(case.directory().to_str().unwrap(), "")
        });
        assert!(seen.lines().count() >= redirections.matches("/dev/null").count(), "{seen}");
    }
}

/// Takes sockets as systemd gives them: from descriptor 3 on, with the number of the one they are meant for.
const ACTIVATED: &str = "import os, socket, sys\n\
    pair = socket.socketpair()\n\
    pair[0].send(b'hello')\n\
    os.dup2(pair[1].fileno(), 100); os.dup2(100, 3); os.dup2(100, 4); os.closerange(5, 200)\n\
    mine = str(os.getpid())\n\
    os.environ.update(LISTEN_FDS='2', LISTEN_FDNAMES='a:b', WATCHDOG_USEC='1000000', SYSTEMD_EXEC_PID=mine, WATCHDOG_PID=mine)\n\
    os.environ['LISTEN_PID'] = mine if sys.argv[1] == 'mine' else '1'\n\
    os.environ['LISTEN_PIDFDID'] = '1'\n\
    os.execvp(sys.argv[2], sys.argv[2:])";

#[test]
fn activation_sockets_are_handed_on_to_the_command() {
    for (whose, for_the_command) in [("mine", true), ("others", false)] {
        let seen = same_as_without(|case| {
            let show = "import os, socket\n\
                names = ('LISTEN_PID', 'WATCHDOG_PID', 'SYSTEMD_EXEC_PID')\n\
                print([os.environ[name] == str(os.getpid()) for name in names], os.environ['LISTEN_FDS'], os.environ['LISTEN_FDNAMES'])\n\
                print(socket.socket(fileno=3).recv(10), socket.socket(fileno=4).family.name)";
            let mut command = Command::new(python());
            command.args(["-ES", "-c", ACTIVATED, whose]).args(case.words()).args([python(), "-ES", "-c", show]);
            command
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            let output = Running::start(&mut command).finish();
            assert!(output.status.success(), "{}", stderr(&output));
            stdout(&output)
        });
        let first = if for_the_command { "True" } else { "False" };
        assert_eq!(seen, format!("[{first}, True, True] 2 a:b\nb'hello' AF_UNIX\n"));
    }
}
