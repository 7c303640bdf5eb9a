//! `machineid init`: from installed programs to a daemon that a doctor finds well.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::fixture::{Authority, Ran, RunToEnd, machineid};
use crate::harness::{pty, wait};

/// A setup below a directory of its own. What it started is ended when it is dropped.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("m")
    }

    fn init(&self, args: &[&str]) -> Command {
        let path = self.path();
        let mut command = machineid(&[&["init", "--directory", path.to_str().unwrap()], args].concat());
        command.env("HOME", self.directory.path()).env("PATH", "/usr/bin:/bin");
        command
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    fn mode(&self, name: &str) -> u32 {
        self.path().join(name).metadata().unwrap().permissions().mode() & 0o777
    }

    fn names(&self) -> Vec<String> {
        let found = fs::read_dir(self.path()).into_iter().flatten();
        let mut names: Vec<String> = found.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The started processes name the directory in their command lines.
        let own = self.path();
        let own = own.to_str().unwrap();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(own) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                wait::eventually("what init started has ended", || !Path::new(&format!("/proc/{pid}")).exists());
            }
        }
    }
}

/// Runs a command on a terminal and types each answer at its question. Returns the exit code and the screen.
fn typed(mut command: Command, answers: &[(&str, &str)]) -> (i32, String) {
    let (mut master, slave) = pty::open();
    command
        .stdin(Stdio::from(slave.try_clone().unwrap()))
        .stdout(Stdio::from(slave.try_clone().unwrap()))
        .stderr(Stdio::from(slave));
    let mut child = command.spawn().unwrap();
    drop(command);
    let (mut screen, mut seen, mut part) = (Vec::new(), 0, [0; 4096]);
    let mut answers = answers.iter();
    let mut next = answers.next();
    while let Ok(length @ 1..) = master.read(&mut part) {
        screen.extend_from_slice(&part[..length]);
        if let Some((question, answer)) = next
            && String::from_utf8_lossy(&screen[seen..]).contains(question)
        {
            seen = screen.len();
            master.write_all(answer.as_bytes()).unwrap();
            next = answers.next();
        }
    }
    assert!(next.is_none(), "not asked: {next:?}; {}", String::from_utf8_lossy(&screen));
    (child.wait().unwrap().code().unwrap(), String::from_utf8_lossy(&screen).into_owned())
}

#[test]
fn with_an_authority_of_ones_own_it_ends_with_a_green_doctor_and_a_host_that_can_be_stopped() {
    let place = Place::new();
    let ran = place.init(&["--yes", "--url", "none", "--device", "laptop:init"]).ran();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.lines().last().unwrap().starts_with("0 failed, "), "{ran:?}");
    for (name, mode) in
        [("org-key", 0o600), ("admin-key", 0o600), ("machineid-sidecar.toml", 0o644), ("authority", 0o700)]
    {
        assert_eq!(place.mode(name), mode, "{name}");
    }
    let shown = format!("{}{}", ran.out, ran.err);
    for name in ["org-key", "admin-key"] {
        assert!(!shown.contains(place.read(name).trim()), "the key is printed: {shown}");
    }
    let socket = place.path().join("run/sidecar.sock");
    let check = || machineid(&["check", "--socket", socket.to_str().unwrap()]).ran();
    assert_eq!(check().code, 0, "{:?}", check());
    let url = format!("unix:{}", place.path().join("authority/api.sock").display());
    let by = |key: &str, verb: &str| -> Ran {
        let key = place.path().join(key);
        machineid(&[verb, "laptop:init", "--url", &url, "--org-key-file", key.to_str().unwrap()]).ran()
    };
    assert_eq!(by("admin-key", "revoke").code, 0);
    wait::eventually("the revoke arrives", || check().code == 77);
    assert_ne!(by("org-key", "unrevoke").code, 0, "the host's key lifts no revoke");

    let before = (place.read("machineid-sidecar.toml"), place.read("org-key"));
    let again = place.init(&["--yes", "--url", "none"]).ran();
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("exists, and nothing was changed"), "{again:?}");
    assert_eq!((place.read("machineid-sidecar.toml"), place.read("org-key")), before);
}

