//! `revoke --wait`: follows the devices until every stop is confirmed, or shows which are not confirmed and when their
//! lease ends them.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use machineid_client::Failure;
use machineid_clock::BootTime;
use machineid_protocol::api::DeviceStatus;
use machineid_protocol::report::{FleetDevice, FleetSidecar, ReportedHelper, StopProgress};
use machineid_protocol::stop_bound::default_stop_bound;
use machineid_protocol::{Exit, span};
use serde::Serialize;

use super::agenda::{Agenda, AgendaQuery};
use super::connect::OrgClient;
use super::news::{self, News};
use super::progress::{self, DeviceProgress, Followed, Targets};
use crate::printer::{Colour, Printer};
use crate::table::{self, Cell, Column};
use crate::words::{clock_time, count, millis};

/// The interval between updates of the progress line.
const SHOWN: Duration = Duration::from_millis(300);

/// The result of a wait.
#[derive(Debug)]
pub(super) struct Waited {
    pub(super) report: WaitReport,
    pub(super) exit: Exit,
}

/// The result of a wait, for `--json`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WaitReport {
    /// Whether every agent of every device is known to have ended.
    complete: bool,
    waited_ms: u64,
    stopped: usize,
    unused: usize,
    not_confirmed: Vec<NotConfirmed>,
    /// Processes outside the trees that stopped agents used and that run on.
    outside: Vec<Outside>,
    /// Why nothing, or nothing more, could be found out.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotConfirmed {
    device_id: String,
    state: DeviceProgress,
    survivors: Vec<i32>,
    sidecars: Vec<FleetSidecar>,
}

/// A process outside the trees that runs on, and where.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outside {
    device_id: String,
    host_device_id: String,
    #[serde(flatten)]
    helper: ReportedHelper,
}

impl Outside {
    fn in_words(&self) -> String {
        let what = if self.helper.ending { "ending outside" } else { "still running outside" };
        let (device, helper, host) = (&self.device_id, self.helper.in_words(), &self.host_device_id);
        format!("{device}: stopped; {what}: {helper}, which this agent used, on {host}")
    }
}

fn outside(one: &Followed) -> Vec<Outside> {
    let sidecars = one.device.iter().flat_map(|device| &device.sidecars);
    let of_sidecar = |sidecar: &FleetSidecar| {
        let host = sidecar.host_device_id.clone();
        let left = sidecar.outside.clone().into_iter();
        let device = one.id.clone();
        left.map(move |helper| Outside { device_id: device.clone(), host_device_id: host.clone(), helper })
            .collect::<Vec<_>>()
    };
    sidecars.flat_map(of_sidecar).collect()
}

/// Follows until everything has stopped, or for `longest`; without it, as long as a sidecar that reaches the authority
/// may take.
pub(super) async fn follow(
    org: &OrgClient,
    targets: &Targets,
    longest: Option<Duration>,
    printer: &mut Printer,
) -> Waited {
    let began = BootTime::now();
    let waited = || BootTime::now().saturating_since(began);
    let mut agenda = Agenda::new(targets);
    let mut news = pin!(news::news(&org.client, &org.key));
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
        match look(org, &question).await {
            Ok(Some(devices)) => {
                trouble = None;
                agenda.answered(&question, began, waited(), devices);
                let followed = agenda.followed(waited());
                if agenda.is_over(&followed) {
                    printer.done();
                    return tell(&followed, waited(), None, printer);
                }
            }
            Ok(None) => return without_reports(org, printer),
            // The revoke is done; a failed query is no reason to stop following it.
            Err(failure) => {
                trouble = Some(org.explain(&failure));
                agenda.failed(began, waited());
            }
        }
    }
    printer.done();
    let followed = if agenda.is_known() { agenda.followed(waited()) } else { Vec::new() };
    tell(&followed, waited(), trouble, printer)
}

