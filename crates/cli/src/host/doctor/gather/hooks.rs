//! Agents' hooks: found in their settings, and run with the daemon and without.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use machineid_hook::settings::{self, Content, Format, Found, Target};
use machineid_hook::{Agent, Form, Guard, HookCommand, Kind, Reply, Scope};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::super::facts::{HookAnswer, HookFacts, HookPlace, HookTrial};
use crate::Env;
use crate::host::hook::place;
use crate::host::hook::settings_file::SettingsFile;

/// How long the hook, or an agent that prints its version, may take: longer than any deadline of a hook.
const PATIENCE: Duration = Duration::from_secs(12);
const SCOPES: [Scope; 3] = [Scope::Managed, Scope::User, Scope::Project];

pub(super) async fn all(env: Env<'_>) -> Vec<HookFacts> {
    let mut found = Vec::new();
    for agent in Agent::ALL {
        let Kind::Files(files) = agent.form().kind else { continue };
        let program = on_path(agent.form().program, env);
        let mut places = Vec::new();
        for scope in SCOPES {
            places.extend(look(agent, scope, files, env).await);
        }
        if program.is_none() && places.is_empty() {
            continue;
        }
        let asked = program.as_deref().filter(|_| agent.form().oldest.is_some() && !places.is_empty());
        let version = match asked {
            Some(program) => version(program).await,
            None => None,
        };
        found.push(HookFacts { agent, version, places });
    }
    found
}

/// The settings of this scope, where they name our hook or cannot be read.
async fn look(
    agent: Agent,
    scope: Scope,
    files: fn(Scope, &HookCommand) -> Vec<Target>,
    env: Env<'_>,
) -> Vec<HookPlace> {
    let working = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let any = HookCommand { program: "/usr/bin/machineid".into(), agent, socket: None, device: None, timeout: None };
    let mut places = Vec::new();
    for (at, target) in files(scope, &any).into_iter().enumerate() {
        let Ok(path) = place::path(target.place, env, &working) else { continue };
        let file = match SettingsFile::read(&path) {
            Ok(file) if !file.exists() => continue,
            Ok(file) => file,
            Err(error) => {
                places.push(HookPlace { path, scope, state: Err(error.to_string()), off: None, trial: None });
                continue;
            }
        };
        // It is compared with what these same options would be installed as.
        let command = target.content.installed(&file.text, agent);
        let wanted = command.as_ref().and_then(|command| files(scope, command).into_iter().nth(at));
        let content = wanted.map_or(target.content, |wanted| wanted.content);
        let state = content.find(&file.text, agent).map_err(|error| error.to_string());
        if state == Ok(Found::Missing) {
            continue;
        }
        let trial = match &command {
            Some(command) => Some(try_both(command).await),
            None => None,
        };
        let off = switched_off(agent.form(), &content, &file.text).or_else(|| codex_skips(agent, scope, &path, env));
        places.push(HookPlace { path, scope, state, off, trial });
    }
    places
}

fn switched_off(form: &Form, content: &Content, text: &str) -> Option<String> {
    let Content::Edits(format, _) = content else { return None };
    let value = settings::value(*format, text).ok()?;
    form.off.iter().find_map(|(path, off)| {
        let found = path.iter().try_fold(&value, |value, name| value.get(name))?;
        (found.as_bool() == Some(*off)).then(|| format!("{} is {off}", path.join(".")))
    })
}

/// Why codex does not run the hook: hooks are off, or this one is not trusted. Its own settings say both.
fn codex_skips(agent: Agent, scope: Scope, hooks: &Path, env: Env<'_>) -> Option<String> {
    if agent != Agent::Codex || scope == Scope::Managed {
        return None;
    }
    let settings = settings::Place::Home { variable: Some("CODEX_HOME"), directory: ".codex", file: "config.toml" };
    let path = place::path(settings, env, Path::new("/")).ok()?;
    let file = SettingsFile::read(&path).ok()?;
    let value = settings::value(Format::Toml, &file.text).ok()?;
    if value["features"]["hooks"] == false {
        return Some(format!("features.hooks is false in {}", path.display()));
    }
    let prefix = format!("{}:", hooks.display());
    let states =
        value["hooks"]["state"].as_object().into_iter().flatten().filter(|(name, _)| name.starts_with(&prefix));
    let (mut trusted, mut disabled) = (false, false);
    for (_, state) in states.filter(|(name, _)| name.contains("pre_tool_use")) {
        trusted |= state["trusted_hash"].is_string();
        disabled |= state["enabled"] == false;
    }
    match (trusted, disabled) {
        (_, true) => Some("codex has it disabled; enable it in /hooks".to_owned()),
        (false, false) => Some("codex does not trust it; start codex, enter /hooks and trust it".to_owned()),
        (true, false) => None,
    }
}

async fn try_both(command: &HookCommand) -> HookTrial {
    let nowhere = HookCommand { socket: Some("/nonexistent/machineid-doctor.sock".into()), ..command.clone() };
    HookTrial { with_daemon: run(command).await, without: run(&nowhere).await }
}

/// Runs the hook as its agent would.
async fn run(hook: &HookCommand) -> HookAnswer {
    let form = hook.agent.form();
    let mut command = match form.guard {
        Guard::ExitCode | Guard::Output => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(hook.line());
            command
        }
        Guard::Caller => {
            let mut command = Command::new(&hook.program);
            command.args(hook.words().iter().skip(1));
            command
        }
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let whole = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A hook that does not read its event is judged by its answer.
            let _ = stdin.write_all(form.sample().as_bytes()).await;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(PATIENCE, whole).await {
        Err(_) => HookAnswer::Broken("it gave no answer".to_owned()),
        Ok(Err(error)) => HookAnswer::Broken(error.to_string()),
        Ok(Ok(output)) => answer(form, &output),
    }
}

fn answer(form: &Form, output: &Output) -> HookAnswer {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(exit) = output.status.code().and_then(|code| u8::try_from(code).ok()) else {
        return HookAnswer::Broken(output.status.to_string());
    };
    let reply = Reply { stdout: text(&output.stdout), stderr: text(&output.stderr), exit };
    let reason = reply.stderr.trim().to_owned();
    if form.is_no(&reply) {
        // The shell's guard said it when the program is missing.
        return if reason.contains("the hook could not run") {
            HookAnswer::Broken(reason)
        } else {
            HookAnswer::No(reason)
        };
    }
    if exit == 0 { HookAnswer::Yes } else { HookAnswer::Broken(format!("{}: {reason}", output.status)) }
}

fn on_path(program: &str, env: Env<'_>) -> Option<PathBuf> {
    let path = env("PATH")?;
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    // Relative entries depend on the working directory and are ignored.
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(is_program)
}

/// The first three numbers that a program prints as its version.
async fn version(program: &Path) -> Option<(u32, u32, u32)> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return None,
        Ok(Err(_)) | Err(_) => return None,
    };
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut parts = word.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_programs_print() {
        assert_eq!(parse_version("2.1.332 (Claude Code)\n"), Some((2, 1, 332)));
        assert_eq!(parse_version("codex-cli v0.171.0"), Some((0, 171, 0)));
        assert_eq!(parse_version("no version"), None);
    }
}
