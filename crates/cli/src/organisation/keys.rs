//! `machineid key`: the organisation's keys with roles.

use jiff::Timestamp;
use machineid_client::NewKey;
use machineid_clock as clock;
use machineid_protocol::api::{KeyEntry, KeyOrder};
use machineid_protocol::{Exit, span};
use serde_json::json;

use super::connect::OrgClient;
use super::waiting;
use crate::Env;
use crate::args::{KeyCommand, KeyCreateArgs, KeyListArgs, KeyRevokeArgs, KeyRotateArgs};
use crate::printer::{Colour, Printer};
use crate::problem::Problem;
use crate::table::{self, Cell, Column};
use crate::words::ago;

const COLUMNS: [Column; 8] = [
    Column::keep("FINGERPRINT"),
    Column::keep("ROLE"),
    Column::drop_at("NAME", 1),
    Column::keep("STATE"),
    Column::drop_at("VALID UNTIL", 2),
    Column::drop_at("LAST USED", 3),
    Column::drop_at("USED BY", 5),
    Column::drop_at("DEVICES", 4),
];

pub(crate) async fn run(command: &KeyCommand, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    match command {
        KeyCommand::Create(args) => create(args, env, printer).await,
        KeyCommand::List(args) => list(args, env, printer).await,
        KeyCommand::Revoke(args) => revoke(args, env, printer).await,
        KeyCommand::Rotate(args) => rotate(args, env, printer).await,
    }
}

async fn create(args: &KeyCreateArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let wanted = KeyOrder {
        role: args.role,
        devices: args.devices.clone(),
        name: args.name.clone(),
        expires_in_seconds: args.expires.map(span::whole_seconds),
    };
    let made = org.client.create_key(&org.key, &wanted, args.reason.as_deref()).await;
    Ok(shown(&made.map_err(|failure| org.problem(&failure))?, args.json, printer))
}

async fn rotate(args: &KeyRotateArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let made = org.client.rotate_key(&org.key, &args.which, args.overlap, args.reason.as_deref()).await;
    Ok(shown(&made.map_err(|failure| org.problem(&failure))?, args.json, printer))
}

/// Prints a key, this once. The text goes to stdout alone, so that it can be written into a file.
fn shown(new: &NewKey, json: bool, printer: &mut Printer) -> Exit {
    let NewKey { key, entry, waits } = new;
    if json {
        let mut told = json!({ "orgApiKey": key.expose(), "key": entry });
        if waits.is_some() {
            told["waiting"] = waiting::json(waits.as_deref());
        }
        printer.json(&told);
    } else {
        printer.line(key.expose());
    }
    if let Some(waits) = waits {
        waiting::note(waits, printer);
        printer.note("the key is valid only after that; it is shown only this once");
        return Exit::Waiting;
    }
    let Some(entry) = entry.as_ref().filter(|_| !json) else { return Exit::Success };
    let devices = entry.devices.as_ref().map_or_else(String::new, |devices| format!(", for devices {devices}"));
    let ends = entry.ends.as_ref().map_or_else(String::new, |ends| format!(", valid until {ends}"));
    printer.note(&format!(
        "this is a key of the role {}{devices}{ends}; its fingerprint is {}. It is shown only this once",
        entry.role, entry.fingerprint
    ));
    Exit::Success
}

async fn revoke(args: &KeyRevokeArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let ended = org.client.revoke_key(&org.key, &args.which, args.reason.as_deref()).await;
    let (fingerprints, notice) = ended.map_err(|failure| org.problem(&failure))?;
    if args.json {
        let mut told = json!({ "fingerprints": fingerprints });
        if let Some(notice) = notice {
            told["notice"] = notice.into();
        }
        printer.json(&told);
    } else {
        if let Some(notice) = notice {
            printer.note(&format!("machineid: warning: {notice}"));
        }
        printer.line(format!("invalid now: {}", fingerprints.join(", ")));
    }
    Ok(Exit::Success)
}

async fn list(args: &KeyListArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let keys = org.client.keys(&org.key).await.map_err(|failure| org.problem(&failure))?;
    if args.json {
        printer.json(&json!({ "keys": keys }));
        return Ok(Exit::Success);
    }
    let now = clock::wall_now();
    let rows: Vec<Vec<Cell>> = keys.iter().map(|key| row(key, now)).collect();
    for line in table::layout(&COLUMNS, &rows, printer.width()) {
        printer.line(line);
    }
    Ok(Exit::Success)
}

fn row(key: &KeyEntry, now: Timestamp) -> Vec<Cell> {
    let or = |text: Option<&String>, other: &str| text.map_or_else(|| other.to_owned(), Clone::clone);
    let colour = match key.state.as_str() {
        "valid" => Colour::Good,
        "old" => Colour::Unclear,
        _ => Colour::Bad,
    };
    vec![
        Cell::new(&key.fingerprint),
        Cell::new(key.role.as_str()),
        Cell::new(if key.own { "(own key)".to_owned() } else { or(key.name.as_ref(), "-") }),
        Cell::coloured(&key.state, colour),
        Cell::new(or(key.ends.as_ref(), "-")),
        Cell::new(key.last_used_at.as_ref().map_or_else(|| "-".to_owned(), |at| ago(at, now))),
        Cell::new(key.used_by_devices.to_string()),
        Cell::new(or(key.devices.as_ref(), "*")),
    ]
}
