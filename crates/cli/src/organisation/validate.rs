//! `machineid validate`: shows the authority's own answer, without this host's daemon.

use machineid_client::Failure;
use machineid_protocol::{Code, Decision, DeviceId, Exit, RequestId};
use serde::Serialize;

use super::connect::OrgClient;
use super::{each, ids};
use crate::Env;
use crate::args::ValidateArgs;
use crate::printer::{Colour, Printer};
use crate::problem::Problem;
use crate::table::{self, Cell, Column};

/// The answer for one device. The fields of a decision are spelled like the authority's.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(rename = "deviceId")]
    device: DeviceId,
    allowed: bool,
    /// `None` when the authority gave no answer. An answer without a decision has its own code.
    code: Option<Code>,
    request_id: Option<RequestId>,
    reason: Option<String>,
    error: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Debug, Serialize)]
struct ValidateReport {
    results: Vec<Answer>,
}

pub(crate) async fn run(args: &ValidateArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let org = OrgClient::new(&args.key, env)?;
    let devices = ids::parsed(&args.ids)?;
    // Not repeated: a question about the present is answered now, or not at all.
    let request = async |device: &DeviceId| (device.clone(), org.client.validate(&org.key, device).await);
    let answers = each::for_each(&devices, "validating", request, printer).await;
    let results: Vec<Answer> = answers.into_iter().map(|(device, answer)| read(&org, device, answer)).collect();
    let said = |exit| results.iter().any(|answer| answer.exit == exit);
    let exit = match (said(Exit::Denied), said(Exit::Undecided)) {
        (true, _) => Exit::Denied,
        (false, true) => Exit::Undecided,
        (false, false) => Exit::Success,
    };
    if args.json {
        printer.json(&ValidateReport { results });
    } else {
        let rows: Vec<Vec<Cell>> = results.iter().map(row).collect();
        let columns = [Column::keep(""), Column::keep(""), Column::keep(""), Column::drop_at("", 1)];
        for line in table::layout(&columns, &rows, printer.width()).into_iter().skip(1) {
            printer.line(line);
        }
    }
    Ok(exit)
}

fn read(org: &OrgClient, device: DeviceId, answer: Result<Decision, Failure>) -> Answer {
    match answer {
        Ok(Decision::Allow { code, request_id }) => Answer {
            device,
            allowed: true,
            code: Some(code),
            request_id,
            reason: None,
            error: None,
            exit: Exit::Success,
        },
        Ok(Decision::Deny(denial)) => Answer {
            device,
            allowed: false,
            exit: if denial.code == Code::SystemUnavailable { Exit::Undecided } else { Exit::Denied },
            code: Some(denial.code),
            request_id: denial.request_id,
            reason: denial.reason,
            error: None,
        },
        Err(failure) => Answer {
            device,
            allowed: false,
            code: matches!(failure, Failure::Undecided { .. }).then(|| failure.code()),
            request_id: None,
            reason: None,
            error: Some(org.explain(&failure)),
            exit: Exit::Undecided,
        },
    }
}

fn row(answer: &Answer) -> Vec<Cell> {
    let (word, colour) = match (answer.allowed, answer.exit) {
        (true, _) => ("allowed", Colour::Good),
        (false, Exit::Undecided) => ("could not find out", Colour::Unclear),
        (false, _) => ("denied", Colour::Bad),
    };
    let why = match (&answer.code, &answer.error) {
        (Some(code), _) => code.to_string(),
        (None, error) => error.clone().unwrap_or_default(),
    };
    vec![
        Cell::new(answer.device.as_str()),
        Cell::coloured(word, colour),
        Cell::new(why),
        Cell::new(answer.request_id.as_ref().map_or("", RequestId::as_str)),
    ]
}
