//! The columns of the table.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// An AI agent.
#[derive(Debug, PartialEq, Eq)]
pub struct AgentProfile {
    /// The name in messages and on command lines.
    pub name: &'static str,
    /// The file names of its program.
    pub programs: &'static [&'static str],
    /// Its packages: what `npx` or `uvx` is given.
    pub packages: &'static [&'static str],
    /// The version that the facts below were seen with.
    pub tried: &'static str,
    /// How the facts below were found.
    pub source: &'static str,
    /// Where it keeps its settings and its state.
    pub state: StateDirectory,
    /// Its daemon. `None`: none was seen; tool commands are children of the command that was started.
    pub daemon: Option<AgentDaemon>,
    /// The file that names its hooks. `None`: no hook is called before its tools.
    pub hooks: Option<&'static str>,
}

/// Reads a variable of an environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The directory of an agent's settings and state.
#[derive(Debug, PartialEq, Eq)]
pub struct StateDirectory {
    /// The variable that names it.
    pub variable: Option<&'static str>,
    /// Its place below the home directory otherwise.
    pub below_home: &'static str,
}

/// The daemon of an agent, which outlives the command that started it and runs tools for later ones.
#[derive(Debug, PartialEq, Eq)]
pub struct AgentDaemon {
    /// Its name in messages.
    pub title: &'static str,
    /// The arguments by which it is recognised: those of one of these.
    pub marks: &'static [Mark],
    /// Where clients meet it.
    pub meeting_points: &'static [MeetingPoint],
    /// Its lock, below the state directory, if it has one there.
    pub lock: Option<&'static str>,
    /// What keeps a command's work in its own tree although the daemon runs.
    pub keeps: &'static [Keep],
    /// How a command is written so that its work stays in its tree, for people.
    pub in_tree: &'static str,
    /// Variables by which a command does not use the daemon, for an isolated run.
    pub isolated_by: &'static [(&'static str, &'static str)],
    /// The command that ends it.
    pub stop: &'static str,
}

/// Arguments that only the daemon has.
#[derive(Debug, PartialEq, Eq)]
pub enum Mark {
    /// The arguments begin with these words, options and their values left out.
    Begins(&'static [&'static str]),
    /// The arguments begin with `word`, and `option` has a value other than these: the daemon listens there.
    Listens {
        /// The first word.
        word: &'static str,
        /// The option.
        option: &'static str,
        /// The values with which nothing can connect to it.
        except: &'static [&'static str],
    },
}

/// A place where a client meets a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeetingPoint {
    /// A directory below the agent's state directory.
    State(&'static str),
    /// A directory with this name and the user's number behind it.
    OfUser(&'static str),
    /// A port on 127.0.0.1. A mount namespace does not cover it.
    Loopback(u16),
}

/// What keeps a command's work in its own tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// An argument anywhere.
    Argument(&'static str),
    /// The first word behind the program.
    Subcommand(&'static str),
    /// A variable with this value.
    Variable(&'static str, &'static str),
}

impl AgentProfile {
    /// Its state directory in this environment; `None` when there is no home directory either.
    #[must_use]
    pub fn state_directory(&self, variables: Variables<'_>) -> Option<PathBuf> {
        let set = |name: &str| variables(name).filter(|value| !value.is_empty());
        let named = self.state.variable.and_then(set).map(PathBuf::from);
        named.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(self.state.below_home)))
    }

    /// What keeps the work of a command with these arguments and this environment in its own tree.
    #[must_use]
    pub fn kept_by(&self, arguments: &[OsString], variables: Variables<'_>) -> Option<Keep> {
        let first = || arguments.iter().find(|argument| !is_option(argument));
        let holds = |keep: &Keep| match *keep {
            Keep::Argument(wanted) => arguments.iter().take_while(|word| *word != "--").any(|word| word == wanted),
            Keep::Subcommand(wanted) => first().is_some_and(|word| word == wanted),
            Keep::Variable(name, wanted) => {
                variables(name).is_some_and(|value| value.to_string_lossy().trim().eq_ignore_ascii_case(wanted))
            }
        };
        // These print something and end.
        let prints = ["--help", "-h", "--version", "-V"].map(Keep::Argument);
        self.daemon.as_ref()?.keeps.iter().copied().chain(prints).find(holds)
    }
}

impl Mark {
    /// Whether a program's own arguments have this mark.
    pub(crate) fn is_on(&self, arguments: &[OsString]) -> bool {
        match *self {
            Self::Begins(words) => begin(arguments, words).is_some(),
            Self::Listens { word, option, except } => begin(arguments, &[word])
                .and_then(|rest| value_of(rest, option))
                .is_some_and(|value| except.iter().all(|except| value != *except)),
        }
    }
}

pub(crate) fn is_option(argument: &OsStr) -> bool {
    argument.as_encoded_bytes().starts_with(b"-")
}

/// The arguments behind these words, if they come first. A word that follows an option may be its value, and is passed
/// over; a word that begins with a dash is looked for as it is.
fn begin<'a>(mut arguments: &'a [OsString], words: &[&str]) -> Option<&'a [OsString]> {
    for word in words {
        let mut behind_option = false;
        loop {
            let (argument, rest) = arguments.split_first()?;
            arguments = rest;
            if argument == word {
                break;
            }
            let option = is_option(argument);
            if !option && !behind_option {
                return None;
            }
            behind_option = option;
        }
    }
    Some(arguments)
}

fn value_of<'a>(arguments: &'a [OsString], option: &str) -> Option<&'a OsStr> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == option {
            return rest.next().map(OsString::as_os_str);
        }
        let joined = argument.to_str().and_then(|text| text.strip_prefix(option)?.strip_prefix('='));
        if let Some(value) = joined {
            return Some(OsStr::new(value));
        }
    }
    None
}
