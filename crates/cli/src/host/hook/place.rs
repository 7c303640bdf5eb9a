//! Where an agent's settings are.

use std::path::{Path, PathBuf};

use machineid_hook::settings::Place;

use crate::Env;

/// The path of a file of settings. Fails with the name of a variable that is missing.
pub(in crate::host) fn path(place: Place, env: Env<'_>, working: &Path) -> Result<PathBuf, &'static str> {
    let home = || env("HOME").map(PathBuf::from).filter(|home| home.is_absolute()).ok_or("HOME");
    let named = |variable| env(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    match place {
        Place::Home { variable, directory, file } => match variable.and_then(named) {
            Some(named) => Ok(named.join(file)),
            None => Ok(home()?.join(directory).join(file)),
        },
        Place::Config { directory, file } => match named("XDG_CONFIG_HOME") {
            Some(config) => Ok(config.join(directory).join(file)),
            None => Ok(home()?.join(".config").join(directory).join(file)),
        },
        Place::Project(file) => Ok(working.join(file)),
        Place::System(path) => Ok(path.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_moves_the_settings_is_obeyed() {
        let place = Place::Home { variable: Some("CODEX_HOME"), directory: ".codex", file: "hooks.json" };
        let found = |variables: &[(&str, &str)], place| {
            let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
            path(place, &env, Path::new("/w")).map(|path| path.display().to_string())
        };
        assert_eq!(found(&[("HOME", "/h")], place).unwrap(), "/h/.codex/hooks.json");
        assert_eq!(found(&[("HOME", "/h"), ("CODEX_HOME", "/c")], place).unwrap(), "/c/hooks.json");
        assert_eq!(found(&[], place), Err("HOME"));
        let config = Place::Config { directory: "opencode", file: "plugin/m.js" };
        assert_eq!(found(&[("HOME", "/h")], config).unwrap(), "/h/.config/opencode/plugin/m.js");
        assert_eq!(found(&[("XDG_CONFIG_HOME", "/x")], config).unwrap(), "/x/opencode/plugin/m.js");
        assert_eq!(found(&[], Place::Project(".a/b")).unwrap(), "/w/.a/b");
    }
}
