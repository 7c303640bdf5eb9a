//! The settings in force, for everybody who must see a reload.

use std::sync::{Arc, Mutex, PoisonError};

use machineid_clock::BootTime;
use tokio::sync::watch;

use super::Settings;

/// A handle to the settings in force. Cheap to clone; all clones see the same.
///
/// Code that acts on several settings takes one [`Live::now`] for all of them: a reload in between must not mix two
/// configurations.
#[derive(Clone, Debug)]
pub(crate) struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: watch::Sender<Arc<Settings>>,
    loaded: Mutex<Loaded>,
}

/// What came of reading the configuration, for people.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// When something of what is in force was last put there.
    pub(crate) at: BootTime,
    /// What the files say and could not be put in force.
    pub(crate) problems: Vec<String>,
}

impl Live {
    pub(crate) fn new(settings: Settings) -> Self {
        let loaded = Mutex::new(Loaded { at: BootTime::now(), problems: Vec::new() });
        Self(Arc::new(Shared { settings: watch::channel(Arc::new(settings)).0, loaded }))
    }

    /// The built-in defaults, with every place below the root of the file system.
    #[cfg(test)]
    pub(crate) fn of_defaults() -> Self {
        let around = super::Surroundings { root: true, ..super::Surroundings::default() };
        Self::new(super::settings::resolve(None, &|_| None, &around).unwrap())
    }

    /// What is in force now. Never waits for long: a reload only swaps.
    pub(crate) fn now(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.borrow())
    }

    /// A look at a setting. What is looked at together is of one configuration.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Settings) -> T) -> T {
        look(&self.0.settings.borrow())
    }

    /// Puts other settings in force, and wakes those who follow.
    pub(crate) fn replace(&self, settings: Settings) {
        self.0.settings.send_replace(Arc::new(settings));
    }

    /// For a task that acts on a change; what is in force when it is called counts as seen.
    pub(crate) fn follow(&self) -> Following {
        Following(self.0.settings.subscribe())
    }

    /// Notes what a reload could not put in force, and whether it put anything there.
    pub(crate) fn note_reload(&self, problems: &[String], applied: bool) {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.problems = problems.to_vec();
        if applied {
            loaded.at = BootTime::now();
        }
    }

    pub(crate) fn loaded(&self) -> Loaded {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Waits for a change. May be dropped and called again. Waits for ever when no sender is left.
    pub(crate) async fn changed(&mut self) -> Arc<Settings> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.now()
    }
}
