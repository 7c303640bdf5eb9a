//! Which agent a command line starts.

use std::ffi::{OsStr, OsString};

use super::agent::{AgentProfile, is_option};
use super::program::{file_name, interpreter, program_name, script};
use super::table::TABLE;

/// How many programs may stand before the agent: `env timeout 60 npx codex` has three.
const DEPTH: usize = 8;

/// An agent that a command line starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Started {
    /// The agent.
    pub agent: &'static AgentProfile,
    /// The agent's own arguments.
    pub arguments: Vec<OsString>,
    /// Variables that the command line itself sets, as `env NAME=VALUE` does.
    pub variables: Vec<(OsString, OsString)>,
}

/// The agent that this command line starts.
#[must_use]
pub fn by_command(argv: &[OsString]) -> Option<&'static AgentProfile> {
    started(argv).map(|started| started.agent)
}

/// The agent that this command line starts, directly or through an interpreter, a package runner, a shell's `-c`, or a
/// program that executes the rest of its arguments. A script that starts an agent is not read.
#[must_use]
pub fn started(argv: &[OsString]) -> Option<Started> {
    let mut argv = argv.to_vec();
    let mut variables = Vec::new();
    for _ in 0..DEPTH {
        let (program, arguments) = argv.split_first()?;
        let found = |agent: &'static AgentProfile, arguments: &[OsString], variables: Vec<_>| {
            Some(Started { agent, arguments: arguments.to_vec(), variables })
        };
        if let Some(agent) = by_program(program) {
            return found(agent, arguments, variables);
        }
        if let Some(valued) = interpreter(program) {
            if file_name(program) == "bun" && arguments.first().is_some_and(|word| word == "x") {
                let (package, rest) = first_word(&arguments[1..], &[])?;
                return found(by_package(package)?, rest, variables);
            }
            let (path, rest) = script(arguments, valued)?;
            return found(by_script(path)?, rest, variables);
        }
        argv = match file_name(program).to_str()? {
            "npx" | "bunx" | "uvx" => {
                let (package, rest) = package(arguments)?;
                return found(package, rest, variables);
            }
            "npm" | "pnpm" | "yarn" | "uv" | "pipx" => {
                let (package, rest) = package(behind_runner(arguments)?)?;
                return found(package, rest, variables);
            }
            "env" => {
                let (mut rest, mut skip) = (arguments, 0);
                while let Some((word, behind)) = rest.split_first() {
                    let text = word.to_string_lossy();
                    if skip > 0 {
                        skip -= 1;
                    } else if let Some((name, value)) = text.split_once('=').filter(|_| !is_option(word)) {
                        variables.push((name.into(), value.into()));
                    } else if is_option(word) {
                        skip = usize::from(matches!(&*text, "-u" | "--unset" | "-C" | "--chdir"));
                    } else {
                        break;
                    }
                    rest = behind;
                }
                rest.to_vec()
            }
            "nice" => first_word_and_all(arguments, &["-n", "--adjustment"])?,
            "nohup" | "setsid" | "exec" | "time" | "command" => first_word_and_all(arguments, &[])?,
            "stdbuf" => first_word_and_all(arguments, &["-i", "-o", "-e"])?,
            "sudo" | "doas" => first_word_and_all(arguments, &["-u", "-g", "--user", "--group"])?,
            "timeout" => first_word(arguments, &["-k", "-s", "--kill-after", "--signal"])?.1.to_vec(),
            "sh" | "bash" | "dash" | "zsh" => shell_words(arguments)?,
            _ => return None,
        };
    }
    None
}

fn by_program(path: &OsStr) -> Option<&'static AgentProfile> {
    let name = program_name(path).to_str()?;
    TABLE.into_iter().find(|agent| agent.programs.contains(&name))
}

/// A script is named like the program, is in a folder named like the package, or is a module.
fn by_script(path: &OsStr) -> Option<&'static AgentProfile> {
    by_program(path).or_else(|| {
        let text = path.to_str()?;
        TABLE.into_iter().find(|agent| {
            let of_package = |package: &&str| {
                text.contains(&format!("node_modules/{package}/")) || text == package.replace('-', "_")
            };
            agent.packages.iter().any(of_package)
        })
    })
}

fn by_package(word: &OsStr) -> Option<&'static AgentProfile> {
    let text = word.to_str()?;
    // `@openai/codex@0.171.0`, `aider-chat==0.86.2`, `gptme[all]`.
    let scope = usize::from(text.starts_with('@'));
    let end = text[scope..].find(['@', '=', '[', '<', '>', '~', '!']).map_or(text.len(), |at| at + scope);
    let name = &text[..end];
    TABLE.into_iter().find(|agent| agent.packages.contains(&name)).or_else(|| by_program(OsStr::new(name)))
}

