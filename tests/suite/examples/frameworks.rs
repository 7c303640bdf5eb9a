//! `examples/frameworks`: agents of the usual frameworks, with a stand-in for the model.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::authority::Authority;
use crate::harness::place::skipped;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, clean_environment};

/// A model that asks for the tool this often, then answers. Ended when dropped.
struct Model {
    child: Child,
    base_url: String,
}

impl Model {
    fn start(calls: u64) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/examples/model.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(calls.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut base_url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut base_url).unwrap();
        Self { child, base_url: base_url.trim_end().to_owned() }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Python that has this framework. Without one the test is skipped, but never in CI.
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
fn python(framework: &str) -> Option<PathBuf> {
    if framework == "plain" {
        return Some("python3".into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/frameworks").join(framework).join("bin/python");
    if python.exists() {
        return Some(python);
    }
    let remedy =
        format!("python3 -m venv target/frameworks/{framework} && target/frameworks/{framework}/bin/pip install …");
    assert!(std::env::var_os("CI").is_none(), "{} is missing; {remedy}", python.display());
    skipped(&format!("the agent of {framework}"), &format!("it is not installed; {remedy}"));
    None
}

fn agent(framework: &str, script: &str) -> Option<Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/frameworks").join(script);
    Some(vec![python(framework)?.display().to_string(), script.display().to_string()])
}

/// What the frameworks need, and what keeps them from talking to any other server.
fn prepare(command: &mut Command, model: &Model) {
    command
        .env("OPENAI_BASE_URL", &model.base_url)
        .env("OPENAI_API_KEY", "none")
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/python/src"))
        .env("CREWAI_DISABLE_TELEMETRY", "true")
        .env("CREWAI_TRACING_ENABLED", "false")
        .env("OTEL_SDK_DISABLED", "true");
}

/// Answers while allowed; stops by its own gate when denied, without a wrapper; is stopped by the wrapper when denied.
fn is_stoppable(framework: &str, script: &str) {
    let Some(agent) = agent(framework, script) else { return };
    let agent: Vec<&str> = agent.iter().map(String::as_str).collect();
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start();

    let short = Model::start(1);
    let mut command = sidecar.wrap(&[], &agent);
    prepare(&mut command, &short);
    let mut allowed = Wrapped::start(command);
    assert_eq!(allowed.exit_code(), 0, "{}", allowed.stderr());
    assert!(allowed.stdout().contains("tool: ") && allowed.stdout().contains("answer: "), "{}", allowed.stdout());

    let endless = Model::start(u64::MAX);
    let mut command = Command::new(agent[0]);
    clean_environment(&mut command, sidecar.directory());
    command.arg(agent[1]).env("MACHINEID_SOCKET", sidecar.socket()).stdin(Stdio::null());
    prepare(&mut command, &endless);
    let mut alone = Wrapped::start(command);
    alone.line_with("tool: ");
    let mut command = sidecar.wrap(&[], &agent);
    prepare(&mut command, &endless);
    let mut wrapped = Wrapped::start(command);
    wrapped.line_with("tool: ");
    org.device("revoke", "host:test");
    assert_eq!(alone.exit_code(), 77, "{}", alone.stderr());
    assert!(alone.stderr().contains("denied: DEVICE_REVOKED"), "{}", alone.stderr());
    assert_eq!(wrapped.exit_code(), 77, "{}", wrapped.stderr());
    assert!(wrapped.stderr().contains("DEVICE_REVOKED"), "{}", wrapped.stderr());
}

#[test]
fn an_agent_without_a_framework_is_stoppable() {
    is_stoppable("plain", "plain.py");
}

#[test]
fn an_agent_of_langchain_is_stoppable() {
    is_stoppable("langchain", "langchain_agent.py");
}

#[test]
#[ignore = "CrewAI takes a minute to install and to test; CONTRIBUTING.md says how"]
fn an_agent_of_crewai_is_stoppable() {
    is_stoppable("crewai", "crewai_agent.py");
}

#[test]
fn an_agent_of_openais_sdk_is_stoppable() {
    is_stoppable("openai-agents", "openai_agents.py");
}
