//! Finds `machineid-run`, and the other programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Env;

const NAME: &str = "machineid-run";
/// The daemon's program is also the wrapper, when started under the wrapper's name.
const MANY: &str = "machineid-sidecar";

/// A program that is the wrapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrapper {
    pub(super) path: PathBuf,
}

impl Wrapper {
    /// A command that starts it under the wrapper's name, which selects the program.
    pub(super) fn command(&self) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&self.path);
        command.arg0(NAME);
        command
    }
}

/// The wrapper beside this program, as installed; otherwise the daemon's program under the wrapper's name; otherwise
/// the first on the search path.
pub(super) fn find(env: Env<'_>) -> Option<Wrapper> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent);
    let search = env("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    choose(beside, &search, is_program)
}

/// Another program of ours: beside this one, as installed; otherwise the first on the search path.
pub(super) fn program(name: &str, env: Env<'_>) -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let search = env("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let search = search.into_iter().filter(|directory| directory.is_absolute());
    beside.into_iter().chain(search).map(|directory| directory.join(name)).find(|path| is_program(path))
}

fn choose(beside: Option<&Path>, search: &[PathBuf], is_program: impl Fn(&Path) -> bool) -> Option<Wrapper> {
    let own = beside.into_iter().flat_map(|directory| [NAME, MANY].map(|name| directory.join(name)));
    // Relative entries depend on the working directory and are ignored.
    let path = search.iter().filter(|directory| directory.is_absolute()).map(|directory| directory.join(NAME));
    own.chain(path).find(|path| is_program(path)).map(|path| Wrapper { path })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_beside_this_program_goes_first() {
        let search = ["relative", "/usr/bin", "/opt"].map(PathBuf::from);
        let chosen = |there: &[&str]| {
            let found =
                choose(Some(Path::new("/b")), &search, |path| there.iter().any(|place| Path::new(place) == path));
            found.map(|wrapper| wrapper.path.display().to_string())
        };
        let all = ["/b/machineid-run", "/b/machineid-sidecar", "/usr/bin/machineid-run", "relative/machineid-run"];
        assert_eq!(chosen(&all).as_deref(), Some("/b/machineid-run"));
        assert_eq!(chosen(&all[1..]).as_deref(), Some("/b/machineid-sidecar"));
        assert_eq!(chosen(&all[2..]).as_deref(), Some("/usr/bin/machineid-run"));
        assert_eq!(chosen(&all[3..]), None);
    }
}
