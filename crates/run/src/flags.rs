//! The flags of `machineid-run`: one table for parsing, `--help`, the manual page and completions.

/// The meaning of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The agent's own device.
    Device,
    /// A name for operators.
    Name,
    /// The daemon's socket.
    Socket,
    /// The first signal of a stop.
    StopSignal,
    /// The time between that signal and SIGKILL.
    StopGrace,
    /// How long the daemon may take to answer a start.
    Timeout,
    /// Waiting for an ALLOW.
    Wait,
    /// How the tree is held together.
    Containment,
    /// What happens to processes that outlive the command.
    Leftovers,
    /// What happens when a daemon of the command runs outside.
    Outside,
    /// Hiding the daemons that run outside.
    Isolate,
    /// Where the outcome is written.
    StatusFile,
    /// Printing errors only.
    Quiet,
    /// The help text.
    Help,
    /// The version.
    Version,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A value, shown by this name.
    Value(&'static str),
    /// A value behind `=`, or none.
    Optional(&'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A file's path.
    Path,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The flag's meaning.
    pub about: About,
    /// The name behind two dashes.
    pub long: &'static str,
    /// The letter behind one dash, if there is one.
    pub short: Option<char>,
    /// What follows it.
    pub takes: Takes,
    /// The explanation in `--help`.
    pub help: &'static str,
}

const fn flag(about: About, long: &'static str, takes: Takes, help: &'static str) -> Flag {
    Flag { about, long, short: None, takes, help }
}

const fn short(short: char, flag: Flag) -> Flag {
    Flag { short: Some(short), ..flag }
}

/// All flags, in the order of `--help`.
pub const FLAGS: [Flag; 15] = [
    flag(About::Device, "device", Takes::Value("ID"), "The agent's own device; without it, the host's counts"),
    flag(About::Name, "name", Takes::Value("NAME"), "A name for people, shown by machineid status"),
    flag(
        About::Socket,
        "socket",
        Takes::Path,
        "The daemon's socket [default: $MACHINEID_SOCKET, else /run/machineid/sidecar.sock if it exists, else \
         $XDG_RUNTIME_DIR/machineid/sidecar.sock]",
    ),
    flag(
        About::StopSignal,
        "stop-signal",
        Takes::Value("SIGNAL"),
        "The first signal of a stop [default: the daemon's, TERM unless configured]",
    ),
    flag(
        About::StopGrace,
        "stop-grace",
        Takes::Value("DURATION"),
        "Time from it to SIGKILL, no longer than the daemon's [default: the daemon's, 10s unless configured]",
    ),
    flag(About::Timeout, "timeout", Takes::Value("DURATION"), "How long an answer may take [default: 5s]"),
    flag(
        About::Wait,
        "wait",
        Takes::Optional("DURATION"),
        "Keep asking until it is allowed, also while there is no daemon or the answer is no",
    ),
    flag(
        About::Containment,
        "containment",
        Takes::OneOf(&["auto", "cgroup", "pidns", "subreaper"]),
        "The containment of the process tree: a control group of its own where one is available (auto), or one of \
         these and nothing weaker: a control group, a PID namespace, or wrapper and guardian alone [default: auto]",
    ),
    flag(
        About::Leftovers,
        "leftovers",
        Takes::OneOf(&["stop", "wait"]),
        "What happens to processes the command leaves behind: they are stopped and named, or waited for, still \
         supervised [default: stop]",
    ),
    flag(
        About::Outside,
        "outside",
        Takes::OneOf(&["refuse", "allow"]),
        "What to do when the command is an agent (codex, cline, claude) whose daemon already runs outside: a stop would not \
         reach what that daemon does for it [default: refuse]",
    ),
    flag(
        About::Isolate,
        "isolate",
        Takes::Nothing,
        "Hide agents' daemons, the user manager, tmux and container engines from the command",
    ),
    flag(About::StatusFile, "status-file", Takes::Path, "Write the outcome to this file, as JSON"),
    short('q', flag(About::Quiet, "quiet", Takes::Nothing, "Print errors only")),
    short('h', flag(About::Help, "help", Takes::Nothing, "Print this")),
    short('V', flag(About::Version, "version", Takes::Nothing, "Print the version")),
];

/// What the program does, in one sentence.
pub const ABOUT: &str =
    "Runs a command when the authority allows it, and stops its whole process tree when it no longer does.";

/// The command line in short.
pub(super) const USAGE: &str = "machineid-run [OPTIONS] [--] COMMAND [ARGS…]";

/// What `--help` prints behind the flags.
pub const AFTER: &str = "\
Durations are whole numbers with ms, s, m or h, as in 500ms or 1m30s.

Examples:
  machineid-run -- python3 agent.py
  machineid-run --device agent-07 --name scraper -- ./scraper --all
  machineid-run --wait --containment cgroup -- python3 agent.py
  machineid-run --isolate -- codex

Exit code: the command's own, or 128+n when signal n ended it; 75 could not
find out whether it may run (no daemon, no answer, the lease ended), 77 denied,
before the start or while it ran; 125 wrapper failure, 126 the command cannot
be executed, 127 it was not found.
";

/// The width that help is written for, in columns.
const WIDTH: usize = 80;
/// The column where the explanation of a flag begins.
const INDENT: usize = 26;

impl Flag {
    /// The flag with what follows it, as in `--device ID`.
    fn shown(&self) -> String {
        let long = self.long;
        match self.takes {
            Takes::Nothing => format!("--{long}"),
            Takes::Value(value) => format!("--{long} {value}"),
            Takes::Optional(value) => format!("--{long}[={value}]"),
            Takes::OneOf(values) => format!("--{long} {}", values.join("|")),
            Takes::Path => format!("--{long} PATH"),
        }
    }
}

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut lines = wrapped(ABOUT, WIDTH);
    lines.extend([String::new(), format!("Usage: {USAGE}"), String::new(), "RunOptions:".to_owned()]);
    for flag in FLAGS {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let mut left = format!("  {short}{}", flag.shown());
        // A flag that is too long to stand beside its explanation stands above it.
        if left.chars().count() + 2 > INDENT {
            lines.push(std::mem::take(&mut left));
        }
        for explained in wrapped(flag.help, WIDTH - INDENT) {
            lines.push(format!("{:INDENT$}{explained}", std::mem::take(&mut left)));
        }
    }
    format!("{}\n\n{AFTER}", lines.join("\n"))
}

/// A paragraph in lines of at most `width` columns.
fn wrapped(paragraph: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in paragraph.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_explains_every_flag_and_fits_a_terminal() {
        let help = help();
        for flag in FLAGS {
            assert!(help.contains(&format!("--{}", flag.long)), "{}", flag.long);
        }
        for line in help.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert!(help.contains("Examples:\n  machineid-run -- "), "{help}");
    }

    #[test]
    fn no_flag_is_there_twice() {
        for (index, flag) in FLAGS.iter().enumerate() {
            assert!(
                FLAGS[..index].iter().all(|other| other.about != flag.about && other.long != flag.long),
                "{flag:?}"
            );
        }
    }
}
