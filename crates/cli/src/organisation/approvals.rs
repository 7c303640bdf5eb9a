//! `machineid approvals`, `approve`, `reject`: restores that wait for a second key; and `org disable`, `org enable`.

use jiff::Timestamp;
use machineid_clock as clock;
use machineid_protocol::Exit;
use machineid_protocol::api::{ApprovalListed, ExecutionState};
use serde_json::json;

use super::connect::OrgClient;
use super::waiting;
use crate::Env;
use crate::args::{ApprovalArgs, ApprovalsArgs, DisableArgs, EnableArgs};
use crate::confirm;
use crate::printer::{Colour, Printer};
use crate::problem::Problem;
use crate::table::{self, Cell, Column};
use crate::words::ago;

const COLUMNS: [Column; 5] = [
    Column::keep("ID"),
    Column::keep("STATE"),
    Column::drop_at("ASKED BY", 2),
    Column::drop_at("ASKED", 1),
    Column::fold("WHAT, AND WHY"),
];

pub(crate) async fn list(args: &ApprovalsArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let mut all = org.client.approvals(&org.key).await.map_err(|failure| org.problem(&failure))?;
    if !args.all {
        all.retain(|approval| approval.state == "waiting");
    }
    if args.json {
        printer.json(&json!({ "approvals": all }));
        return Ok(Exit::Success);
    }
    if all.is_empty() {
        printer.note("nothing waits for a second key");
        return Ok(Exit::Success);
    }
    let now = clock::wall_now();
    let rows: Vec<Vec<Cell>> = all.iter().map(|approval| row(approval, now)).collect();
    for line in table::layout(&COLUMNS, &rows, printer.width()) {
        printer.line(line);
    }
    Ok(Exit::Success)
}

fn row(approval: &ApprovalListed, now: Timestamp) -> Vec<Cell> {
    let colour = match approval.state.as_str() {
        "waiting" => Colour::Unclear,
        "approved" => Colour::Good,
        _ => Colour::Bad,
    };
    let what = match &approval.reason {
        Some(reason) => format!("{}: {reason}", approval.asks),
        None => approval.asks.clone(),
    };
    vec![
        Cell::new(&approval.id),
        Cell::coloured(&approval.state, colour),
        Cell::new(&approval.asked_by),
        Cell::new(ago(&approval.asked_at, now)),
        Cell::new(what),
    ]
}

pub(crate) async fn approve(args: &ApprovalArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let done = org.client.approve(&org.key, &args.id, args.reason.as_deref()).await;
    decided(&done.map_err(|failure| org.problem(&failure))?, args.json, printer);
    Ok(Exit::Success)
}

pub(crate) async fn reject(args: &ApprovalArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let done = org.client.reject(&org.key, &args.id, args.reason.as_deref()).await;
    decided(&done.map_err(|failure| org.problem(&failure))?, args.json, printer);
    Ok(Exit::Success)
}

fn decided(approval: &ApprovalListed, json: bool, printer: &mut Printer) {
    if json {
        printer.json(&json!({ "approval": approval }));
    } else {
        printer.line(format!("{}: {}", approval.state, approval.asks));
    }
}

pub(crate) async fn disable(args: &DisableArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let question = format!(
        "Switch execution off for every device of the organisation at {}? All its agents stop. Type off: ",
        org.client.base_url()
    );
    if !args.yes && !confirm::word(&question, "off", printer) {
        return Err(Problem::usage("execution was not switched off; --yes does so without asking".to_owned()));
    }
    let state = org.client.disable(&org.key, args.reason.as_deref()).await.map_err(|failure| org.problem(&failure))?;
    switched(&state, args.json, printer);
    Ok(Exit::Success)
}

pub(crate) async fn enable(args: &EnableArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let state = match org.client.enable(&org.key, args.reason.as_deref()).await {
        Ok(state) => state,
        Err(failure) => return waiting::or_problem(&org, &failure, args.json, printer),
    };
    switched(&state, args.json, printer);
    // What was asked for is done, but nothing may execute.
    Ok(if state.disabled { Exit::Failure } else { Exit::Success })
}

fn switched(state: &ExecutionState, json: bool, printer: &mut Printer) {
    if json {
        printer.json(state);
        return;
    }
    if let Some(notice) = &state.notice {
        printer.note(&format!("machineid: warning: {notice}"));
    }
    let operator = state.off_by.iter().any(|switch| switch == "operator");
    printer.line(match (state.disabled, operator) {
        (false, _) => "execution is on".to_owned(),
        (true, false) => "execution is off: every device is denied with ORG_DISABLED".to_owned(),
        (true, true) => {
            "execution is off: the operator of the authority switched it off, and only the operator switches \
                         it on again"
                .to_owned()
        }
    });
    for off in &state.switched_off {
        let at = off.at.as_ref().map_or_else(String::new, |at| format!(" since {at}"));
        let by = off.by.as_ref().map_or_else(String::new, |by| format!(", by {by}"));
        let why = off.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        printer.line(format!("the switch {} is off{at}{by}{why}", off.switch));
    }
}
