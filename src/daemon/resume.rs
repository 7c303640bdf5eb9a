//! Makes the gates read the clocks as soon as the machine wakes from a suspend.
//!
//! Each gate detects a suspend by itself when something wakes it, but with a validation due in four seconds that would be
//! four seconds later. The kernel reports a resume at once through a timer on the wall clock that is cancelled whenever that
//! clock jumps (`TFD_TIMER_CANCEL_ON_SET`), as it does on every resume. Setting the clock does the same; then the gates find
//! nothing. Listening on D-Bus was rejected: not every host has it.

use std::io;
use std::sync::Arc;

use machineid_sys as sys;
use tracing::warn;

use crate::local::Context;

/// Runs until dropped.
pub(super) async fn watch(context: Arc<Context>) {
    if let Err(error) = wake_gates(&context).await {
        warn!(%error, "cannot watch for the end of a suspend; gates notice it a little later by themselves");
    }
    std::future::pending::<()>().await;
}

async fn wake_gates(context: &Context) -> io::Result<()> {
    let timer = sys::watch_timer(sys::Timer::on_wall_clock()?)?;
    loop {
        timer.get_ref().set_until_clock_jumps()?;
        timer.readable().await?.clear_ready();
        // Disarmed, so that each jump is reported once.
        timer.get_ref().clear();
        context.gates.wake_all();
    }
}
