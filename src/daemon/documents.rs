//! Manual pages and completions: generated from the same definitions as `--help`, kept in `packaging`, and compared here, so
//! that every change of a command line changes its documents under review.
//!
//! To regenerate them: `BLESS=1 cargo test --lib documents`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use machineid_run::flags::{ABOUT, AFTER, FLAGS, Takes};
use machineid_version::VERSION;

/// The programs' command lines.
fn programs() -> [clap::Command; 4] {
    [super::command(), wrapper(), machineid_cli::command(), machineid_authority::command::command()]
}

/// The wrapper's command line, which it reads without clap.
fn wrapper() -> clap::Command {
    use clap::{Arg, ArgAction, ValueHint};
    let arguments = FLAGS.into_iter().map(|flag| {
        let argument = Arg::new(flag.long).long(flag.long).help(flag.help);
        let argument = match flag.short {
            Some(short) => argument.short(short),
            None => argument,
        };
        match flag.takes {
            Takes::Nothing => argument.action(ArgAction::SetTrue),
            Takes::Value(value) => argument.value_name(value).value_hint(ValueHint::Other),
            Takes::Optional(value) => argument.value_name(value).num_args(0..=1).require_equals(true),
            Takes::OneOf(values) => argument.value_name("HOW").value_parser(values.to_vec()),
            Takes::Path => argument.value_name("PATH").value_hint(ValueHint::FilePath),
        }
    });
    let command = Arg::new("command").value_name("COMMAND").help("The command, and its arguments behind it");
    let command =
        command.required(true).num_args(1..).trailing_var_arg(true).value_hint(ValueHint::CommandWithArguments);
    clap::Command::new("machineid-run")
        .version(VERSION)
        .about(ABOUT)
        .after_help(AFTER)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(arguments)
        .arg(command)
}

/// Every document, by its place in `packaging`.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut documents = BTreeMap::new();
    for program in programs() {
        let name = program.get_name().to_owned();
        for (shell, file) in [
            (Shell::Bash, format!("bash/{name}")),
            (Shell::Zsh, format!("zsh/_{name}")),
            (Shell::Fish, format!("fish/{name}.fish")),
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut program.clone(), &name, &mut text);
            documents.insert(Path::new("completions").join(file), String::from_utf8(text).unwrap());
        }
        let mut program = program.disable_help_subcommand(true);
        program.build();
        pages(&program, &mut documents);
    }
    documents
}

/// A page for the command and one for each of its subcommands, as in git: `machineid-revoke(1)`.
fn pages(command: &clap::Command, documents: &mut BTreeMap<PathBuf, String>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let below: Vec<_> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    for &below in &below {
        pages(below, documents);
    }
    let page = clap_mangen::Man::new(command.clone()).date("").source("machineid-sidecar");
    let mut text = Vec::new();
    // Without a version: otherwise each release would change every page.
    page.render_title(&mut text).unwrap();
    page.render_name_section(&mut text).unwrap();
    page.render_synopsis_section(&mut text).unwrap();
    page.render_description_section(&mut text).unwrap();
    page.render_options_section(&mut text).unwrap();
    if !below.is_empty() {
        page.render_subcommands_section(&mut text).unwrap();
    }
    if command.get_after_long_help().or(command.get_after_help()).is_some() {
        page.render_extra_section(&mut text).unwrap();
    }
    let text = String::from_utf8(text).unwrap().replace(".SH EXTRA", ".SH NOTES");
    let text: String = text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
    documents.insert(Path::new("man").join(format!("{name}.1")), text);
}

#[test]
fn manual_pages_and_completions_are_those_of_the_command_lines() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    #[expect(clippy::disallowed_methods, reason = "how the one who runs this test asks for new files")]
    let bless = std::env::var_os("BLESS").is_some();
    let documents = documents();
    let mut stale = Vec::new();
    for (place, text) in &documents {
        let path = packaging.join(place);
        if std::fs::read_to_string(&path).is_ok_and(|kept| kept == *text) {
            continue;
        }
        stale.push(place.clone());
        if bless {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
    }
    for directory in ["man", "completions/bash", "completions/zsh", "completions/fish"] {
        for kept in std::fs::read_dir(packaging.join(directory)).into_iter().flatten() {
            let place = Path::new(directory).join(kept.unwrap().file_name());
            if !documents.contains_key(&place) {
                stale.push(place.clone());
                if bless {
                    std::fs::remove_file(packaging.join(place)).unwrap();
                }
            }
        }
    }
    assert!(bless || stale.is_empty(), "write them anew with BLESS=1 cargo test --lib documents: {stale:?}");
}

#[test]
fn every_help_fits_a_terminal_and_every_program_shows_examples() {
    fn fits(command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
        }
        command.get_subcommands_mut().for_each(fits);
    }
    for mut program in programs() {
        let help = program.render_help().to_string();
        assert!(help.contains("Examples:"), "{help}");
        let mut program = program.max_term_width(80);
        program.build();
        fits(&mut program);
    }
}
