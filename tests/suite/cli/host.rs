//! `check` and `status`, against a scripted daemon: what they make of each answer.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::fixture::{Ran, RunToEnd, Scripted, machineid, response};
use tempfile::TempDir;

fn daemon(answer: &str) -> (TempDir, PathBuf, Scripted) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sidecar.sock");
    let scripted = Scripted::unix(&socket, &[answer.to_owned()]);
    (directory, socket, scripted)
}

fn check(answer: &str, args: &[&str]) -> Ran {
    let (_directory, socket, _scripted) = daemon(answer);
    machineid(&[&["check", "--socket", socket.to_str().unwrap()], args].concat()).ran()
}

const ALLOW: &str = r#"{"allowed":true,"code":"ALLOW","request_id":"r-1","device_id":"host:a","validated_at":"2026-11-23T15:00:00Z","age_ms":40,"reason":null}"#;
const DENY: &str = r#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-2","device_id":"host:a","validated_at":null,"age_ms":null,"reason":"The device is revoked."}"#;

#[test]
fn check_says_yes_no_or_could_not_find_out_by_its_exit_code() {
    let ran = check(&response("200 OK", ALLOW), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "allowed: host:a (request r-1, asked 0.0s ago)\n"));
    let ran = check(&response("403 Forbidden", DENY), &[]);
    assert_eq!(ran.code, 77);
    assert_eq!(ran.out, "denied: host:a (DEVICE_REVOKED, request r-2): The device is revoked.\n");
    let unreachable = DENY.replace("DEVICE_REVOKED", "AUTHORITY_UNREACHABLE");
    let ran = check(&response("503 Service Unavailable", &unreachable), &[]);
    assert!(ran.code == 75 && ran.out.starts_with("could not find out"), "{ran:?}");

    let ran = check(&response("403 Forbidden", DENY), &["--json"]);
    assert_eq!((ran.code, ran.json()), (77, serde_json::from_str::<serde_json::Value>(DENY).unwrap()));
    let ran = check(&response("403 Forbidden", DENY), &["-q"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (77, "", ""));
    let ran = check(&response("200 OK", ALLOW), &["--quiet"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
}

#[test]
fn nothing_but_a_whole_yes_is_exit_code_0() {
    for answer in [
        response("403 Forbidden", ALLOW),
        response("503 Service Unavailable", ALLOW),
        response("204 No Content", ""),
        response("200 OK", DENY),
        response("200 OK", "{}"),
        response("200 OK", "ok"),
        response("200 OK", &ALLOW.replace("true", "\"true\"")),
        response("200 OK", &ALLOW.replace("\"ALLOW\"", "\"DEVICE_REVOKED\"")),
        response("200 OK", ALLOW).replace("content-length: ", "content-length: 9"),
        format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n{ALLOW}"),
        "SSH-2.0\r\n\r\n".to_owned(),
        String::new(),
    ] {
        for args in [&[][..], &["-q"], &["--json"]] {
            let ran = check(&answer, args);
            assert_eq!(ran.code, 75, "{answer}: {ran:?}");
        }
    }
}

#[test]
fn check_asks_what_it_was_told_to_ask() {
    let (_directory, socket, scripted) = daemon(&response("200 OK", ALLOW));
    let socket = socket.to_str().unwrap();
    machineid(&["check", "--socket", socket, "--device", "worker:1/a@b", "--max-age", "2s"]).ran();
    machineid(&["check"]).env("MACHINEID_SOCKET", socket).ran();
    // A proxy for http in the environment is none for the socket.
    machineid(&["check"]).env("MACHINEID_SOCKET", socket).env("http_proxy", "http://127.0.0.1:1").ran();
    let requests = scripted.requests();
    assert!(requests[0].starts_with("GET /v1/check?device=worker%3A1%2Fa%40b&max_age=2s HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[1].starts_with("GET /v1/check HTTP/1.1\r\n"), "{requests:?}");
    assert_eq!(requests.len(), 3);
    for wrong in [["--device", "a b"], ["--max-age", "2"]] {
        assert_eq!(machineid(&[&["check", "--socket", socket], &wrong[..]].concat()).ran().code, 2);
    }
}

#[test]
fn no_daemon_says_where_it_looked_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("machineid/sidecar.sock");
    for (command, code) in [("check", 75), ("status", 75), ("events", 75)] {
        let ran = machineid(&[command, "--socket", socket.to_str().unwrap()]).ran();
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.err.contains("nothing listens on") && ran.err.contains(socket.to_str().unwrap()), "{ran:?}");
        assert!(ran.err.contains("is machineid-sidecar running?"), "{ran:?}");
        let too_long = format!("/{}", "x".repeat(200));
        let ran = machineid(&[command, "--socket", &too_long]).ran();
        assert!(ran.code == code && ran.err.contains("too long"), "{ran:?}");
    }
    let ran = machineid(&["check", "-q", "--socket", socket.to_str().unwrap()]).ran();
    assert_eq!((ran.code, ran.err.as_str()), (75, ""));
    // A socket file that its daemon left behind.
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("stale.sock")).unwrap());
    let ran = machineid(&["check", "--socket", directory.path().join("stale.sock").to_str().unwrap()]).ran();
    assert!(ran.code == 75 && ran.err.contains("nothing listens on"), "{ran:?}");
}

