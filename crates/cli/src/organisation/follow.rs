//! `revoke --wait`: follows the devices until every stop is confirmed, or shows which are not confirmed and when their
//! lease ends them.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use machineid_client::Failure;
use machineid_clock::BootTime;
use machineid_protocol::api::DeviceStatus;
use machineid_protocol::report::{FleetDevice, FleetSidecar, StopProgress};
use machineid_protocol::stop_bound::default_stop_bound;
use machineid_protocol::{Exit, span};
use serde::Serialize;

use super::agenda::{Agenda, Look};
use super::connect::KeyedClient;
use super::news::{self, News};
use super::progress::{self, Followed, Progress, Targets};
use crate::printer::{Colour, Printer};
use crate::table::{self, Cell, Column};
use crate::words::{clock_time, count, millis};

/// The interval between updates of the progress line.
const SHOWN: Duration = Duration::from_millis(300);

/// The result of a wait.
#[derive(Debug)]
pub(super) struct Waited {
    pub(super) report: Report,
    pub(super) exit: Exit,
}

/// The result of a wait, for `--json`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Whether every agent of every device is known to have ended.
    complete: bool,
    waited_ms: u64,
    stopped: usize,
    unused: usize,
    not_confirmed: Vec<NotConfirmed>,
    /// Why nothing, or nothing more, could be found out.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotConfirmed {
    device_id: String,
    state: Progress,
    survivors: Vec<i32>,
    sidecars: Vec<FleetSidecar>,
}

/// Follows until everything has stopped, or for `longest`; without it, as long as a sidecar that reaches the authority
/// may take.
pub(super) async fn follow(
    keyed: &KeyedClient,
    targets: &Targets,
    longest: Option<Duration>,
    printer: &mut Printer,
) -> Waited {
    let began = BootTime::now();
    let waited = || BootTime::now().saturating_since(began);
    let mut agenda = Agenda::new(targets);
    let mut news = pin!(news::news(&keyed.client, &keyed.key));
    let mut trouble = None;
    loop {
        let followed = agenda.is_known().then(|| agenda.followed(waited()));
        let patience =
            longest.unwrap_or_else(|| followed.as_deref().map_or(Duration::from_secs(30), progress::patience));
        if waited() >= patience {
            break;
        }
        show(followed.as_deref(), trouble.as_deref(), waited(), printer);
        let (at, question) = agenda.next(waited());
        let pause = at.min(patience).saturating_sub(waited());
        if !pause.is_zero() {
            tokio::select! {
                heard = news.next() => agenda.heard(heard.unwrap_or(News::Lost)),
                () = tokio::time::sleep(pause.min(SHOWN)) => {}
            }
            continue;
        }
        let began = waited();
        match look(keyed, &question).await {
            Ok(Some(devices)) => {
                trouble = None;
                agenda.answered(&question, began, waited(), devices);
                let followed = agenda.followed(waited());
                if agenda.is_over(&followed) {
                    printer.done();
                    return tell(&followed, waited(), None, printer);
                }
            }
            Ok(None) => return without_reports(keyed, printer),
            // The revoke is done; a failed query is no reason to stop following it.
            Err(failure) => {
                trouble = Some(keyed.explain(&failure));
                agenda.failed(began, waited());
            }
        }
    }
    printer.done();
    let followed = if agenda.is_known() { agenda.followed(waited()) } else { Vec::new() };
    tell(&followed, waited(), trouble, printer)
}

async fn look(keyed: &KeyedClient, wanted: &Look) -> Result<Option<Vec<FleetDevice>>, Failure> {
    match wanted {
        Look::All => keyed.client.whole_fleet(&keyed.key, Some(DeviceStatus::Revoked)).await,
        Look::These(ids) => keyed.client.some_of_fleet(&keyed.key, ids).await,
    }
}

fn show(known: Option<&[Followed]>, trouble: Option<&str>, waited: Duration, printer: &mut Printer) {
    let all = known.unwrap_or_default();
    let done = all.iter().filter(|one| one.progress.is_done()).count();
    let text = match trouble {
        Some(trouble) => format!("the authority cannot be reached, retrying: {trouble}"),
        None => format!("stopped, waiting {}", crate::words::duration(waited)),
    };
    printer.bar(done, all.len(), &text);
}

/// Reports the bound only: this authority accepts no reports.
fn without_reports(keyed: &KeyedClient, printer: &mut Printer) -> Waited {
    let bound = default_stop_bound();
    let (connected, cut_off) = (span::format(bound.connected), span::format(bound.cut_off));
    printer.note(&format!(
        "machineid: {} does not report what sidecars do, so it cannot be told when all have stopped. A sidecar with \
         the default settings stops its agents within {connected} of the revoke, one that is cut off within \
         {cut_off}; machineid-sidecar --check-config says it for a host's own settings",
        keyed.client.base_url()
    ));
    let error = "the authority takes no reports".to_owned();
    Waited { report: Report { error: Some(error), ..Report::default() }, exit: Exit::Undecided }
}

const COLUMNS: [Column; 4] =
    [Column::keep("DEVICE"), Column::keep("STATE"), Column::keep("ITS LEASE STOPS IT"), Column::drop_at("SIDECAR", 1)];