async fn look(org: &OrgClient, wanted: &AgendaQuery) -> Result<Option<Vec<FleetDevice>>, Failure> {
    match wanted {
        AgendaQuery::All => org.client.whole_fleet(&org.key, Some(DeviceStatus::Revoked)).await,
        AgendaQuery::These(ids) => org.client.some_of_fleet(&org.key, ids).await,
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
fn without_reports(org: &OrgClient, printer: &mut Printer) -> Waited {
    let bound = default_stop_bound();
    let (connected, cut_off) = (span::format(bound.connected), span::format(bound.cut_off));
    printer.note(&format!(
        "machineid: {} accepts no reports of sidecars, so it cannot be confirmed that all have stopped. A sidecar with \
         the default settings stops its agents within {connected} of the revoke, one that is cut off within \
         {cut_off}; machineid-sidecar --check-config says it for a host's own settings",
        org.client.base_url()
    ));
    let error = "the authority accepts no reports".to_owned();
    Waited { report: WaitReport { error: Some(error), ..WaitReport::default() }, exit: Exit::Undecided }
}

const COLUMNS: [Column; 4] =
    [Column::keep("DEVICE"), Column::keep("STATE"), Column::keep("ITS LEASE STOPS IT"), Column::drop_at("SIDECAR", 1)];

fn tell(followed: &[Followed], waited: Duration, trouble: Option<String>, printer: &mut Printer) -> Waited {
    let stopped = followed.iter().filter(|one| one.progress == DeviceProgress::Stopped).count();
    let unused = followed.iter().filter(|one| one.progress == DeviceProgress::Unused).count();
    let open: Vec<&Followed> = followed.iter().filter(|one| !one.progress.is_done()).collect();
    let complete = open.is_empty() && trouble.is_none();
    let survivors = open.iter().any(|one| one.has_survivors() || one.progress == DeviceProgress::OutsideLeft);
    let outside: Vec<Outside> = followed.iter().flat_map(outside).collect();
    if printer.wants_text() {
        if !open.is_empty() {
            let rows: Vec<Vec<Cell>> = open.iter().flat_map(|one| rows(one)).collect();
            for line in table::layout(&COLUMNS, &rows, printer.width()) {
                printer.line(line);
            }
        }
        for left in &outside {
            printer.line(left.in_words());
        }
        printer.line(summary(stopped, unused, &open, outside.len(), waited));
    }
    if let Some(trouble) = &trouble {
        printer.note(&format!("machineid: the revoke is done, but it cannot be followed: {trouble}"));
    }
    let not_confirmed = open.iter().map(|one| not_confirmed(one)).collect();
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let report = WaitReport { complete, waited_ms, stopped, unused, not_confirmed, outside, error: trouble };
    let exit = match (complete, survivors) {
        (true, _) => Exit::Success,
        (false, true) => Exit::Failure,
        (false, false) => Exit::Undecided,
    };
    Waited { report, exit }
}

fn summary(stopped: usize, unused: usize, open: &[&Followed], outside: usize, waited: Duration) -> String {
    let after = crate::words::precise(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    let idle = if unused == 0 { String::new() } else { format!(", {unused} not in use") };
    let stopped = count(stopped, "device", "devices");
    if open.is_empty() && outside > 0 {
        let helpers = count(outside, "outside helper", "outside helpers");
        return format!("{stopped} stopped{idle}: confirmed, {helpers}, known after {after}");
    }
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
        (_, DeviceProgress::NoLongerRevoked) => alone("no longer revoked"),
        (_, DeviceProgress::NotKnownYet) => alone("no sidecar has reported about it yet"),
        (Some(known), DeviceProgress::Unreported) => {
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
        DeviceProgress::Stopping if one.has_survivors() => {
            let pids: Vec<String> = survivors(one).iter().map(ToString::to_string).collect();
            Cell::coloured(format!("survivors: pid {}", pids.join(", ")), Colour::Bad)
        }
        DeviceProgress::Stopping => {
            let agents = count((sidecar.agents + sidecar.stopping) as usize, "agent", "agents");
            Cell::coloured(format!("stopping {agents}"), Colour::Unclear)
        }
        DeviceProgress::OutsideLeft => {
            let helpers = count(sidecar.outside.len(), "outside helper", "outside helpers");
            Cell::coloured(format!("confirmed, {helpers}"), Colour::Bad)
        }
        DeviceProgress::Unproven => Cell::coloured("confirmation not proven", Colour::Bad),
        DeviceProgress::Contradictory => Cell::coloured("contradictory reports", Colour::Bad),
        DeviceProgress::Stopped
        | DeviceProgress::Unused
        | DeviceProgress::Lapsed
        | DeviceProgress::NotKnownYet
        | DeviceProgress::NotHeardFrom
        | DeviceProgress::Unreported
        | DeviceProgress::NoLongerRevoked => Cell::coloured(format!("not heard from for {heard}"), Colour::Bad),
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
