//! The shell line in an agent's settings that starts the hook.

use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_protocol::{DeviceId, shell_word, span};

use super::agents::{Agent, Guard};

/// What is said when the program of the hook is missing or broken.
const BROKEN: &str = "machineid: the hook could not run, so the call is blocked; is machineid installed?";

/// The hook as a command, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCommand {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// The agent.
    pub agent: Agent,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--device`.
    pub device: Option<DeviceId>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
}

impl HookCommand {
    /// The program and its arguments, as they are started without a shell.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![text(&self.program), "hook".to_owned(), self.agent.name().to_owned()];
        for (flag, value) in [
            ("--socket", self.socket.as_deref().map(text)),
            ("--device", self.device.as_ref().map(ToString::to_string)),
            ("--timeout", self.timeout.map(span::format)),
        ] {
            words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        words
    }

    /// Reads a shell line that [`HookCommand::line`] wrote, or the words of one of our plugins as JSON. `None` for every other.
    #[must_use]
    pub fn parse(text: &str, agent: Agent) -> Option<Self> {
        let words = match text.strip_prefix(PLUGIN_WORDS) {
            Some(json) => serde_json::from_str(json).ok()?,
            None => words_of(text.split(" || {").next()?)?,
        };
        let mut words = words.into_iter();
        let program = PathBuf::from(words.next().filter(|program| program.starts_with('/'))?);
        if words.next()? != "hook" || words.next()? != agent.name() {
            return None;
        }
        let mut command = Self { program, agent, socket: None, device: None, timeout: None };
        while let Some(flag) = words.next() {
            let value = words.next()?;
            match flag.as_str() {
                "--socket" => command.socket = Some(value.into()),
                "--device" => command.device = Some(value.parse().ok()?),
                "--timeout" => command.timeout = Some(span::parse(&value).ok()?),
                _ => return None,
            }
        }
        Some(command)
    }

    /// The shell line. A program that is missing, killed or broken blocks as well; the hook's own no is not overwritten.
    #[must_use]
    pub fn line(&self) -> String {
        let command = self.words().iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
        match self.agent.form().guard {
            Guard::ExitCode => format!("{command} || {{ [ $? = 2 ] || echo {} >&2; exit 2; }}", shell_word(BROKEN)),
            Guard::Output => {
                let no = self.agent.form().answer(&super::Verdict::undecided(BROKEN));
                format!("{command} || {{ echo {}; exit 0; }}", shell_word(no.stdout.trim_end()))
            }
            Guard::Caller => command,
        }
    }
}

/// How the line of a plugin begins that has the words of the command.
pub(crate) const PLUGIN_WORDS: &str = "const [PROGRAM, ...ARGUMENTS] = ";

/// The words of a shell line that has no other quotes than ours.
fn words_of(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            '"' | '$' | '`' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Whether a command in an agent's settings is our hook for this agent, whatever its path and options are. A command of
/// another program that is given ours as an argument is not.
#[must_use]
pub fn is_ours(command: &str, agent: Agent) -> bool {
    let own = command.split_once(" || ").map_or(command, |(own, _guard)| own);
    let Some(words) = words_of(own) else { return false };
    let mut words = words.iter().skip_while(|word| *word == "exec");
    words.next().is_some_and(|program| Path::new(program).file_name().is_some_and(|name| name == "machineid"))
        && words.next().is_some_and(|verb| verb == "hook")
        && words.next().is_some_and(|name| name == agent.name())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(agent: Agent) -> HookCommand {
        HookCommand { program: "/usr/bin/machineid".into(), agent, socket: None, device: None, timeout: None }
    }

    #[test]
    fn a_hook_is_ours_by_its_own_program_and_not_by_an_argument_of_another() {
        let spaced = HookCommand { program: "/opt/my tools/machineid".into(), ..command(Agent::ClaudeCode) };
        for ours in
            [command(Agent::ClaudeCode).line(), spaced.line(), "machineid hook claude-code --timeout 5s".to_owned()]
        {
            assert!(is_ours(&ours, Agent::ClaudeCode), "{ours}");
            assert!(!is_ours(&ours, Agent::Codex), "{ours}");
        }
        for other in
            ["/opt/audit --log x -- machineid hook claude-code", "echo machineid hook claude-code", "machineid check"]
        {
            assert!(!is_ours(other, Agent::ClaudeCode), "{other}");
        }
    }

    #[test]
    fn a_line_names_its_program_and_blocks_without_it() {
        let line = command(Agent::ClaudeCode).line();
        assert!(
            line.starts_with("/usr/bin/machineid hook claude-code || { [ $? = 2 ] || echo 'machineid: the hook"),
            "{line}"
        );
        assert!(line.ends_with(" >&2; exit 2; }"), "{line}");
        let line = command(Agent::Copilot).line();
        assert!(line.contains("|| { echo '{\"permissionDecision\":\"deny\",") && line.ends_with("exit 0; }"), "{line}");
    }

    #[test]
    fn hostile_paths_stay_one_word() {
        let mut hook = command(Agent::Codex);
        hook.program = "/opt/a b/it's $(x)/machineid".into();
        hook.socket = Some("/run/x;y".into());
        hook.timeout = Some(Duration::from_millis(1_500));
        let line = hook.line();
        assert!(
            line.starts_with(r"'/opt/a b/it'\''s $(x)/machineid' hook codex --socket '/run/x;y' --timeout 1s500ms || "),
            "{line}"
        );
        assert!(is_ours(&line, Agent::Codex));
        assert_eq!(HookCommand::parse(&line, Agent::Codex), Some(hook.clone()));
        assert_eq!(HookCommand::parse(&line, Agent::Pi), None);
        let words = format!("{PLUGIN_WORDS}{}", serde_json::json!(hook.words()));
        assert_eq!(HookCommand::parse(&words, Agent::Codex), Some(hook));
        for other in [
            "/a/machineid hook codex --x y",
            "machineid hook codex",
            "/a/machineid hook codex --socket",
            "/a/b $(x)",
            "'/a",
        ] {
            assert_eq!(HookCommand::parse(other, Agent::Codex), None, "{other}");
        }
    }

    #[test]
    fn our_hook_is_told_from_others() {
        assert!(is_ours("/a/machineid hook codex", Agent::Codex));
        assert!(is_ours("exec '/a b/machineid' hook codex --timeout 1s || exit 2", Agent::Codex));
        for other in
            ["/a/machineid hook claude-code", "machineid check -q", "machineid-run hook codex", "hook codex", ""]
        {
            assert!(!is_ours(other, Agent::Codex), "{other}");
        }
    }
}
