//! The settings in force, shared by all code that must see a reload.

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

/// The result of reading the configuration, for people.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// When a change was last put in force.
    pub(crate) at: BootTime,
    /// What the files contain and could not be put in force.
    pub(crate) problems: Vec<String>,
}

impl Live {
    pub(crate) fn new(settings: Settings) -> Self {
        let loaded = Mutex::new(Loaded { at: BootTime::now(), problems: Vec::new() });
        Self(Arc::new(Shared { settings: watch::channel(Arc::new(settings)).0, loaded }))
    }

    /// The built-in defaults of root.
    #[cfg(test)]
    pub(crate) fn of_defaults() -> Self {
        let around = super::Surroundings { root: true, ..super::Surroundings::default() };
        Self::new(super::settings::resolve(None, &|_| None, &around).unwrap())
    }

    /// The settings in force. Never waits for long: a reload only swaps a pointer.
    pub(crate) fn now(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.borrow())
    }

    /// Reads settings without copying. All values read in one call belong to the same configuration.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Settings) -> T) -> T {
        look(&self.0.settings.borrow())
    }

    /// Puts new settings in force, and wakes the followers.
    pub(crate) fn replace(&self, settings: Settings) {
        self.0.settings.send_replace(Arc::new(settings));
    }

    /// For a task that acts on changes; the present settings count as seen.
    pub(crate) fn follow(&self) -> Following {
        Following(self.0.settings.subscribe())
    }

    /// Notes which problems a reload had, and whether it put any change in force.
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

/// A follower of the settings. It sees each change, or the newest of several.
#[derive(Debug)]
pub(crate) struct Following(watch::Receiver<Arc<Settings>>);

impl Following {
    /// The settings in force, which then count as seen.
    pub(crate) fn now(&mut self) -> Arc<Settings> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// Waits for a change. Cancel-safe. Waits for ever when no sender is left.
    pub(crate) async fn changed(&mut self) -> Arc<Settings> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.now()
    }
}
