//! A client in another container whose user has the same number as a user of the host.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::agents::{Agent, OBEDIENT, agents, as_user, ask_by, is_root, open_to_all, post, request};
use crate::harness::authority::Authority;
use crate::harness::place::skipped;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{BINARY, Setup, clean_environment, exchange};
use crate::harness::wait::until;
use crate::hostile::places::new_pid_namespace;

const USER: u32 = 54_331;
const STATUS: &str = "GET /v1/status HTTP/1.0\r\n\r\n";
/// What is in the command line of the agent that the others must not read.
const SECRET: &str = "password-in-a-command-line";

/// The command in a PID namespace of its own, made before it becomes another user.
fn contained(flags: &[&str], command: &Command) -> Command {
    behind(&[&["unshare"][..], flags, &["--mount-proc", "--kill-child"]].concat(), command)
}

/// The command with these words before it.
fn behind(words: &[&str], command: &Command) -> Command {
    let mut whole = Command::new(words[0]);
    whole.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => whole.env(name, value),
            None => whole.env_remove(name),
        };
    }
    whole.stdin(Stdio::null());
    whole
}

fn events(from: &std::path::Path, identity: impl Fn(&Command) -> Command) -> String {
    let client = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  s.sendall(b'GET /v1/events?from=oldest&follow=false HTTP/1.0\\r\\n\\r\\n'); print(s.makefile().read())";
    let mut command = Command::new("python3");
    command.args(["-c", client]).arg(from);
    String::from_utf8(identity(&command).output().unwrap().stdout).unwrap()
}

#[test]
fn the_same_number_in_another_pid_namespace_sees_no_agent_and_stops_none() {
    let Some(flags) = new_pid_namespace() else {
        return skipped("a client in another PID namespace", "this user can make no PID namespace");
    };
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:1").start();
    let agent = Agent::start(&sidecar, &["--name", "victim"], &format!(": {SECRET}; {OBEDIENT}"));
    let socket = sidecar.socket();
    let attack = |text: &str| ask_by(|client| contained(&flags, client), &[], &socket, text);
    let (status, page) = attack(STATUS);
    assert_eq!((status, &page["agents"]), (200, &json!([])), "{page}");
    assert!(!page.to_string().contains(SECRET), "{page}");
    let run = agents(&sidecar)[0]["run_id"].clone();
    for wish in [json!({"all": true}), json!({"name": "victim"}), json!({"run_id": run}), json!({"device": "host:1"})] {
        assert_eq!(attack(&request("/v1/stop", &wish)).0, 404, "{wish}");
    }
    for path in ["/v1/hold", "/v1/release"] {
        assert_eq!(attack(&request(path, &json!({"all": true}))).0, 403, "{path}");
    }
    let told = events(&socket, |client| contained(&flags, client));
    assert!(told.contains("event: decision") && !told.contains("agent-started"), "{told}");
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn a_container_sees_and_stops_its_own_agents_and_command_lines_are_for_those_who_may_see_all() {
    if !is_root("users and containers") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    open_to_all(&mut setup);
    let sidecar = setup.start();
    let socket = sidecar.socket();
    // Asks for itself before it says that it is ready.
    let ask = format!(
        "python3 -c \"import json, socket; s = socket.socket(socket.AF_UNIX); s.connect('{}'); \
         s.sendall(b'GET /v1/status HTTP/1.0\\r\\n\\r\\n'); text = s.makefile().read().splitlines()[-1]; \
         print('inside', *(agent['name'] for agent in json.loads(text)['agents']), '{SECRET}' in text)\"",
        socket.display()
    );
    let script = format!(": {SECRET}; {ask}; {OBEDIENT}");
    let outside = Agent::start_as(USER, &sidecar, &["--name", "outside"], &script);
    assert!(outside.wrapped.stdout().contains("inside outside True"), "its own: {}", outside.wrapped.stdout());
    let wrap = as_user(USER, &sidecar.wrap(&["--name", "within"], &["sh", "-c", &script]));
    let mut within = Wrapped::start(contained(&["--pid", "--fork"], &wrap));
    within.line_with("agent ready");
    let names = |page: &Value| {
        let agents = page["agents"].as_array().unwrap();
        agents.iter().map(|agent| agent["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(within.stdout().contains("inside within True"), "its own: {}", within.stdout());

    // The user on the host has both, and root reads what they are.
    let (_, page) = ask_by(|client| as_user(USER, client), &[], &socket, STATUS);
    assert_eq!((page["agents"].as_array().unwrap().len(), &page["agents_shown"]), (2, &json!("own")), "{page}");
    assert!(!page.to_string().contains(SECRET), "{page}");
    assert!(page["agents"].as_array().unwrap().iter().all(|agent| agent["command"] == json!([])));
    let told = events(&socket, |client| as_user(USER, client));
    assert!(told.matches("agent-started").count() >= 2 && !told.contains(SECRET), "{told}");
    assert!(agents(&sidecar).iter().all(|agent| agent["command"].to_string().contains(SECRET)));

    // A client that enters the container, as `docker exec` does.
    let first = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", within.pid())).unwrap();
    let enter = |client: &Command| behind(&["nsenter", "--target", first.trim(), "--pid"], &as_user(USER, client));
    let (_, page) = ask_by(enter, &[], &socket, STATUS);
    assert_eq!(names(&page), ["within"], "{page}");
    // Without a look at the answer: the client may end with the container before it has read it.
    let send = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                s.sendall(sys.argv[2].encode()); s.recv(1)";
    let mut stop = Command::new("python3");
    stop.args(["-c", send]).arg(&socket).arg(request("/v1/stop", &json!({"all": true})));
    enter(&stop).output().unwrap();
    assert_eq!(within.exit_code(), 77);
    assert!(outside.is_alive() && outside.terms() == 0);
}

#[test]
fn a_client_that_the_daemon_cannot_place_stops_only_what_it_names_by_its_id() {
    let Some(flags) = new_pid_namespace() else {
        return skipped("a daemon in another PID namespace", "this user can make no PID namespace");
    };
    if !is_root("a daemon in another PID namespace, of the same user") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), "host:1");
    let mut command = Command::new(BINARY);
    clean_environment(&mut command, setup.directory.path());
    command.arg("--config").arg(setup.configuration());
    let _daemon = Wrapped::start(contained(&flags, &command));
    let socket = setup.socket();
    until("the daemon is ready", || (exchange(&socket, "GET /readyz HTTP/1.0\r\n\r\n")?.status == 200).then_some(()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid-run"));
    clean_environment(&mut command, setup.directory.path());
    command.arg("--socket").arg(&socket).args(["--name", "far", "--", "sh", "-c"]);
    command.arg("echo agent ready $MACHINEID_RUN_ID; exec sleep 1000").stdin(Stdio::null());
    let mut agent = Wrapped::start(command);
    let line = agent.line_with("agent ready");
    let run = line.rsplit(' ').next().unwrap();
    let page = exchange(&socket, STATUS).unwrap().json();
    assert_eq!((&page["agents"], &page["agents_shown"]), (&json!([]), &json!("none")), "{page}");
    let refused = post(&socket, "/v1/stop", &json!({"all": true}));
    assert_eq!(refused.status, 404);
    assert!(refused.body.contains("PID namespace"), "{refused:?}");
    assert_eq!(post(&socket, "/v1/stop", &json!({"run_id": run})).status, 200);
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
}
