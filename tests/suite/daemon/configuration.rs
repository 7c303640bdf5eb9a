//! Bad input: one clear message that says what to do, the right exit code, and nothing started.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::harness::sidecar::{BINARY, Setup, chmod, clean_environment, write_key};

fn setup() -> Setup {
    // Nothing listens there: nothing may be asked either.
    Setup::new("http://127.0.0.1:1", "org_test", "host:test")
}

/// Runs the daemon, which must refuse with exit code 2 and one line; gives that line.
fn refusal(command: &mut Command) -> String {
    let Output { status, stderr, stdout } = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(stdout.is_empty());
    text
}

fn says(text: &str, needles: &[&str]) {
    for needle in needles {
        assert!(text.contains(needle), "{needle:?} is not in: {text}");
    }
}

#[test]
fn malformed_toml_is_refused_with_file_and_line() {
    let setup = setup();
    let path = setup.configuration();
    fs::write(&path, "[authority]\nurl = \n").unwrap();
    let mut command = Command::new(BINARY);
    clean_environment(&mut command, setup.directory.path());
    let text = refusal(command.arg("--config").arg(&path));
    says(&text, &[&format!("{}:2: ", path.display())]);
}

#[test]
fn an_unknown_key_is_refused_with_those_that_are_known() {
    let mut setup = setup();
    setup.enforcement += "\ngrace = \"3s\"";
    says(&refusal(&mut setup.command()), &["grace", "stop_grace", ".toml:"]);
}

#[test]
fn a_lease_that_is_too_short_is_refused_with_one_that_is_not() {
    let mut setup = setup();
    setup.enforcement = "interval = \"5s\"\nlease = \"6s\"".to_owned();
    says(&refusal(&mut setup.command()), &["enforcement.lease", "at least 7s", ".toml:"]);
}

#[test]
fn a_key_file_everybody_can_read_is_refused_with_the_command_that_mends_it() {
    let setup = setup();
    chmod(&setup.key_file(), 0o644);
    let text = refusal(&mut setup.command());
    says(&text, &["authority.org_key_file", "chmod 600"]);
    assert!(!text.contains("org_test"));
}

#[test]
fn a_key_that_is_none_is_refused_without_being_shown() {
    let setup = setup();
    write_key(&setup.key_file(), "sk_live_topsecret");
    let text = refusal(&mut setup.command());
    says(&text, &["authority.org_key_file", "org_"]);
    assert!(!text.contains("topsecret"), "{text}");
}

#[test]
fn a_missing_key_file_and_no_key_at_all_are_refused() {
    let setup = setup();
    fs::remove_file(setup.key_file()).unwrap();
    says(&refusal(&mut setup.command()), &["authority.org_key_file", "cannot open"]);
    let path = setup.configuration();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("org_key_file", "# org_key_file")).unwrap();
    let mut command = Command::new(BINARY);
    clean_environment(&mut command, setup.directory.path());
    says(&refusal(command.arg("--config").arg(&path)), &["no org key", "MACHINEID_ORG_KEY", "credential"]);
}

#[test]
fn an_invalid_device_id_is_refused() {
    let mut setup = setup();
    setup.device = "not a device".to_owned();
    says(&refusal(&mut setup.command()), &["device.id", "' '", ".toml:"]);
}

#[test]
fn a_socket_path_that_is_too_long_or_in_a_missing_directory_is_refused() {
    let long = setup();
    let path = long.configuration();
    let text = fs::read_to_string(&path).unwrap();
    let with_socket = |socket: &str| {
        let quiet = text.replace("level = \"debug\"", "level = \"warn\"");
        let lines = quiet.lines().map(|line| if line.starts_with("socket =") { socket } else { line });
        lines.collect::<Vec<_>>().join("\n")
    };
    let run = || {
        let mut command = Command::new(BINARY);
        clean_environment(&mut command, long.directory.path());
        refusal(command.arg("--config").arg(&path))
    };
    fs::write(&path, with_socket(&format!("socket = \"/{}\"", "x".repeat(120)))).unwrap();
    says(&run(), &["local.socket", "121 bytes", "107"]);
    fs::write(&path, with_socket("socket = \"/nonexistent/machineid/s.sock\"")).unwrap();
    says(&run(), &["local.socket", "does not exist", "mkdir -p /nonexistent/machineid"]);
}

#[test]
fn a_named_configuration_that_does_not_exist_is_refused() {
    let setup = setup();
    let mut command = Command::new(BINARY);
    clean_environment(&mut command, setup.directory.path());
    says(&refusal(command.args(["--config", "/nonexistent.toml"])), &["/nonexistent.toml", "cannot open"]);
}

#[test]
fn in_front_of_a_command_a_bad_configuration_is_125_and_starts_nothing() {
    let mut setup = setup();
    setup.enforcement += "\nnope = 1";
    let proof = setup.directory.path().join("started");
    let output = setup.command().arg("--").arg("touch").arg(&proof).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!proof.exists());
}

