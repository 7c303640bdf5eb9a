//! Confirmation of actions that cannot be undone.

use std::io::{BufRead, IsTerminal};

use super::printer::Printer;
use super::problem::Problem;

/// Asks the user to type the number of affected devices or agents, which shows that the user knows it. `deed` is the
/// whole action, as in "revoke 3 devices at …"; `instead` is what to do without a terminal besides `--yes`.
///
/// Fails without a terminal, and when something else is typed.
pub(super) fn typed(deed: &str, number: usize, instead: &str, printer: &mut Printer) -> Result<(), Problem> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Problem::usage(format!(
            "this would {deed} and there is no terminal to confirm it on; say --yes, or {instead}"
        )));
    }
    printer.ask(&format!("This will {deed}. Type {number} to go on: "));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == number.to_string() {
        return Ok(());
    }
    Err(Problem::failure("not confirmed; nothing was changed"))
}

/// Asks the user to type a word for an action beyond the rest. `false` when something else is typed, and without a
/// terminal: a script uses a flag instead.
pub(super) fn word(question: &str, word: &str, printer: &mut Printer) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    printer.ask(question);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == word
}
