//! Checks the hooks of agents: whether each would ask before a tool call, and block without an answer.

use machineid_hook::Scope;
use machineid_hook::settings::Found;

use super::super::facts::{HookAnswer, HookFacts, HookPlace, HostFacts};
use super::Check;

const WHAT: &str = "hook";

pub(super) fn checks(facts: &HostFacts) -> Vec<Check> {
    facts.hooks.iter().flat_map(agent).collect()
}

fn agent(facts: &HookFacts) -> Vec<Check> {
    let form = facts.agent.form();
    if facts.places.is_empty() {
        let found = format!("{}: none; `machineid hook install {}` asks before each tool call", form.title, form.name);
        return vec![Check::ok(WHAT, found)];
    }
    let mut checks: Vec<Check> = facts.places.iter().map(|place| one(facts, place)).collect();
    if let Some(oldest) = form.oldest {
        let text = |(major, minor, patch): (u32, u32, u32)| format!("{major}.{minor}.{patch}");
        match facts.version {
            Some(version) if version < oldest => checks.push(Check::fail(
                WHAT,
                format!(
                    "{} {}: not armed against a hook that is ended, whose failure it ignores",
                    form.title,
                    text(version)
                ),
                format!("update it to {} or later", text(oldest)),
            )),
            Some(_) => {}
            None => checks.push(Check::warn(
                WHAT,
                format!("{}: its version is not known", form.title),
                format!("only {} and later block when a hook fails", text(oldest)),
            )),
        }
    }
    checks
}

fn one(facts: &HookFacts, place: &HookPlace) -> Check {
    let form = facts.agent.form();
    let scope = match place.scope {
        Scope::Project => " --project",
        Scope::User => "",
        Scope::Managed => " --managed",
    };
    let again = format!("machineid hook install {}{scope}", form.name);
    let not_armed = |why: String, remedy: String| {
        Check::fail(WHAT, format!("{}: not armed in {}: {why}", form.title, place.path.display()), remedy)
    };
    match &place.state {
        Err(why) => return not_armed(why.clone(), "make the file readable and valid, or move it away".to_owned()),
        Ok(Found::Missing) => return not_armed("the hook is not in it".to_owned(), again),
        Ok(Found::Differs(why)) => return not_armed(why.clone(), again),
        Ok(Found::Armed) => {}
    }
    if let Some(off) = &place.off {
        return not_armed(off.clone(), "until that is mended, each call goes through without the question".to_owned());
    }
    let Some(trial) = &place.trial else { return not_armed("its command is not known".to_owned(), again) };
    match (&trial.with_daemon, &trial.without) {
        (HookAnswer::Broken(why), _) | (_, HookAnswer::Broken(why)) => {
            not_armed(format!("it does not run: {why}"), again)
        }
        (_, HookAnswer::Yes) => not_armed("it allows without a daemon".to_owned(), again),
        (with_daemon, HookAnswer::No(_)) => {
            let untried = trial.untried.map(|untried| format!("; {untried}")).unwrap_or_default();
            let tried = match with_daemon {
                HookAnswer::No(why) => format!("and blocks now ({why})"),
                HookAnswer::Yes | HookAnswer::Broken(_) => "tried: blocks without the daemon".to_owned(),
            };
            Check::ok(WHAT, format!("{}: armed in {}; {tried}{untried}", form.title, place.path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use machineid_hook::Agent;

    use super::super::super::facts::HookTrial;
    use super::super::Level;
    use super::*;

    type Change<'a> = &'a dyn Fn(&mut HookFacts);

    fn armed() -> HookFacts {
        let no = || HookAnswer::No("no daemon".to_owned());
        let trial = Some(HookTrial { with_daemon: HookAnswer::Yes, without: no(), untried: None });
        let place = HookPlace {
            path: "/h/settings.json".into(),
            scope: Scope::User,
            state: Ok(Found::Armed),
            off: None,
            trial,
        };
        HookFacts { agent: Agent::ClaudeCode, version: Some((2, 1, 332)), places: vec![place] }
    }

    fn worst(change: impl Fn(&mut HookFacts)) -> (Level, String) {
        let mut facts = armed();
        change(&mut facts);
        let checks = agent(&facts);
        let worst = checks.iter().max_by_key(|check| check.level).unwrap();
        (worst.level, worst.found.clone())
    }

    #[test]
    fn a_hook_is_armed_only_when_nothing_lets_a_call_through() {
        let (level, found) = worst(|_| ());
        assert!(level == Level::Ok && found.contains("armed in /h/settings.json"), "{found}");
        let yes = |facts: &mut HookFacts| facts.places[0].trial.as_mut().unwrap().without = HookAnswer::Yes;
        let broken = |facts: &mut HookFacts| {
            facts.places[0].trial.as_mut().unwrap().with_daemon = HookAnswer::Broken("exit 127".to_owned());
        };
        let changes: [(Change, &str); 7] = [
            (&|facts| facts.places[0].state = Ok(Found::Differs("onFailure is not \"block\"".to_owned())), "onFailure"),
            (&|facts| facts.places[0].state = Err("it is not JSON".to_owned()), "not JSON"),
            (&|facts| facts.places[0].off = Some("disableAllHooks is true".to_owned()), "disableAllHooks"),
            (&|facts| facts.places[0].trial = None, "not known"),
            (&yes, "allows without a daemon"),
            (&broken, "exit 127"),
            (&|facts| facts.version = Some((2, 1, 294)), "2.1.294"),
        ];
        for (change, why) in changes {
            let (level, found) = worst(change);
            assert!(level == Level::Fail && found.contains("not armed") && found.contains(why), "{found}");
        }
        let (level, _) = worst(|facts| facts.version = None);
        assert_eq!(level, Level::Warn);
        let (level, found) = worst(|facts| facts.places.clear());
        assert!(level == Level::Ok && found.contains("machineid hook install claude-code"), "{found}");
    }
}
