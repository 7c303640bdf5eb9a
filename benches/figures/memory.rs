//! What the wrapper and the daemon hold in memory.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Length;
use crate::common::agents::Agents;
use crate::common::authority::Authority;
use crate::common::daemon::{Daemon, MAX_AGE, wrapper};
use crate::common::load::Target;
use crate::common::process::{Guarded, Memory, processor_time, settled_memory};
use crate::common::report::{self, Table, mebibytes};
use crate::common::{Outcome, PATIENCE, clean_environment, now, static_build};

/// Checks between the second and the third look at the daemon.
const CHECKS: usize = 1000;

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    let daemon = Daemon::start(&authority)?;
    let many = length.pick(200, 20);
    let headings = ["process", "resident", "private dirty", "proportional", "of a sleep", "figure to beat"];
    let mut table = Table::new("Memory", &headings);

    let mut sleep = Command::new("sleep");
    clean_environment(&mut sleep, daemon.home());
    let sleep = Guarded::start(sleep.arg("600").stdin(Stdio::null()))?;
    let base = settled_memory(sleep.pid(), "sleep")?;
    row(&mut table, "sleep, for comparison", base, base, "");

    let idle = Memory::of(daemon.pid())?;
    let span = length.pick(Duration::from_secs(30), Duration::from_secs(6));
    let before = processor_time(daemon.pid())?;
    std::thread::sleep(span);
    let busy = processor_time(daemon.pid())?.saturating_sub(before);
    let plain = (wrapper(), "", "2.5 MiB resident, 0.5 MiB private dirty");
    let alone = static_build::wrapper().map(|path| (path, ", static", "1.5 MiB resident, 0.5 MiB private dirty"));
    if let Err(error) = &alone {
        report::say(&format!("  the static build is left out: {error}"));
    }
    for (wrapper, build, goal) in std::iter::once(plain).chain(alone.ok()) {
        let one = Agents::start_under(&wrapper, &daemon, 1)?;
        for wrapper in one.wrappers() {
            row(&mut table, &format!("machineid-run{build}, its agent running"), Memory::of(wrapper)?, base, goal);
        }
        for guardian in one.guardians() {
            row(&mut table, &format!("its guardian{build}"), Memory::of(guardian)?, base, "counted as proportional");
        }
    }
    row(&mut table, "daemon, idle", idle, base, "16 MiB resident, 4 MiB private dirty");

    check(&daemon, CHECKS)?;
    let checked = Memory::of(daemon.pid())?;
    row(&mut table, &format!("daemon, after {CHECKS} checks"), checked, base, "16 MiB resident, 4 MiB private dirty");

    let agents = Agents::start(&daemon, many)?;
    let loaded = Memory::of(daemon.pid())?;
    row(&mut table, &format!("daemon, {many} agents"), loaded, base, "64 MiB for 1,000");
    let wrappers = agents.wrappers().map(Memory::of).collect::<Outcome<Vec<_>>>()?;
    row(&mut table, &format!("machineid-run, mean of {many}"), mean(&wrappers), base, "");
    drop(agents);
    row(&mut table, "daemon, those agents gone", Memory::of(daemon.pid())?, base, "");

    table.print();
    let each = loaded.resident.saturating_sub(checked.resident) / u64::try_from(many)?;
    report::say(&format!(
        "  An agent costs the daemon {each} KiB; 1,000 at that rate: {} (figure to beat: 64 MiB)",
        mebibytes(checked.resident + 1000 * each)
    ));
    report::say(&format!(
        "  The idle daemon, which validates every 5 s, used {} of processor time in {} s: {:.3} % (figure to beat: 0.1 %; \
         the kernel counts in steps of 10 ms)",
        report::milliseconds(busy),
        span.as_secs(),
        busy.as_secs_f64() / span.as_secs_f64() * 100.0
    ));
    if idle.exact.is_none() {
        report::say("  The programs are not dumpable: run as root for what only smaps_rollup tells.");
    }
    Ok(())
}

fn row(table: &mut Table, name: &str, memory: Memory, base: Memory, goal: &str) {
    let exact = |value: Option<u64>| value.map_or("?".to_owned(), mebibytes);
    let percent = memory.resident * 100 / base.resident.max(1);
    table.row(vec![
        name.to_owned(),
        mebibytes(memory.resident),
        exact(memory.exact.map(|exact| exact.private_dirty)),
        exact(memory.exact.map(|exact| exact.proportional)),
        format!("× {}.{:02}", percent / 100, percent % 100),
        goal.to_owned(),
    ]);
}

/// Cached and strict checks, until there were this many of them.
fn check(daemon: &Daemon, count: usize) -> Outcome<()> {
    let strict = Target::get(daemon.socket(), "/v1/check");
    let cached = Target::get(daemon.socket(), &format!("/v1/check?max_age={MAX_AGE}s"));
    let deadline = now() + PATIENCE;
    let mut made = 0;
    while made < count && now() < deadline {
        for target in [&strict, &cached] {
            made += target.ask(8, Duration::from_millis(20))?.answers;
        }
    }
    Ok(())
}

fn mean(all: &[Memory]) -> Memory {
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX).max(1);
    let of = |part: fn(&Memory) -> Option<u64>| -> Option<u64> {
        all.iter().map(part).sum::<Option<u64>>().map(|sum| sum / count)
    };
    let exact = of(|one| one.exact.map(|exact| exact.proportional))
        .zip(of(|one| one.exact.map(|exact| exact.private_dirty)))
        .map(|(proportional, private_dirty)| crate::common::process::Exact { proportional, private_dirty });
    Memory { resident: of(|one| Some(one.resident)).unwrap_or_default(), exact }
}
