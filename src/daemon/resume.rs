//! Has the gates look at the clocks as soon as the machine wakes from a suspend.
//!
//! Each gate finds out by itself that the machine has slept, when something wakes it; a validation that is due in four
//! seconds would be that, in four seconds. The kernel tells of a resume at once through a timer on the wall clock that is
//! cancelled whenever that clock jumps (`TFD_TIMER_CANCEL_ON_SET`), as it does on every resume. It says as much when
//! somebody sets the clock; then the gates look and find nothing. A listener on D-Bus was rejected: not every host has one.

use std::io;
use std::sync::Arc;

use machineid_sys as sys;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tracing::warn;

use crate::local::Context;

/// In the year 2242: nobody waits for it to fire.
const NEVER: i64 = 1 << 33;

/// Works until dropped.
pub(super) async fn watch(context: Arc<Context>) {
    if let Err(error) = wake_gates(&context).await {
        warn!(%error, "cannot be told of the end of a suspend; gates notice it by themselves, a little later");
    }
    std::future::pending::<()>().await;
}

async fn wake_gates(context: &Context) -> io::Result<()> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = sys::watch(rustix::time::timerfd_create(TimerfdClockId::Realtime, flags)?)?;
    loop {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let never = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 } };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        rustix::time::timerfd_settime(timer.get_ref(), flags, &never)?;
        timer.readable().await?.clear_ready();
        // ECANCELED, which is the news; read, so that it is news only once.
        let _ = rustix::io::read(timer.get_ref(), &mut [0_u8; 8]);
        context.gates.wake_all();
    }
}
