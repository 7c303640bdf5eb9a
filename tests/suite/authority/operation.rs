//! Starting, stopping, crashing, failing; and the operator's command line.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::authority::{Authority, BINARY, database_flag};
use crate::harness::wait::until;
use crate::harness::{PATIENCE, http};

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Does something to a database behind its server's back.
fn tamper(authority: &Authority, statements: &str) -> Connection {
    let connection = Connection::open(authority.database()).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection.execute_batch(statements).unwrap();
    connection
}

#[test]
fn what_was_answered_survives_a_crash() {
    let mut authority = Authority::start();
    let made = authority.admin_json(&["create"]);
    let key = made["orgApiKey"].as_str().unwrap();
    let post = |authority: &Authority, verb: &str| {
        authority.call("POST", &format!("/devices/{verb}"), Some(key), br#"{"deviceId":"a"}"#).json()
    };
    assert_eq!(post(&authority, "register")["status"], "ok");
    assert_eq!(post(&authority, "validate")["code"], "ALLOW");
    assert_eq!(post(&authority, "revoke")["status"], "ok");
    authority.kill();
    authority.start_again();
    assert_eq!(post(&authority, "validate")["code"], "DEVICE_REVOKED");
    authority.admin_json(&["disable", made["orgId"].as_str().unwrap()]);
    authority.kill();
    authority.start_again();
    assert_eq!(post(&authority, "validate")["code"], "ORG_DISABLED");
}

#[test]
fn sigterm_ends_it_cleanly_and_nothing_seen_is_lost() {
    let mut authority = Authority::start();
    let made = authority.admin_json(&["create"]);
    let key = made["orgApiKey"].as_str().unwrap();
    for verb in ["register", "validate"] {
        authority.call("POST", &format!("/devices/{verb}"), Some(key), br#"{"deviceId":"a"}"#);
    }
    assert_eq!(authority.terminate().code(), Some(0));
    assert!(!authority.admin_socket().exists());
    authority.start_again();
    let list = authority.call("GET", "/devices/list", Some(key), b"").json();
    assert!(list["devices"][0]["lastSeenAt"].is_string(), "{list}");
}

#[test]
fn connections_that_say_nothing_do_not_hold_up_its_end() {
    use std::io::{Read, Write};
    let mut authority = Authority::start();
    let silent = TcpStream::connect(authority.address()).unwrap();
    let mut kept_alive = TcpStream::connect(authority.address()).unwrap();
    kept_alive.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(kept_alive.read(&mut [0; 4096]).unwrap() > 0);
    let mut half = TcpStream::connect(authority.address()).unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    assert_eq!(authority.terminate().code(), Some(0));
    drop((silent, kept_alive, half));
}

#[test]
fn nobody_else_may_use_the_admin_socket_even_where_its_mode_lets_them() {
    let authority = Authority::start();
    if !rustix::process::geteuid().is_root() {
        // Only root can become another user.
        return;
    }
    for (path, mode) in [(authority.directory().to_owned(), 0o755), (authority.admin_socket(), 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut python = Command::new("python3");
    python.uid(65534).gid(65534).arg("-c").arg(
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
         s.sendall(b'{\"request\":{\"verb\":\"list\"}}\\n'); print(len(s.recv(100)))",
    );
    let output = python.arg(authority.admin_socket()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    // Hung up on, before or after the question was sent.
    assert!(told.trim() == "0" || stderr(&output).contains("Error"), "{told} {}", stderr(&output));
    let refusal = "refused an admin connection from another user";
    until("the refusal is logged", || authority.log().contains(refusal).then_some(()));
    authority.org("free");
}

#[test]
fn a_store_that_fails_denies_and_recovers_by_itself() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    assert_eq!(org.code("a"), "ALLOW");
    drop(tamper(&authority, "ALTER TABLE devices RENAME TO hidden"));

    let reply = org.device("validate", "a");
    let answer = reply.json();
    assert_eq!((reply.status, &answer["allowed"], &answer["code"]), (503, &json!(false), &json!("SYSTEM_UNAVAILABLE")));
    assert_eq!(answer["request_id"].as_str().map(str::len), Some(36));
    for verb in ["register", "revoke", "unrevoke", "remove"] {
        let reply = org.device(verb, "a");
        assert_eq!((reply.status, &reply.json()["error"]), (503, &json!("system_unavailable")), "{verb}");
        assert!(reply.json()["request_id"].is_string());
    }
    assert_eq!(org.get("/usage").status, 503);

    drop(tamper(&authority, "ALTER TABLE hidden RENAME TO devices"));
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn ready_is_not_said_while_the_store_fails() {
    let authority = Authority::start();
    let see = |path: &str| http::request(authority.address(), "GET", path, &[], b"").status;
    assert_eq!((see("/healthz"), see("/readyz")), (200, 200));
    drop(tamper(&authority, "PRAGMA foreign_keys = OFF; ALTER TABLE orgs RENAME TO hidden"));
    assert_eq!((see("/healthz"), see("/readyz")), (200, 503));
}

#[test]
fn while_the_database_is_locked_changes_fail_and_decisions_go_on() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    let lock = tamper(&authority, "BEGIN IMMEDIATE");
    let reply = org.device("revoke", "a");
    assert_eq!((reply.status, &reply.json()["written"]), (202, &json!(false)));
    assert_eq!(org.code("a"), "DEVICE_REVOKED", "the revoke is in force without the database");
    assert_eq!(org.device("unrevoke", "a").status, 503);
    drop(lock);
    assert_eq!(org.device("revoke", "a").status, 200);
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
}

#[test]
fn a_second_server_on_the_same_database_is_refused() {
    let authority = Authority::start();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--database", &database_flag(authority.directory())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another authority already serves the admin socket"), "{}", stderr(&output));
    let other = authority.directory().join("other.sock");
    let output = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database",
        &database_flag(authority.directory()),
        "--admin-socket",
        other.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another authority already serves the database"), "{}", stderr(&output));
    authority.org("free").register(&["a"]);
}

#[test]
fn a_stale_admin_socket_is_replaced_and_anything_else_is_left_alone() {
    let mut authority = Authority::start();
    authority.kill();
    assert!(authority.admin_socket().exists(), "a crash leaves it behind");
    authority.start_again();
    authority.org("free");
    let mode = fs::metadata(authority.admin_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::metadata(authority.database()).unwrap().permissions().mode() & 0o777, 0o600);

    let directory = TempDir::new().unwrap();
    let precious = directory.path().join("precious");
    fs::write(&precious, "text").unwrap();
    let database = database_flag(directory.path());
    let output = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database",
        &database,
        "--admin-socket",
        precious.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is not a socket"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(precious).unwrap(), "text");
}

#[test]
fn an_admin_socket_that_is_removed_while_the_server_lives_is_made_again() {
    let authority = Authority::start();
    let mode = fs::metadata(authority.admin_socket()).unwrap().permissions().mode();
    let lock = authority.admin_socket().with_extension("sock.lock");
    assert!(lock.exists());
    for files in [vec![authority.admin_socket()], vec![lock.clone()], vec![authority.admin_socket(), lock.clone()]] {
        for file in &files {
            fs::remove_file(file).unwrap();
        }
        until("the command line is served again", || {
            (lock.exists() && authority.admin(&["list"]).status.success()).then_some(())
        });
        assert_eq!(fs::metadata(authority.admin_socket()).unwrap().permissions().mode(), mode);
    }
    assert!(authority.log().contains("the admin socket was removed and has been recreated"), "{}", authority.log());
}

#[test]
fn what_cannot_be_served_is_said_with_a_remedy() {
    let directory = TempDir::new().unwrap();
    let database = database_flag(directory.path());
    let long = format!("/tmp/{}", "x".repeat(120));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    for (arguments, code, text) in [
        (vec!["--database", "postgres://127.0.0.1/db"], 2, "name it with --admin-socket PATH"),
        (vec!["--database", "postgres://h/db"], 2, "sslmode=verify-full"),
        (vec!["--database", "postgres://u:secret@h:x/db"], 2, "PGPASSWORD"),
        (vec!["--database", "authority.db"], 2, "use sqlite:PATH"),
        (vec![], 2, "--database"),
        (vec!["--database", "sqlite:/nonexistent/x.db"], 1, "cannot make the admin socket"),
        (vec!["--database", &database, "--admin-socket", &long], 1, "Name a shorter one with --admin-socket"),
        (vec!["--database", &database, "--listen", &port], 1, "another port with --listen"),
        (vec!["--database", &database, "--listen", "0.0.0.0:0"], 2, "--allow-http"),
        (vec!["--database", &database, "--public-url", "example.com"], 2, "https://authority.example.com"),
    ] {
        let output = run(&[vec!["serve"], arguments.clone()].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn organisations_are_administered_through_the_running_server() {
    let authority = Authority::start();
    let made = authority.admin_json(&["create", "--name", "Acme", "--plan", "pro"]);
    let fields: Vec<_> = made.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["orgApiKey", "orgId", "planTier"]);
    assert_eq!(made["planTier"], "pro");
    let id = made["orgId"].as_str().unwrap();
    let state = |arguments: &[&str]| authority.admin_json(arguments)["state"].as_str().unwrap().to_owned();
    assert_eq!(state(&["show", id]), "active");
    assert_eq!(state(&["expire", id]), "expired");
    assert_eq!(state(&["freeze", id]), "frozen");
    assert_eq!(state(&["disable", id]), "disabled");
    assert_eq!(state(&["enable", id]), "frozen");
    assert_eq!(authority.admin_json(&["set-plan", id, "max"])["limit"], 1000);
    let list = authority.admin_json(&["list"]);
    assert_eq!((&list[0]["orgId"], &list[0]["name"]), (&json!(id), &json!("Acme")));
    let table = String::from_utf8(authority.admin(&["list"]).stdout).unwrap();
    assert!(table.contains(id) && table.contains("frozen") && table.contains("0/1000"), "{table}");

    let refused = authority.admin(&["delete", id]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--yes"));
    assert_eq!(state(&["delete", id, "--yes"]), "deleted");
    assert_eq!(state(&["show", id]), "deleted");
    assert_eq!(authority.admin_json(&["list"]), json!([]));
    for arguments in [&["enable", id][..], &["show", "1b4e28ba-2fa1-41d2-883f-0016d3cca427"]] {
        let output = authority.admin(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains("there is no organisation"), "{}", stderr(&output));
    }
    assert_eq!(authority.admin(&["show", "not-an-id"]).status.code(), Some(2));
    let log = authority.log();
    assert!(!log.contains(made["orgApiKey"].as_str().unwrap()), "the key is in the log");
}

#[test]
fn without_a_server_the_command_line_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let database = database_flag(directory.path());
    let output = run(&["org", "list", "--database", &database]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Start one with `machineid-authority serve`"), "{}", stderr(&output));
    let socket = directory.path().join("authority.db.admin.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let output = run(&["org", "list", "--admin-socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no process listens"), "{}", stderr(&output));
    let output = run(&["org", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--database sqlite:PATH"), "{}", stderr(&output));
}

#[test]
fn an_admin_request_that_makes_no_sense_is_dropped_and_the_server_serves_on() {
    use std::io::{Read, Write};
    let authority = Authority::start();
    for bytes in [&b"nonsense\n"[..], b"{\"request\":{\"verb\":\"other\"}}\n", b"{\"request\":{\"verb\":\"list\""] {
        let mut stream = std::os::unix::net::UnixStream::connect(authority.admin_socket()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert!(reply.is_empty(), "{}", String::from_utf8_lossy(&reply));
    }
    authority.org("free");
}
