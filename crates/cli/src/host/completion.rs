//! `machineid completion`: the completions that the packages install, for hosts without a package.

use crate::args::{CompletedProgram, CompletionArgs, Shell};
use crate::printer::Printer;

macro_rules! of {
    ($name:literal) => {
        [
            include_str!(concat!("../../../../packaging/completions/bash/", $name)),
            include_str!(concat!("../../../../packaging/completions/zsh/_", $name)),
            include_str!(concat!("../../../../packaging/completions/fish/", $name, ".fish")),
        ]
    };
}

pub(crate) fn run(args: &CompletionArgs, printer: &mut Printer) {
    let [bash, zsh, fish] = match args.program {
        CompletedProgram::Machineid => of!("machineid"),
        CompletedProgram::MachineidRun => of!("machineid-run"),
        CompletedProgram::MachineidSidecar => of!("machineid-sidecar"),
        CompletedProgram::MachineidAuthority => of!("machineid-authority"),
    };
    let text = match args.shell {
        Shell::Bash => bash,
        Shell::Zsh => zsh,
        Shell::Fish => fish,
    };
    printer.verbatim(text);
}