#[test]
fn a_daemon_that_hangs_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hung.sock");
    let _hung = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let children = ["check", "status"].map(|command| {
        let mut command = machineid(&[command, "--socket", socket.to_str().unwrap()]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    });
    for (child, code) in children.into_iter().zip([75, 75]) {
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert!(ran.code == code && ran.err.contains("gave no answer within 10s"), "{ran:?}");
    }
}

#[test]
fn a_check_gives_a_hung_daemon_up_as_soon_as_it_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hung.sock");
    let _hung = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let socket = socket.to_str().unwrap();
    let ran = machineid(&["check", "--socket", socket, "--timeout", "50ms"]).ran();
    assert!(ran.code == 75 && ran.err.contains("gave no answer within 50ms"), "{ran:?}");
    let ran = machineid(&["check", "--quiet", "--socket", socket, "--timeout", "0s"]).ran();
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (75, "", ""));
    assert_eq!(machineid(&["check", "--socket", socket, "--timeout", "1"]).ran().code, 2);
}

#[test]
fn the_user_s_socket_is_found_in_the_runtime_directory() {
    if std::path::Path::new("/run/machineid/sidecar.sock").exists() {
        // A system daemon on this host goes first, as it should.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("machineid")).unwrap();
    let _scripted = Scripted::unix(&directory.path().join("machineid/sidecar.sock"), &[response("200 OK", ALLOW)]);
    let ran = machineid(&["check"]).env("XDG_RUNTIME_DIR", directory.path()).ran();
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = machineid(&["check"]).ran();
    assert!(ran.code == 75 && ran.err.contains("--socket"), "{ran:?}");
}

#[test]
fn a_socket_that_may_not_be_opened_names_the_group() {
    let (directory, socket, _scripted) = daemon(&response("200 OK", ALLOW));
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = machineid(&["check", "--socket", socket.to_str().unwrap()]);
    if rustix::process::geteuid().is_root() {
        // Root may open everything; nobody may not. The program must be where nobody can run it.
        let copy = directory.path().join("machineid");
        std::fs::copy(env!("CARGO_BIN_EXE_machineid"), &copy).unwrap();
        std::os::unix::fs::chown(&socket, None, Some(12_345)).unwrap();
        let socket = socket.clone();
        command = std::process::Command::new(copy);
        command.args(["check", "--socket", socket.to_str().unwrap()]).env_clear();
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        std::os::unix::process::CommandExt::gid(&mut command, 65_534);
    }
    let ran = command.ran();
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(ran.err.contains("no permission to open"), "{ran:?}");
    assert!(ran.err.contains("usermod -aG") || ran.err.contains("ask the daemon's administrator"), "{ran:?}");
    if rustix::process::geteuid().is_root() {
        assert!(ran.err.contains("the group 12345"), "{ran:?}");
    }
}

const STATUS: &str = r#"{
  "version":"0.1.0","pid":4711,"started_at":"2026-11-23T15:00:00Z","socket":"/run/machineid/sidecar.sock",
  "authority":{"url":"https://machineid.io","reachable":false,"last_answer_at":"2026-11-23T15:00:00Z","last_error":"could not connect"},
  "stop_bound":{"connected_ms":19500,"cut_off_ms":41000},
  "configuration":{"file":null,"key_source":"/etc/machineid/key","key_protection":"another user's file"},
  "devices":[{"device_id":"host:a","host":true,"standing":"denied","since":"2026-11-23T15:00:00Z",
    "last_decision":{"at":"2026-11-23T15:00:00Z","allowed":false,"code":"DEVICE_REVOKED","request_id":"r-1","reason":null},
    "last_error":"timed out \u001b[2J here","next_validation_ms":2500,"lease_left_ms":null,"agents":1}],
  "agents":[{"run_id":"000102030405060708090a0b0c0d0e0f","pid":4712,"name":"scraper\u001b[2J","command":["python3","a.py"],
    "device_id":"host:a","uid":1000,"started_at":"2026-11-23T15:00:00Z","uptime_ms":61000,"lease_left_ms":12000,
    "state":"stopping","stop_code":"DEVICE_REVOKED","containment":"cgroup","holds_against":"hostile",
    "containment_reason":"a leaf that root made","frozen":true,"killer":"daemon"}],
  "recent_stops":[{"run_id":"00000000000000000000000000000001","name":"indexer","device_id":"host:a","code":"LOCAL_STOP",
    "request_id":null,"began_at":"2026-11-23T15:00:00Z","mechanism":"pidns","holds_against":"hostile","signalled":3,
    "killed":1,"took_ms":10012,"confirmed":true,"survivors":[]},
    {"run_id":"00000000000000000000000000000002","name":"mailer","device_id":"host:a","code":"LEASE_EXPIRED",
    "request_id":null,"began_at":"2026-11-23T15:00:00Z","mechanism":"subreaper","holds_against":"bugs","signalled":2,
    "killed":2,"took_ms":12500,"confirmed":false,"survivors":[{"pid":4800,"reason":"it runs as another user\u001b[2J"}]}],
  "of_a_newer_daemon":true}"#;

