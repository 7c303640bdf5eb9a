//! `usage`, `checkout` and `org create`: the organisation's plan, and new organisations.

use machineid_protocol::Exit;
use serde_json::json;

use super::connect::{self, KeyedClient};
use crate::Env;
use crate::args::{CheckoutArgs, OrgCreateArgs, UsageArgs};
use crate::printer::Printer;
use crate::problem::Problem;

pub(crate) async fn usage(args: &UsageArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let keyed = KeyedClient::new(&args.key, env)?;
    let plan = keyed.client.usage(&keyed.key).await.map_err(|failure| keyed.problem(&failure))?;
    if args.json {
        printer.json(&plan);
        return Ok(Exit::Success);
    }
    let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let text = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    printer.line(format!("plan       {} ({})", text(plan.plan_tier), text(plan.plan_state)));
    printer.line(format!(
        "devices    {} of {} active, {} left",
        number(plan.devices_used),
        number(plan.limit),
        number(plan.remaining)
    ));
    printer.line(format!(
        "access     {}",
        plan.access_until.map_or_else(|| "without an end".to_owned(), |end| format!("until {end}"))
    ));
    if plan.over_limit == Some(true) {
        printer.line("more devices are active than the plan allows");
    }
    Ok(Exit::Success)
}

pub(crate) async fn checkout(args: &CheckoutArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let keyed = KeyedClient::new(&args.key, env)?;
    let answer = keyed.client.checkout(&keyed.key, args.plan.word()).await;
    let url = answer.map_err(|failure| keyed.problem(&failure))?;
    if args.json {
        printer.json(&json!({ "url": url }));
    } else {
        printer.line(url);
        printer.note("open this address in a browser to go on");
    }
    Ok(Exit::Success)
}

pub(crate) async fn org_create(args: &OrgCreateArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let client = connect::client(&args.connect, env)?;
    let key = client
        .org_create()
        .await
        .map_err(|failure| Problem::failure(format!("{}: {failure}{}", client.base_url(), connect::hint(&failure))))?;
    // The only place that prints a key.
    if args.json {
        printer.json(&json!({ "orgApiKey": key.expose() }));
    } else {
        printer.line(key.expose());
        printer.note(
            "this is the new organisation's key; it is shown only this once. Keep it in a file only you can read, as in: \
             (umask 077; machineid org create > org.key)",
        );
    }
    Ok(Exit::Success)
}