#[test]
fn wrong_usage_is_2_and_in_front_of_a_command_125_and_starts_nothing() {
    let setup = setup();
    let wrong = setup.command().arg("--no-such-flag").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", String::from_utf8_lossy(&wrong.stderr));
    let proof = setup.directory.path().join("started");
    let output = setup.command().args(["--no-such-flag", "--", "touch"]).arg(&proof).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!proof.exists());
}

#[test]
fn check_config_says_what_the_settings_mean_and_holds_them_against_max_stop() {
    let setup = setup();
    let output = setup.command().arg("--check-config").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    says(&text, &["host:test", "http://127.0.0.1:1", "5.00 requests a second", "5s200ms", "9s"]);
    assert!(!text.contains("org_test"));

    let within = setup.command().args(["--check-config", "--max-stop", "9s"]).output().unwrap();
    assert_eq!(within.status.code(), Some(0));
    let beyond = setup.command().args(["--check-config", "--max-stop", "8s"]).output().unwrap();
    assert_eq!(beyond.status.code(), Some(1));
    says(&String::from_utf8_lossy(&beyond.stderr), &["9s", "--max-stop 8s", "enforcement.lease"]);
}

#[test]
fn check_config_refuses_what_the_start_refuses_in_the_same_words() {
    let setup = setup();
    let path = setup.configuration();
    let (right, socket) = (fs::read_to_string(&path).unwrap(), setup.socket());
    let no_certificate = setup.directory.path().join("ca.pem");
    fs::write(&no_certificate, "no certificate\n").unwrap();
    let elsewhere =
        right.replace(&format!("{socket:?}"), &format!("{:?}", setup.directory.path().join("none/api.sock")));
    let in_the_place_of_the_socket = right.replace(&format!("{socket:?}"), &format!("{no_certificate:?}"));
    for (wrong, needle) in [
        (right.replace("[local]\n", "[local]\ngroup = \"no-such-group\"\n"), "local.group"),
        (right.replace("[authority]\n", &format!("[authority]\nca_file = {no_certificate:?}\n")), "authority.ca_file"),
        (elsewhere, "does not exist"),
        (in_the_place_of_the_socket, "is not a socket"),
    ] {
        assert_ne!(wrong, right, "{needle}");
        fs::write(&path, wrong).unwrap();
        // The start logs as well; the refusal is its last line.
        let start = |arguments: &[&str]| {
            let mut command = Command::new(BINARY);
            clean_environment(&mut command, setup.directory.path());
            let output = command.arg("--config").arg(&path).args(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{needle}");
            String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned()
        };
        let (started, checked) = (start(&[]), start(&["--check-config"]));
        says(&checked, &[needle]);
        assert_eq!(checked, started);
    }
}

#[test]
fn the_key_from_the_environment_works_and_is_warned_about() {
    let mut setup = setup();
    fs::remove_file(setup.key_file()).unwrap();
    let output = setup.command().arg("--check-config").env("MACHINEID_ORG_KEY", "org_env").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    says(&String::from_utf8_lossy(&output.stdout), &["environment variable MACHINEID_ORG_KEY"]);
    // The log begins with the warning, whatever happens next.
    setup.local = "group = \"no-such-group\"".to_owned();
    let output = setup.command().env("MACHINEID_ORG_KEY", "org_env").output().unwrap();
    says(&String::from_utf8_lossy(&output.stderr), &["WARN", "the org key came from the environment"]);
}

#[test]
fn a_file_the_environment_names_is_never_replaced_by_the_defaults() {
    let setup = setup();
    setup.configuration();
    let mut command = Command::new(BINARY);
    clean_environment(&mut command, setup.directory.path());
    command.current_dir(setup.directory.path()).env("MACHINEID_CONFIG", "missing.toml");
    says(&refusal(&mut command), &["missing.toml", "cannot open"]);
    command.env("MACHINEID_CONFIG", "machineid-sidecar.toml").arg("--check-config");
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("host:test"), "{output:?}");
}

#[test]
fn a_variable_that_is_no_text_is_refused_and_not_taken_for_unset() {
    use std::os::unix::ffi::OsStrExt;
    let setup = setup();
    for name in ["MACHINEID_DEVICE_ID", "MACHINEID_BASE_URL", "MACHINEID_ORG_KEY"] {
        let mut command = setup.command();
        command.env(name, std::ffi::OsStr::from_bytes(b"org_\xff"));
        says(&refusal(&mut command), &[name, "UTF-8"]);
    }
}

#[test]
fn a_daemon_that_cannot_start_leaves_no_socket_behind() {
    let mut setup = setup();
    setup.local = "group = \"no-such-group\"".to_owned();
    let output = setup.command().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(&String::from_utf8_lossy(&output.stderr), &["local.group", "no-such-group"]);
    assert!(!setup.socket().exists());
}
