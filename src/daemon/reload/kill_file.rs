//! Looks for the kill file whenever it may have appeared or disappeared.
//!
//! It has its own task and its own watch: a configuration or key on a file system that hangs must not delay it.

use std::sync::Arc;

use tracing::warn;

use crate::config::watch::Watch;
use crate::local::Context;

/// Runs until dropped.
pub(in crate::daemon) async fn watch(context: Arc<Context>) {
    let mut settings = context.live.follow();
    loop {
        let path = settings.now().enforcement.kill_file.clone();
        // The gates report a look that does not return.
        let _ = context.gates.authority().look_for_kill_file().await;
        let watch = path.as_ref().and_then(|_| {
            let watch = Watch::start("kill-watch");
            watch.inspect_err(|error| warn!(%error, "cannot watch for the kill file; validations look for it")).ok()
        });
        let seeing = async {
            let (Some(watch), Some(path)) = (&watch, &path) else { return std::future::pending().await };
            loop {
                watch.aim(vec![path.clone()]).await;
                let _ = context.gates.authority().look_for_kill_file().await;
                watch.seen().await;
            }
        };
        let renamed = async { while settings.changed().await.enforcement.kill_file == path {} };
        tokio::select! {
            () = seeing => {}
            () = renamed => {}
        }
    }
}
