//! Trees of the suite's shapes, started under one thing or another.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::census::{end_those_with, with_marks};
use super::daemon::{Daemon, wrapper};
use super::place::Place;
use super::process::Guarded;
use super::shapes::{Pace, Shape, Stage, Witness};
use super::{Outcome, until};

/// The first argument of the process that is comets.
pub(crate) const COMETS: &str = "--comets";

/// What the trees of one run are started with.
pub(crate) struct Scene<'a> {
    pub(crate) directory: PathBuf,
    pub(crate) place: &'a Place,
    /// For a wrapper inside another.
    pub(crate) socket: PathBuf,
    pub(crate) pace: Pace,
}

impl<'a> Scene<'a> {
    pub(crate) fn of(daemon: &'a Daemon, pace: Pace) -> Outcome<Self> {
        let directory = daemon.home().join("stages");
        fs::create_dir_all(&directory)?;
        daemon.place().open(&directory);
        Ok(Self { directory, place: daemon.place(), socket: daemon.socket(), pace })
    }
}

/// One tree. Everything of it is ended when dropped.
pub(crate) struct Staged {
    pub(crate) shape: &'static Shape,
    pub(crate) supervisor: Guarded,
    stage: Stage,
    witness: Witness,
    _ender: Ender,
}

struct Ender(String);

impl Drop for Ender {
    fn drop(&mut self) {
        end_those_with(&[&self.0]);
    }
}

impl Staged {
    /// Starts a tree with what `supervise` makes of its command.
    pub(crate) fn start(
        scene: &Scene<'_>,
        shape: &'static Shape,
        supervise: impl FnOnce(&[OsString]) -> std::process::Command,
    ) -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("9{:07}{:03}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let comet = scene.place.reachable(std::env::current_exe()?);
        let stage = Stage {
            directory: scene.directory.join(&mark),
            comet: vec![comet.into_os_string(), COMETS.into()],
            pace: scene.pace,
            wrapper: scene.place.reachable(wrapper()),
            socket: scene.socket.clone(),
            mark: mark.clone(),
        };
        fs::create_dir(&stage.directory)?;
        scene.place.give_to_agents(&stage.directory);
        let command = shape.command(&stage);
        let witness = Witness::of(&stage);
        let supervisor = Guarded::start(&mut supervise(&command))?;
        Ok(Self { shape, supervisor, stage, witness, _ender: Ender(mark) })
    }

    pub(crate) fn wait_until_ready(&self) -> Outcome<()> {
        until(&format!("{:?} is ready", self.shape.name), || self.shape.is_ready(&self.stage).then_some(()))
    }

    /// Lets a hostile shape do what it is here for.
    pub(crate) fn go(&self) -> Outcome<()> {
        Ok(fs::write(self.stage.go(), "")?)
    }

    /// Whether the comets end within this time.
    pub(crate) fn comets_end(&self, patience: Duration) -> bool {
        self.witness.is_alone(patience)
    }

    /// How many of the tree live, as a cell of a table.
    pub(crate) fn survivors(&self) -> String {
        if self.shape.is_comets() && !self.comets_end(Duration::ZERO) {
            return "comets".to_owned();
        }
        let left = with_marks(&[&self.stage.mark]);
        let tools = ["timeout", "tini", "dumb-init"];
        let tree = left.iter().filter(|found| !found.is_supervisor() && !tools.contains(&found.comm.as_str()));
        tree.count().to_string()
    }
}