#[test]
fn on_a_terminal_it_asks_for_the_authority_the_key_and_the_device_and_shows_no_key() {
    let authority = Authority::start("free");
    let place = Place::new();
    let key = format!("{}\r", authority.key);
    let (url, wrong_key) = (format!("{}\n", authority.url), "sk_wrong\r");
    let (code, screen) = typed(
        place.init(&["--no-start"]),
        &[
            ("Authority: ", "\n"),
            ("Authority: ", "ftp://x\n"),
            ("Authority: ", &url),
            ("(not shown): ", wrong_key),
            ("(not shown): ", &key),
            ("device id [host:{hostname}:{machine_id}]: ", "laptop:me\n"),
        ],
    );
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains(&authority.key) && !screen.contains("sk_wrong"), "{screen}");
    assert!(screen.contains("start it: STATE_DIRECTORY="), "{screen}");
    assert_eq!(place.read("org-key"), format!("{}\n", authority.key));
    let config = place.read("machineid-sidecar.toml");
    assert!(
        config.contains(&format!("url = \"{}\"", authority.url)) && config.contains("id = \"laptop:me\""),
        "{config}"
    );

    let given_up = Place::new();
    let (code, screen) = typed(given_up.init(&[]), &[("Authority: ", &url), ("(not shown): ", "\x03")]);
    assert_eq!(code, 1, "{screen}");
    assert_eq!(given_up.names(), Vec::<String>::new());
}

#[test]
fn no_key_goes_anywhere_that_was_not_named_and_what_fails_leaves_nothing() {
    let place = Place::new();
    let key = place.directory.path().join("key");
    fs::write(&key, "org_key\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let key = key.to_str().unwrap();
    for (args, code, words) in [
        (&["--yes", "--key-file", key][..], 2, "--yes needs --url"),
        (&[][..], 2, "there is no terminal to ask on"),
        (&["--yes", "--url", "http://authority.example", "--key-file", key], 2, "--url"),
        (&["--yes", "--url", "https://authority.example"], 2, "--key-file"),
        (&["--yes", "--url", "none", "--no-start"], 2, "must be started"),
        (&["--yes", "--url", "none", "--key-file", key], 2, "does not go with"),
        (
            &["--yes", "--url", "unix:/run/none.sock", "--key-file", key, "--device", "a b", "--no-start"],
            1,
            "device.id",
        ),
        (&["--yes", "--url", "unix:/run/none.sock", "--key-file", "/nonexistent"], 2, "/nonexistent"),
    ] {
        let ran = place.init(args).ran();
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert!(ran.err.contains(words), "{args:?}: {ran:?}");
        let files: Vec<_> = place.names().into_iter().filter(|name| name != "run" && name != "state").collect();
        assert_eq!(files, Vec::<String>::new(), "{args:?}");
    }
}

#[test]
fn the_completion_of_each_program_is_the_one_that_packages_install() {
    for (shell, prefix, suffix) in [("bash", "bash/", ""), ("zsh", "zsh/_", ""), ("fish", "fish/", ".fish")] {
        for program in ["machineid", "machineid-run", "machineid-sidecar", "machineid-authority"] {
            let ran = machineid(&["completion", shell, "--program", program]).ran();
            let packaged = format!("{}/packaging/completions/{prefix}{program}{suffix}", env!("CARGO_MANIFEST_DIR"));
            assert_eq!((ran.code, ran.out), (0, fs::read_to_string(packaged).unwrap()), "{shell} {program}");
        }
    }
    assert_eq!(
        machineid(&["completion", "bash"]).ran().out,
        machineid(&["completion", "bash", "--program", "machineid"]).ran().out
    );
}
