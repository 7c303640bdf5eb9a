//! Agents' hooks: found in their settings, and run with the daemon and without.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use machineid_hook::settings::{self, Content, Format, Found, Target};
use machineid_hook::switches::{self, Layered};
use machineid_hook::{Agent, Form, Guard, HookCommand, Kind, Reply, Scope};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::super::facts::{HookAnswer, HookFacts, HookPlace, HookTrial};
use crate::Env;
use crate::host::hook::place;
use crate::host::hook::settings_file::SettingsFile;

/// How long the hook, or an agent that prints its version, may take: longer than any deadline of a hook.
const PATIENCE: Duration = Duration::from_secs(12);
/// What a guard of ours says when the hook's program is missing or broken.
const NOT_RUN: &str = "the hook could not run";
const SCOPES: [Scope; 3] = [Scope::Managed, Scope::User, Scope::Project];

/// The files that name an agent's hook.
type Files = fn(Scope, &HookCommand) -> Vec<Target>;

pub(super) async fn all(env: Env<'_>) -> Vec<HookFacts> {
    let mut found = Vec::new();
    for agent in Agent::ALL {
        let Kind::Files(files) = agent.form().kind else { continue };
        let program = on_path(agent.form().program, env);
        let mut places = Vec::new();
        for scope in SCOPES {
            places.extend(look(agent, scope, files, program.as_deref(), env).await);
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
async fn look(agent: Agent, scope: Scope, files: Files, program: Option<&Path>, env: Env<'_>) -> Vec<HookPlace> {
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
            Some(command) => Some(try_both(command, scope, files, program, env).await),
            None => None,
        };
        let off = turned_off(agent.form(), command.as_ref(), (scope, &path), env, &working);
        places.push(HookPlace { path, scope, state, off, trial });
    }
    places
}

/// The agent's layers of settings, the strongest first, and what is wrong with those that cannot be read.
fn layers(form: &Form, env: Env<'_>, working: &Path) -> (Vec<Layered>, Vec<String>) {
    let mut read = Vec::new();
    let mut unread = Vec::new();
    for layer in form.layers {
        let Ok(path) = place::path(layer.place, env, working) else { continue };
        let paths = if layer.directory { files_of(&path) } else { vec![path] };
        for path in paths {
            match settings_of(&path, layer.format) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    read.push(Layered { path: path.display().to_string(), managed: layer.managed, value });
                }
                Err(why) => unread.push(why),
            }
        }
    }
    (read, unread)
}

/// The files `*.json` of a directory, the last one first.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}

