//! `machineid`: the operator's command line.
//!
//! Two halves share only their output: `host` asks this host's daemon over its socket, `organisation` asks the
//! authority about the organisation's devices. Results go to stdout, everything else to stderr; scripts use `--json` and the exit code.

#![forbid(unsafe_code)]

mod args;
mod confirm;
mod host;
mod organisation;
mod printer;
mod problem;
mod role;
mod table;
mod words;

use std::ffi::OsString;

use clap::Parser;

use args::{Cli, Command, HookCommands};
use machineid_protocol::Exit;
use printer::Printer;
use problem::Problem;

/// Reads the environment; passed to everything that needs it.
type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the command that the process was started with, and returns its exit code.
#[must_use]
pub fn main() -> Exit {
    machineid_sys::keep_name_services_inside();
    #[expect(clippy::disallowed_methods, reason = "the one place of this program that reads the environment")]
    let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Failing to print help to a closed pipe is no error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    if let Command::Canary(args) = &cli.command {
        return host::drill::live(args, &env);
    }
    let mut printer = Printer::new(&env);
    if let Command::Hook(args) = &cli.command {
        // Started before each tool call: without a runtime it is there in a quarter of the time.
        let outcome = match &args.command {
            None => return host::hook::answer(&args.answer, &env),
            Some(HookCommands::Install(args)) => host::hook::install(args, &env, &mut printer),
            Some(HookCommands::Uninstall(args)) => host::hook::uninstall(args, &env, &mut printer),
        };
        return finish(outcome, printer);
    }
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli.command, &env, &mut printer)),
        Err(error) => Err(cannot_start(&error, &env)),
    };
    finish(outcome, printer)
}

/// Without a socket pair, as in a sandbox that forbids unix sockets, there is no runtime.
fn cannot_start(error: &std::io::Error, env: Env<'_>) -> Problem {
    let socket = machineid_protocol::socket_path::find(None, env, std::path::Path::exists, std::path::Path::new(""));
    match machineid_sys::why_unreachable(&socket) {
        Some(why) => Problem::undecided(why),
        None => Problem::failure(format!("cannot start: {}", machineid_sys::io_in_words(error))),
    }
}

fn finish(outcome: Result<Exit, Problem>, mut printer: Printer) -> Exit {
    let exit = outcome.unwrap_or_else(|problem| {
        printer.problem(&problem);
        problem.exit
    });
    printer.finish(exit)
}

async fn run(command: Command, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    match command {
        Command::Check(args) => host::check::run(&args, env, printer).await,
        Command::Status(args) if args.watch => host::watch::run(&args, env, printer).await,
        Command::Status(args) => host::status::run(&args, env, printer).await,
        Command::Events(args) => host::events::run(&args, env, printer).await,
        Command::Stop(args) => host::stop::run(&args, env, printer).await,
        Command::Release(args) => host::release::run(&args, env, printer).await,
        Command::Adopt(args) => host::adopt::run(&args, env, printer).await,
        Command::Audit { command: args::AuditCommand::Verify(args) } => host::audit::verify(&args, printer),
        Command::Drill(args) => host::drill::run(&args, env, printer).await,
        // Handled above, as a canary is: a hook needs no runtime.
        Command::Hook(args) => Ok(host::hook::answer(&args.answer, env)),
        // Handled above: a canary needs no runtime.
        Command::Canary(args) => Ok(host::drill::live(&args, env)),
        Command::Init(args) => host::init::run(&args, env, printer).await,
        Command::Doctor(args) => host::doctor::run(&args, env, printer).await,
        Command::Completion(args) => {
            host::completion::run(&args, printer);
            Ok(Exit::Success)
        }
        Command::Register(args) => organisation::each::register(&args, env, printer).await,
        Command::Validate(args) => organisation::validate::run(&args, env, printer).await,
        Command::Revoke(args) => organisation::revoke::run(&args, env, printer).await,
        Command::Unrevoke(args) => organisation::unrevoke::run(&args, env, printer).await,
        Command::Remove(args) => organisation::each::remove(&args, env, printer).await,
        Command::List(args) => organisation::list::run(&args, env, printer).await,
        Command::Usage(args) => organisation::billing::usage(&args, env, printer).await,
        Command::Checkout(args) => organisation::billing::checkout(&args, env, printer).await,
        Command::Key { command } => organisation::keys::run(&command, env, printer).await,
        Command::Approvals(args) => organisation::approvals::list(&args, env, printer).await,
        Command::Approve(args) => organisation::approvals::approve(&args, env, printer).await,
        Command::Reject(args) => organisation::approvals::reject(&args, env, printer).await,
        Command::Org { command: args::OrgCommand::Create(args) } => {
            organisation::billing::org_create(&args, env, printer).await
        }
        Command::Org { command: args::OrgCommand::Disable(args) } => {
            organisation::approvals::disable(&args, env, printer).await
        }
        Command::Org { command: args::OrgCommand::Enable(args) } => {
            organisation::approvals::enable(&args, env, printer).await
        }
    }
}
