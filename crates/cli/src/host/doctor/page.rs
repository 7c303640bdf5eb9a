//! The results as lines. On a terminal they are folded under their own column; in a pipe each check is one line, for
//! searching and counting.

use super::checks::{Check, Level};
use crate::printer::{Colour, Line};
use crate::table::{fold, length};
use crate::words::printable;

/// The width of the level, such as `warn`, and the gap after it.
const LEVEL: usize = 6;
const GAP: usize = 2;
/// On a terminal narrower than this, lines are not folded: each would hold a single word.
const NARROWEST: usize = 48;

/// Every check, and a last line that counts them.
pub(super) fn lines(checks: &[Check], width: Option<usize>) -> Vec<Line> {
    let what = checks.iter().map(|check| length(check.what)).max().unwrap_or(0);
    let indent = LEVEL + what + GAP;
    let room = width.filter(|width| *width >= NARROWEST.max(indent + 20)).map(|width| width - indent);
    let mut lines = Vec::new();
    for check in checks {
        let text = match &check.remedy {
            Some(remedy) => format!("{}; {remedy}", check.found),
            None => check.found.clone(),
        };
        let (word, colour) = word(check.level);
        for (at, part) in fold(&printable(&text), room).into_iter().enumerate() {
            let mut line = Line::default();
            if at == 0 {
                line.push(word, Some(colour));
                line.push(&" ".repeat(LEVEL - word.len()), None);
                line.push(&format!("{:<what$}  ", check.what), None);
            } else {
                line.push(&" ".repeat(indent), None);
            }
            line.push(&part, None);
            lines.push(line);
        }
    }
    lines.push(Line::from(summary(checks)));
    lines
}

const fn word(level: Level) -> (&'static str, Colour) {
    match level {
        Level::Ok => ("ok", Colour::Good),
        Level::Warn => ("warn", Colour::Unclear),
        Level::Fail => ("fail", Colour::Bad),
    }
}

fn summary(checks: &[Check]) -> String {
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => format!("all {} checks are ok", checks.len()),
        (failed, warned) => format!("{failed} failed, {warned} warn, {} ok", count(Level::Ok)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        vec![
            Check::ok("kernel", "6.18"),
            Check::warn("containment", "subreaper, which holds against bugs", "run the daemon as root or as you"),
        ]
    }

    fn plain(width: Option<usize>) -> Vec<String> {
        lines(&checks(), width).iter().map(Line::plain).collect()
    }

    #[test]
    fn in_a_pipe_each_check_is_one_line() {
        assert_eq!(
            plain(None),
            [
                "ok    kernel       6.18",
                "warn  containment  subreaper, which holds against bugs; run the daemon as root or as you",
                "0 failed, 1 warn, 1 ok"
            ]
        );
    }

    #[test]
    fn on_a_terminal_they_are_folded_under_their_column() {
        assert_eq!(
            plain(Some(60)),
            [
                "ok    kernel       6.18",
                "warn  containment  subreaper, which holds against bugs; run",
                "                   the daemon as root or as you",
                "0 failed, 1 warn, 1 ok"
            ]
        );
        assert_eq!(plain(Some(30)), plain(None), "a sliver is not folded");
    }
}
