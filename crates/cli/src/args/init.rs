//! What can be typed behind `machineid init` and `machineid completion`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const INIT_HELP: &str = "\
It writes machineid-sidecar.toml and the key file org-key (mode 0600) into /etc/machineid as root, else into \
~/.config/machineid, has the daemon check them, enables the unit or starts the daemon, and ends with machineid doctor. No file \
is overwritten, but for the package's unchanged default. A key is sent to the authority that you name, and to no other: the \
service is used only when you type its URL, https://machineid.io.

Exit codes: 0 set up, and nothing that doctor checks failed; 1 something did; 2 wrong usage, nothing was changed.";

const DEVICE_HELP: &str = "This host's device id, in which {hostname}, {machine_id} and {env:NAME} are replaced [default: \
                           host:{hostname}:{machine_id}]";

#[derive(Debug, Args)]
#[command(after_help = INIT_HELP)]
pub(crate) struct InitArgs {
    /// The authority: its URL, unix:PATH, or none: then one of your own is started on this host
    #[arg(long, value_name = "URL|none")]
    pub(crate) url: Option<String>,
    /// A file with this host's key, which is copied; with an authority of your own, a key of the role host
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    #[arg(long, value_name = "ID", help = DEVICE_HELP)]
    pub(crate) device: Option<String>,
    /// Ask nothing; then --url must be there, and --key-file unless that is none
    #[arg(long)]
    pub(crate) yes: bool,
    /// Start nothing: print the line that does
    #[arg(long)]
    pub(crate) no_start: bool,
    /// Keep everything below this directory, socket and records too: for a trial, or a second daemon
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// The shells that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The programs that have completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletedProgram {
    Machineid,
    MachineidRun,
    MachineidSidecar,
    MachineidAuthority,
}

const COMPLETION_HELP: &str = "\
The packages install them. By hand:
  bash  machineid completion bash > \
~/.local/share/bash-completion/completions/machineid
  zsh   machineid completion zsh > DIR/_machineid     DIR is in $fpath
  fish  machineid completion fish > ~/.config/fish/completions/machineid.fish";

#[derive(Debug, Args)]
#[command(after_help = COMPLETION_HELP)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
    /// The program
    #[arg(long, value_enum, default_value_t = CompletedProgram::Machineid)]
    pub(crate) program: CompletedProgram,
}