/// The package that a runner's arguments name, and the arguments behind it.
fn package(arguments: &[OsString]) -> Option<(&'static AgentProfile, &[OsString])> {
    let (word, rest) = first_word(arguments, &["-p", "--package", "--from", "--with", "--python", "--spec", "-c"])?;
    by_package(word).map(|agent| (agent, rest))
}

/// What stands behind the words of a runner that make it run a package: `npm exec`, `uv tool run`.
fn behind_runner(arguments: &[OsString]) -> Option<&[OsString]> {
    let (word, rest) = first_word(arguments, &[])?;
    match word.to_str()? {
        "exec" | "x" | "dlx" | "run" => Some(rest),
        "tool" => first_word(rest, &[]).filter(|(word, _)| *word == "run").map(|(_, rest)| rest),
        _ => None,
    }
}

/// The first word that is neither an option nor the value of one of `valued`, and what stands behind it.
fn first_word<'a>(arguments: &'a [OsString], valued: &[&str]) -> Option<(&'a OsStr, &'a [OsString])> {
    let mut rest = arguments;
    loop {
        let (word, behind) = rest.split_first()?;
        if !is_option(word) {
            return Some((word, behind));
        }
        rest = behind.get(usize::from(valued.iter().any(|option| word == option))..)?;
    }
}

fn first_word_and_all(arguments: &[OsString], valued: &[&str]) -> Option<Vec<OsString>> {
    let (_, rest) = first_word(arguments, valued)?;
    Some(arguments[arguments.len() - rest.len() - 1..].to_vec())
}

/// The words of `sh -c TEXT`, where it is one plain command: quotes and expansions are left as they are.
fn shell_words(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let at = arguments.iter().position(|word| {
        let text = word.to_string_lossy();
        is_option(word) && !text.starts_with("--") && text.ends_with('c')
    })?;
    let text = arguments.get(at + 1)?.to_str()?;
    let mut words = text.split_ascii_whitespace().peekable();
    let mut variables = Vec::new();
    // `NAME=VALUE command` is what `env` does.
    while let Some(word) = words.next_if(|word| word.contains('=') && !word.starts_with('=')) {
        variables.push(word);
    }
    let words: Vec<&str> = words.collect();
    let env = if variables.is_empty() { vec![] } else { vec!["env"] };
    Some(env.into_iter().chain(variables).chain(words).map(OsString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<(&'static str, Vec<String>)> {
        let argv: Vec<OsString> = line.split('|').map(OsString::from).collect();
        let Started { agent, arguments, .. } = started(&argv)?;
        Some((agent.name, arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()))
    }

    #[test]
    fn an_agent_is_found_behind_what_starts_it() {
        for line in [
            "codex|--no-daemon|x",
            "/opt/bin/codex|--no-daemon|x",
            "env|-i|-u|A|B=1|codex|--no-daemon|x",
            "timeout|-k|5|60|nice|-n|5|codex|--no-daemon|x",
            "node|--import|t|/usr/lib/node_modules/@openai/codex/bin/codex.js|--no-daemon|x",
            "node|/usr/lib/node_modules/@openai/codex/dist/main.js|--no-daemon|x",
            "npx|-y|@openai/codex@0.171.0|--no-daemon|x",
            "npm|exec|--|@openai/codex|--no-daemon|x",
            "bunx|@openai/codex|--no-daemon|x",
            "sh|-c|exec codex --no-daemon x",
            "bash|-lc|A=1 codex --no-daemon x",
        ] {
            assert_eq!(found(line), Some(("codex", vec!["--no-daemon".into(), "x".into()])), "{line}");
        }
        for (line, name) in [
            ("claude|--bg|x", "claude-code"),
            ("claude.exe", "claude-code"),
            ("uvx|--from|aider-chat|aider", "aider"),
            ("uvx|aider-chat==0.86.2", "aider"),
            ("uv|tool|run|gptme[all]", "gptme"),
            ("python3.12|-m|aider", "aider"),
            ("python3|-X|dev|/venv/bin/mini|-y", "mini-swe-agent"),
            ("vibe", "mistral-vibe"),
            ("gemini", "gemini-cli"),
            ("npx|opencode-ai|run", "opencode"),
        ] {
            assert_eq!(found(line).map(|found| found.0), Some(name), "{line}");
        }
    }

    #[test]
    fn other_commands_start_no_agent() {
        for line in ["", "ls|codex", "node|-e|codex", "python3|agent.py", "sh|-c|", "npx|prettier|codex", "env|A=codex"]
        {
            assert_eq!(found(line), None, "{line}");
        }
        assert_eq!(started(&[]), None);
    }

    #[test]
    fn variables_of_the_command_line_are_kept() {
        let argv = ["env", "CLINE_SESSION_BACKEND_MODE=local", "cline", "x y"].map(OsString::from);
        let started = started(&argv).unwrap();
        assert_eq!(started.variables, [("CLINE_SESSION_BACKEND_MODE".into(), "local".into())]);
    }
}