#[test]
fn status_is_a_page_for_people_and_the_daemon_s_own_words_as_json() {
    let (_directory, socket, scripted) = daemon(&response("200 OK", STATUS));
    let socket = socket.to_str().unwrap();
    let ran = machineid(&["status", "--socket", socket]).ran();
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "machineid-sidecar 0.1.0, pid 4711",
        "https://machineid.io, does not answer",
        "could not connect",
        "19s500ms while the authority answers, 41s while it does not",
        "another user's file",
        "host:a (host)",
        "denied",
        "DEVICE_REVOKED",
        "in 2.5s",
        "timed out",
        "scraper",
        "4712",
        "1m 1s",
        "12s",
        "cgroup",
        "hostile",
        "stopping: DEVICE_REVOKED",
        "cgroup, holds against hostile agents, FROZEN until its device is decided: a leaf that root made",
        "pidns (against hostile)",
        "10.012 s",
        "3 signalled, 1 killed",
        "1 SURVIVOR",
        "mailer: pid 4800 outlived SIGKILL: it runs as another user",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'), "{}", ran.out);
    let line = |name: &str| ran.out.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("indexer").contains("confirmed") && !line("mailer").contains("confirmed"), "{}", ran.out);
    let json = machineid(&["status", "--json", "--socket", socket]).ran().json();
    assert_eq!(json, serde_json::from_str::<serde_json::Value>(STATUS).unwrap());
    assert!(scripted.requests()[0].starts_with("GET /v1/status HTTP/1.1"));
}

#[test]
fn status_of_something_else_is_a_failure() {
    for answer in [response("200 OK", "{}"), response("404 Not Found", STATUS), response("200 OK", "hello")] {
        let (_directory, socket, _scripted) = daemon(&answer);
        let ran = machineid(&["status", "--socket", socket.to_str().unwrap()]).ran();
        assert!(ran.code == 75 && ran.err.contains("did not answer like machineid-sidecar"), "{ran:?}");
    }
}
