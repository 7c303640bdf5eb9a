//! `machineid doctor`: every precondition of enforcement on this host, each with its remedy.
//!
//! | file | concept |
//! |---|---|
//! | `facts` | the facts about this host |
//! | `gather` | collects the facts; decides nothing |
//! | `checks` | pure: facts in, verdicts and remedies out |
//! | `page` | pure: the verdicts as lines that fit the terminal |

mod checks;
mod facts;
mod gather;
mod page;

use serde::Serialize;

use checks::{Check, Expected, Level};
use machineid_protocol::Exit;

use crate::Env;
use crate::args::DoctorArgs;
use crate::printer::Printer;
use crate::problem::Problem;

/// The result as JSON.
#[derive(Debug, Serialize)]
struct DoctorReport<'a> {
    result: Level,
    /// The containment of this user's agents without a `--containment` option.
    auto: Expected,
    checks: &'a [Check],
}

/// Runs the checks. Must be called before any thread is started, since the probes fork.
pub(crate) async fn run(args: &DoctorArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let facts = gather::all(&args.socket, env).await;
    let checks = checks::all(&facts);
    let result = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    if args.json {
        printer.json(&DoctorReport { result, auto: checks::expected(&facts), checks: &checks });
    } else {
        for line in page::lines(&checks, printer.width()) {
            printer.line(line);
        }
    }
    Ok(match result {
        Level::Ok | Level::Warn => Exit::Success,
        Level::Fail => Exit::Failure,
    })
}
