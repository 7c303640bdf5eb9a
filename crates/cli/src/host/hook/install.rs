//! `machineid hook install` and `uninstall`: the hook in an agent's settings.

use std::path::{Path, PathBuf};

use machineid_hook::settings::{Content, Target};
use machineid_hook::{Agent, HookCommand, Kind, Scope};
use machineid_protocol::Exit;

use super::place;
use super::settings_file::{self, Change, FileError};
use crate::Env;
use crate::args::{HookHowArgs, HookInstallArgs, HookUninstallArgs};
use crate::printer::Printer;
use crate::problem::Problem;

pub(crate) fn install(args: &HookInstallArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let agent = args.agent;
    let program = own_program().map_err(Problem::failure)?;
    let command = command(program, agent, &args.how, &working()?);
    let targets = match agent.form().kind {
        Kind::InProgram(snippet) => {
            if !args.print {
                printer.note(&format!("{} is a library: put this into your program", agent.form().title));
            }
            for line in snippet(&command).lines() {
                printer.line(line);
            }
            return Ok(Exit::Success);
        }
        Kind::Unsupported(why) => return Err(Problem::failure(why)),
        Kind::Files(files) => files(args.scope.scope(), &command),
    };
    if targets.is_empty() {
        return Err(no_such_scope(agent, args.scope.scope()));
    }
    for (path, target) in resolve(&targets, env)? {
        if args.print {
            printer.note(&format!("{}:", path.display()));
            for line in target.content.fragment(agent).lines() {
                printer.line(line);
            }
            continue;
        }
        let executable = matches!(target.content, Content::Whole { executable: true, .. });
        let changed =
            settings_file::change(&path, executable, |file| target.content.install(&file.text, agent).map(Some));
        match changed.map_err(|error| problem(&error))? {
            Change::Written => printer.line(format!("{}: the hook is in it", path.display())),
            Change::Unchanged => printer.line(format!("{}: the hook was in it already", path.display())),
            Change::Removed => {}
        }
    }
    if !args.print {
        if let Some(note) = agent.form().note(args.scope.scope()) {
            printer.note(note);
        }
        printer.note("machineid doctor tries the hook, with the daemon and without");
    }
    Ok(Exit::Success)
}

pub(crate) fn uninstall(args: &HookUninstallArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let agent = args.agent;
    let program = own_program().map_err(Problem::failure)?;
    let how = HookHowArgs { device: None, timeout: None, socket: None };
    let command = command(program, agent, &how, &working()?);
    let targets = match agent.form().kind {
        Kind::InProgram(_) => return Err(Problem::failure("the hook is a part of your program: take it out there")),
        Kind::Unsupported(why) => return Err(Problem::failure(why)),
        Kind::Files(files) => files(args.scope.scope(), &command),
    };
    if targets.is_empty() {
        return Err(no_such_scope(agent, args.scope.scope()));
    }
    for (path, target) in resolve(&targets, env)? {
        let changed = settings_file::change(&path, false, |file| {
            if !file.exists() {
                return Ok(None);
            }
            target.content.restore(&file.text, file.copy().as_deref(), agent)
        });
        match changed.map_err(|error| problem(&error))? {
            Change::Written => printer.line(format!("{}: the hook is out of it", path.display())),
            Change::Removed => printer.line(format!("{}: removed, there was nothing else in it", path.display())),
            Change::Unchanged => printer.line(format!("{}: the hook is not in it", path.display())),
        }
    }
    Ok(Exit::Success)
}

/// The hook as a command with these options. Paths become absolute: the agent starts it anywhere.
pub(in crate::host) fn command(program: PathBuf, agent: Agent, how: &HookHowArgs, working: &Path) -> HookCommand {
    HookCommand {
        program,
        agent,
        socket: how.socket.as_ref().map(|socket| working.join(socket)),
        device: how.device.clone(),
        timeout: how.timeout,
    }
}

/// This program's own path, as the agent will start it.
pub(in crate::host) fn own_program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program's own path: {error}"))?;
    if own.file_name().is_none_or(|name| name != "machineid") || !own.exists() {
        return Err(format!("{} is not an installed machineid; start it by its own name", own.display()));
    }
    Ok(own)
}

fn working() -> Result<PathBuf, Problem> {
    std::env::current_dir().map_err(|error| Problem::failure(format!("cannot find the working directory: {error}")))
}

fn resolve<'a>(targets: &'a [Target], env: Env<'_>) -> Result<Vec<(PathBuf, &'a Target)>, Problem> {
    let working = working()?;
    let found = targets.iter().map(|target| Ok((place::path(target.place, env, &working)?, target)));
    let found: Result<Vec<_>, &str> = found.collect();
    found.map_err(|variable| Problem::usage(format!("${variable} is not set, so the settings cannot be found")))
}

fn no_such_scope(agent: Agent, scope: Scope) -> Problem {
    let which = match scope {
        Scope::Project => "--project: it has no settings of a project",
        Scope::User => "--user: it has no settings of a user",
        Scope::Managed => "--managed: it has no settings that hold for all users of a host; use --user",
    };
    Problem::usage(format!("{} cannot be given its hook with {which}", agent.form().title))
}

fn problem(error: &FileError) -> Problem {
    Problem::failure(format!("{error}; {}", error.remedy()))
}
