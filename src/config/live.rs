//! The settings in force, for everybody who must see a reload.

use std::sync::Arc;

use tokio::sync::watch;

use super::Settings;

/// A handle to the settings in force. Cheap to clone; all clones see the same.
///
/// Whoever acts on several settings takes one [`Live::now`] for all of them: a reload in between must not mix two
/// configurations.
#[derive(Clone, Debug)]
pub(crate) struct Live(Arc<watch::Sender<Arc<Settings>>>);

impl Live {
    pub(crate) fn new(settings: Settings) -> Self {
        Self(Arc::new(watch::channel(Arc::new(settings)).0))
    }

    /// The built-in defaults, with every place below the root of the file system.
    #[cfg(test)]
    pub(crate) fn of_defaults() -> Self {
        let around = super::Surroundings { root: true, ..super::Surroundings::default() };
        Self::new(super::settings::resolve(None, &|_| None, &around).unwrap())
    }

    /// What is in force now. Never waits for long: a reload only swaps.
    pub(crate) fn now(&self) -> Arc<Settings> {
        Arc::clone(&self.0.borrow())
    }

    /// Puts other settings in force, and wakes those who follow.
    #[expect(dead_code, reason = "for the reload")]
    pub(crate) fn replace(&self, settings: Settings) {
        self.0.send_replace(Arc::new(settings));
    }

    /// For a task that acts on a change; what is in force when it is called counts as seen.
    pub(crate) fn follow(&self) -> Following {
        Following(self.0.subscribe())
    }
}

/// Sees every change since the last look, or the newest of several.
#[derive(Debug)]
pub(crate) struct Following(watch::Receiver<Arc<Settings>>);

impl Following {
    /// What is in force now, which then counts as seen.
    pub(crate) fn now(&mut self) -> Arc<Settings> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// Waits for a change. May be dropped and called again. Waits for ever when nobody is left who could make one.
    pub(crate) async fn changed(&mut self) -> Arc<Settings> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.now()
    }
}
