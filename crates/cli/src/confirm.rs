//! Asking before something that cannot be taken back.

use std::io::{BufRead, IsTerminal};

use super::printer::Printer;
use super::problem::Problem;

/// Wants the number of those it is about typed: whoever reads it knows how many. `deed` is the whole of it, as in
/// "revoke 3 devices at …"; `instead` is what to do without a terminal besides `--yes`.
///
/// Fails without a terminal to ask on, and when something else is typed.
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

/// Wants a word typed for what is meant beyond the rest. `false` when another is typed, and where there is no terminal to
/// ask on: a script says it with a flag.
pub(super) fn word(question: &str, word: &str, printer: &mut Printer) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    printer.ask(question);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == word
}
