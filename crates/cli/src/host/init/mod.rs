//! `machineid init`: from installed programs to a green `machineid doctor`.
//!
//! | file | concept |
//! |---|---|
//! | `choices` | pure: answers, and the configuration that they make |
//! | `questions` | asks on a terminal |
//! | `files` | the places, and new files with the right modes |
//! | `start` | units or processes; an authority of one's own with its keys |

mod choices;
mod files;
mod questions;
mod start;

use machineid_org_key::OrgKey;
use machineid_org_key::file::{self as key_file, Pipe};
use machineid_protocol::{Exit, shell_word};

use self::choices::{Authority, Choices, DEFAULT_DEVICE, configuration, pattern, socket_in};
use self::files::{InitPlace, Made};
use self::start::{OwnAuthority, Service, StartedDaemon, Way, own_authority};
use super::doctor;
use crate::Env;
use crate::args::{DoctorArgs, InitArgs, SocketArgs};
use crate::printer::Printer;
use crate::problem::Problem;

/// What the user chose.
#[derive(Debug)]
struct Answers {
    authority: Authority,
    /// `None` with an authority of one's own, which makes the key.
    key: Option<OrgKey>,
    device: String,
}

pub(crate) async fn run(args: &InitArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let place = InitPlace::of(args.directory.as_deref(), env)?;
    place.refuse_existing()?;
    let daemon = Service::daemon(&place, env)?;
    let answers = answers(args, printer)?;
    let mut made = Made::default();
    let mut own = None;
    match set_up(&answers, &place, &daemon, &mut made, &mut own, env).await {
        Ok(()) => {}
        Err(problem) => {
            made.undo();
            if let Some(own) = own {
                own.started.undo();
            }
            return Err(problem);
        }
    }
    tell(&place, &daemon, own.as_ref(), printer);
    if args.no_start {
        printer.note(&format!("start it: {}\nthen:     machineid doctor", daemon.line()));
        return Ok(Exit::Success);
    }
    let socket = SocketArgs { socket: place.alone.then(|| socket_in(&place.directory)) };
    let mut started = daemon.start()?;
    daemon.wait_for_decision(&mut started, &socket, env).await?;
    match &started {
        StartedDaemon::Unit => printer.note(&format!("started it: {}", daemon.line())),
        StartedDaemon::Process(child) => printer.note(&format!(
            "started it (pid {}); after a boot, the same line does: {}",
            child.id(),
            daemon.line()
        )),
    }
    doctor::run(&DoctorArgs { json: false, socket }, env, printer).await
}

fn answers(args: &InitArgs, printer: &mut Printer) -> Result<Answers, Problem> {
    let asks = !args.yes;
    let missing = |what: &str| Problem::usage(format!("{what}; nothing was changed"));
    if asks && (args.url.is_none() || args.device.is_none()) && !questions::can_ask() {
        return Err(missing("there is no terminal to ask on: use --yes with --url and --key-file (and --device)"));
    }
    let authority = match &args.url {
        Some(url) => Authority::parse(url).map_err(|why| missing(&format!("--url: {why}")))?,
        None if asks => questions::authority(printer)?,
        None => {
            return Err(missing(
                "--yes needs --url: the authority's, none for one of your own, https://machineid.io for the service",
            ));
        }
    };
    let key = match (&authority, &args.key_file) {
        (Authority::Own, Some(_)) => return Err(missing("--key-file does not go with --url none, which makes a key")),
        (Authority::Own, None) if args.no_start => {
            return Err(missing("an authority of your own must be started to make its keys; leave --no-start out"));
        }
        (Authority::Own, None) => None,
        (Authority::At(_), Some(path)) => {
            let key = key_file::read(path, Pipe::Taken, false);
            Some(key.map_err(|why| missing(&format!("--key-file {}: {why}", path.display())))?)
        }
        (Authority::At(url), None) if asks && questions::can_ask() => Some(questions::key(url, printer)?),
        (Authority::At(_), None) => return Err(missing("name the file with this host's key: --key-file")),
    };
    let device = match &args.device {
        Some(device) => device.clone(),
        None if asks => questions::device(DEFAULT_DEVICE, printer)?,
        None => DEFAULT_DEVICE.to_owned(),
    };
    Ok(Answers { authority, key, device })
}

/// Writes the files, with an authority first if it is to be one of the user's own, and has the daemon check them.
async fn set_up(
    answers: &Answers,
    place: &InitPlace,
    daemon: &Service,
    made: &mut Made,
    own: &mut Option<OwnAuthority>,
    env: Env<'_>,
) -> Result<(), Problem> {
    Made::directory(&place.directory, if place.system { 0o755 } else { 0o700 })?;
    place.refuse_shared()?;
    if place.alone {
        for below in ["run", "state"] {
            Made::directory(&place.directory.join(below), 0o700)?;
        }
    }
    let url = match &answers.authority {
        Authority::At(url) => url.clone(),
        Authority::Own => own.insert(own_authority(place, &pattern(&answers.device), made, env).await?).url.clone(),
    };
    if let Some(key) = &answers.key {
        made.key(&place.key, key)?;
    }
    let by_credential = *daemon.way() == Way::System;
    let choices = Choices {
        url: &url,
        device: &answers.device,
        key_file: (!by_credential).then_some(&place.key),
        directory: place.alone.then_some(&place.directory),
    };
    let text = configuration(&choices)
        .map_err(|error| Problem::failure(format!("the default configuration is not TOML: {error}")))?;
    made.config(place, &text)?;
    daemon.check(place)
}

/// Says what was made, and how to stop and to use this host.
fn tell(place: &InitPlace, daemon: &Service, own: Option<&OwnAuthority>, printer: &mut Printer) {
    printer.note(&format!("wrote {} and {} (only its owner may read it)", place.config.display(), place.key.display()));
    if let Some(OwnAuthority { url, service, started }) = own {
        if let StartedDaemon::Process(child) = started {
            let line = service.line();
            printer
                .note(&format!("started an authority (pid {}); after a boot, the same line does: {line}", child.id()));
        }
        let key = place.admin_key();
        printer.note(&format!(
            "the operator's key is {}: machineid revoke DEVICE --url {} --org-key-file {}",
            key.display(),
            shell_word(url),
            shell_word(&key.to_string_lossy())
        ));
    }
    if place.alone {
        printer.note(&format!(
            "agents and commands find this daemon by: export MACHINEID_SOCKET={}",
            shell_word(&socket_in(&place.directory).to_string_lossy())
        ));
    }
    if *daemon.way() == Way::System {
        printer.note("each user that starts agents joins the group: usermod -aG machineid USER, then logs in again");
    }
}
