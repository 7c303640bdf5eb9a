//! What a key with a role costs: validations with an organisation's own key and with one of the role `host`, in turn, beside
//! another build, which knows only the former.

use std::path::Path;
use std::time::Duration;

use crate::Length;
use crate::common::authority::{Authority, BINARY};
use crate::common::load::{Address, Target};
use crate::common::process::processor_time;
use crate::common::report::{Table, microseconds, ratio};
use crate::common::samples::Samples;
use crate::common::{Outcome, program};

const FLEET: u32 = 1_000;
const CONNECTIONS: usize = 64;

struct Contender {
    name: &'static str,
    authority: Authority,
    target: Target,
    /// The processor time of one validation, by round.
    each: Vec<Duration>,
}

impl Contender {
    fn new(name: &'static str, program: &Path, role: Option<&str>) -> Outcome<Self> {
        let mut authority = Authority::of_program(program, FLEET)?;
        if let Some(role) = role {
            authority.key = authority.role_key(role)?;
        }
        let requests: Vec<_> =
            (0..FLEET).map(|number| authority.validate_request(&format!("agent:{number}"))).collect();
        let target = Target { address: Address::Tcp(authority.address), requests: requests.into() };
        target.ask(CONNECTIONS, Duration::from_millis(500))?;
        Ok(Self { name, authority, target, each: Vec::new() })
    }

    fn go(&mut self, span: Duration) -> Outcome<()> {
        let before = processor_time(self.authority.pid())?;
        let answers = self.target.ask(CONNECTIONS, span)?.answers;
        let used = processor_time(self.authority.pid())?.saturating_sub(before);
        self.each.push(used / u32::try_from(answers)?.max(1));
        Ok(())
    }
}

/// `beside` is another build of `machineid-authority`.
pub(crate) fn run(length: Length, beside: Option<&Path>) -> Outcome<()> {
    let this = program(BINARY);
    let mut contenders = vec![
        Contender::new("the organisation's key", &this, None)?,
        Contender::new("a key of the role host", &this, Some("host"))?,
    ];
    if let Some(other) = beside {
        contenders.push(Contender::new("the other build", other, None)?);
    }
    let count = contenders.len();
    for round in 0..length.pick(20, 4) {
        for turn in 0..count {
            contenders[(round + turn) % count].go(length.pick(Duration::from_secs(1), Duration::from_millis(250)))?;
        }
    }
    let all: Vec<_> =
        contenders.iter().map(|contender| (contender.name, Samples::new(contender.each.clone()).median())).collect();
    let other = all.last().map_or(Duration::ZERO, |(_, each)| *each);
    let title = format!("CPU of a validation, {FLEET} devices, {CONNECTIONS} connections");
    let mut table = Table::new(&title, &["asked with", "median", "to the last row", "figure to beat"]);
    for (name, each) in all {
        let goal = if beside.is_some() { "1.1 times the other build" } else { "1.1 times" };
        table.row(vec![name.to_owned(), microseconds(each), ratio(each, other), goal.to_owned()]);
    }
    table.print();
    Ok(())
}