fn tell(followed: &[Followed], waited: Duration, trouble: Option<String>, printer: &mut Printer) -> Waited {
    let stopped = followed.iter().filter(|one| one.progress == Progress::Stopped).count();
    let unused = followed.iter().filter(|one| one.progress == Progress::Unused).count();
    let open: Vec<&Followed> = followed.iter().filter(|one| !one.progress.is_done()).collect();
    let complete = open.is_empty() && trouble.is_none();
    let survivors = open.iter().any(|one| one.has_survivors());
    if printer.wants_text() {
        if !open.is_empty() {
            let rows: Vec<Vec<Cell>> = open.iter().flat_map(|one| rows(one)).collect();
            for line in table::layout(&COLUMNS, &rows, printer.width()) {
                printer.line(line);
            }
        }
        printer.line(summary(stopped, unused, &open, waited));
    }
    if let Some(trouble) = &trouble {
        printer.note(&format!("machineid: the revoke is done, but it cannot be followed: {trouble}"));
    }
    let not_confirmed = open.iter().map(|one| not_confirmed(one)).collect();
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let report = Report { complete, waited_ms, stopped, unused, not_confirmed, error: trouble };
    let exit = match (complete, survivors) {
        (true, _) => Exit::Success,
        (false, true) => Exit::Failure,
        (false, false) => Exit::Undecided,
    };
    Waited { report, exit }
}

fn summary(stopped: usize, unused: usize, open: &[&Followed], waited: Duration) -> String {
    let after = crate::words::precise(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    let idle = if unused == 0 { String::new() } else { format!(", {unused} not in use") };
    let stopped = count(stopped, "device", "devices");
    if open.is_empty() {
        return format!("nothing runs any more on {stopped}{idle}, known after {after}");
    }
    format!("nothing runs any more on {stopped}{idle}; not confirmed within {after}: {}", open.len())
}

fn rows(one: &Followed) -> Vec<Vec<Cell>> {
    let device = Cell::new(&one.id);
    let alone =
        |word: &str| vec![vec![device.clone(), Cell::coloured(word, Colour::Unclear), Cell::new("-"), Cell::new("-")]];
    match (&one.device, one.progress) {
        (_, Progress::NoLongerRevoked) => alone("not revoked any more"),
        (_, Progress::NotKnownYet) => alone("no sidecar has reported about it so far"),
        (Some(known), Progress::Unreported) => {
            let ago = known.last_seen_ago_ms.map_or_else(String::new, |ago| format!(", asked {} ago", millis(ago)));
            alone(&format!("no sidecar reports about it{ago}"))
        }
        (Some(known), _) => {
            let open = known.sidecars.iter().filter(|sidecar| !progress::of_sidecar(known, sidecar).is_done());
            open.map(|sidecar| row(one, known, sidecar)).collect()
        }
        (None, _) => alone("unknown"),
    }
}

fn row(one: &Followed, device: &FleetDevice, sidecar: &FleetSidecar) -> Vec<Cell> {
    let heard = millis(sidecar.heard_ago_ms);
    let state = match progress::of_sidecar(device, sidecar) {
        Progress::Stopping if one.has_survivors() => {
            let pids: Vec<String> = survivors(one).iter().map(ToString::to_string).collect();
            Cell::coloured(format!("survivors: pid {}", pids.join(", ")), Colour::Bad)
        }
        Progress::Stopping => {
            let agents = count((sidecar.agents + sidecar.stopping) as usize, "agent", "agents");
            Cell::coloured(format!("stopping {agents}"), Colour::Unclear)
        }
        Progress::Stopped
        | Progress::Unused
        | Progress::Lapsed
        | Progress::NotKnownYet
        | Progress::NotHeardFrom
        | Progress::Unreported
        | Progress::NoLongerRevoked => Cell::coloured(format!("not heard from for {heard}"), Colour::Bad),
    };
    let by = sidecar.stop.as_ref().map_or_else(|| "-".to_owned(), lease_end);
    vec![Cell::new(&one.id), state, Cell::new(by), Cell::new(&sidecar.host_device_id)]
}

fn lease_end(stop: &StopProgress) -> String {
    let at = clock_time(&stop.by);
    // A paused machine has not run until the end of its lease; otherwise the agents have ended.
    if stop.in_ms == 0 { format!("since {at}, if it ran") } else { format!("by {at} (in {})", millis(stop.in_ms)) }
}

fn survivors(one: &Followed) -> Vec<i32> {
    let stop = one.device.as_ref().and_then(|device| device.last_stop.as_ref()).filter(|_| one.has_survivors());
    stop.map(|last| last.stop.survivors.iter().map(|survivor| survivor.pid).collect()).unwrap_or_default()
}

fn not_confirmed(one: &Followed) -> NotConfirmed {
    let open = |device: &FleetDevice| -> Vec<FleetSidecar> {
        let sidecars = device.sidecars.iter();
        sidecars.filter(|sidecar| !progress::of_sidecar(device, sidecar).is_done()).cloned().collect()
    };
    NotConfirmed {
        device_id: one.id.clone(),
        state: one.progress,
        survivors: survivors(one),
        sidecars: one.device.as_ref().map(open).unwrap_or_default(),
    }
}