/// The settings in a file; `None` without the file.
fn settings_of(path: &Path, format: Format) -> Result<Option<Value>, String> {
    let file = SettingsFile::read(path).map_err(|error| error.to_string())?;
    if !file.exists() {
        return Ok(None);
    }
    settings::value(format, &file.text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// Why the agent does not call a hook that stands in this file as it should.
fn turned_off(
    form: &Form,
    command: Option<&HookCommand>,
    (scope, hooks): (Scope, &Path),
    env: Env<'_>,
    working: &Path,
) -> Option<String> {
    let (files, unread) = layers(form, env, working);
    switches::turned_off(form, scope, &files)
        .or_else(|| {
            let variable = |name: &str| env(name).map(|value| value.to_string_lossy().into_owned());
            switches::turned_off_by_variable(form, scope, variable)
        })
        .or_else(|| unread.into_iter().next().map(|why| format!("whether hooks are on is not known: {why}")))
        .or_else(|| untrusted_folder(form, scope, &files, env, working))
        .or_else(|| codex_skips(command, scope, hooks, env))
}

/// A project's hooks are read in a trusted folder alone.
fn untrusted_folder(form: &Form, scope: Scope, files: &[Layered], env: Env<'_>, working: &Path) -> Option<String> {
    let trust = form.trust.filter(|_| scope == Scope::Project)?;
    let path = place::path(trust.place, env, working).ok()?;
    let folders = settings_of(&path, trust.format).ok()?.unwrap_or_default();
    (!trust.trusts(&folders, working, files)).then(|| {
        format!(
            "{} does not trust {}, by {}: start it there and trust it",
            form.title,
            working.display(),
            path.display()
        )
    })
}

/// Why codex skips the hook, by its own settings.
fn codex_skips(command: Option<&HookCommand>, scope: Scope, hooks: &Path, env: Env<'_>) -> Option<String> {
    let command = command.filter(|command| command.agent == Agent::Codex && scope != Scope::Managed)?;
    let trust = command.agent.form().trust?;
    let path = place::path(trust.place, env, Path::new("/")).ok()?;
    let config = settings_of(&path, trust.format).ok()?.unwrap_or_default();
    machineid_hook::codex_skips(&config, &hooks.display().to_string(), &command.line()).map(str::to_owned)
}

async fn try_both(
    command: &HookCommand,
    scope: Scope,
    files: Files,
    program: Option<&Path>,
    env: Env<'_>,
) -> HookTrial {
    let nowhere = HookCommand { socket: Some("/nonexistent/machineid-doctor.sock".into()), ..command.clone() };
    let untried = match (command.agent.form().try_plugin, runtime(program, env)) {
        (Some(driver), Some(mut runtime)) => {
            let module =
                |command: &HookCommand| match files(scope, command).into_iter().next().map(|target| target.content) {
                    Some(Content::Whole { text, .. }) => text + driver,
                    Some(Content::Edits(..)) | None => String::new(),
                };
            return HookTrial {
                with_daemon: run_plugin(&mut runtime, &module(command)).await,
                without: run_plugin(&mut runtime, &module(&nowhere)).await,
                untried: None,
            };
        }
        (Some(_), None) => Some("the plugin itself was not tried, since there is no node on the search path"),
        (None, _) => None,
    };
    HookTrial { with_daemon: run(command).await, without: run(&nowhere).await, untried }
}

/// A program that runs a module in JavaScript from its stdin.
fn runtime(program: Option<&Path>, env: Env<'_>) -> Option<Command> {
    if let Some(node) = on_path("node", env) {
        let mut command = Command::new(node);
        command.args(["--input-type=module", "-"]);
        return Some(command);
    }
    // opencode is a program of Bun, which can be told to be that.
    let mut command = Command::new(program.filter(|program| program.ends_with("opencode"))?);
    command.args(["run", "-"]).env("BUN_BE_BUN", "1");
    Some(command)
}

/// Runs our plugin as its agent would. The installed file has this same text, or it would not be armed.
async fn run_plugin(runtime: &mut Command, module: &str) -> HookAnswer {
    let output = match output_of(runtime, module).await {
        Ok(output) => output,
        Err(why) => return HookAnswer::Broken(why),
    };
    let answer = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
    match answer.get("no") {
        Some(Value::Null) => HookAnswer::Yes,
        Some(Value::String(reason)) if !reason.contains(NOT_RUN) => HookAnswer::No(reason.clone()),
        Some(Value::String(reason)) => HookAnswer::Broken(reason.clone()),
        Some(_) | None => {
            let said = String::from_utf8_lossy(&output.stderr);
            let error = said.lines().find(|line| line.contains("Error")).unwrap_or_default();
            HookAnswer::Broken(format!("the plugin does not load: {}: {error}", output.status))
        }
    }
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
    match output_of(&mut command, &form.sample()).await {
        Ok(output) => answer(form, &output),
        Err(why) => HookAnswer::Broken(why),
    }
}

/// What a program says that is given this text on stdin.
async fn output_of(command: &mut Command, input: &str) -> Result<Output, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let whole = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input is judged by its answer.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(PATIENCE, whole).await {
        Err(_) => Err("it gave no answer".to_owned()),
        Ok(output) => output.map_err(|error| error.to_string()),
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
        return if reason.contains(NOT_RUN) { HookAnswer::Broken(reason) } else { HookAnswer::No(reason) };
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
