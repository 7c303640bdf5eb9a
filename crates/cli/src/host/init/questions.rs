//! The questions of `machineid init`, on a terminal.

use std::io::{self, BufRead, IsTerminal};

use machineid_org_key::OrgKey;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::choices::Authority;
use crate::printer::Printer;
use crate::problem::Problem;

/// Whether there is a terminal to ask on.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for the authority until the answer is one.
pub(super) fn authority(printer: &mut Printer) -> Result<Authority, Problem> {
    printer.note(
        "Which authority decides? Its URL (the service is https://machineid.io), or none: start one of your own here.",
    );
    loop {
        match Authority::parse(&line("Authority: ", printer)?) {
            Ok(authority) => return Ok(authority),
            Err(why) => printer.note(&why),
        }
    }
}

/// Asks for this host's key until the answer is one. What is typed is not shown.
pub(super) fn key(url: &str, printer: &mut Printer) -> Result<OrgKey, Problem> {
    loop {
        let question = format!("This host's key at {url} (not shown): ");
        let text = unseen(&question, printer)
            .map_err(|error| Problem::failure(format!("cannot read from the terminal: {error}")));
        printer.note("");
        let Some(text) = text? else { return Err(nothing_typed()) };
        match text.parse::<OrgKey>() {
            Ok(key) => return Ok(key),
            Err(why) => printer.note(&why.to_string()),
        }
    }
}

/// Asks for the device; an empty answer is the default.
pub(super) fn device(default: &str, printer: &mut Printer) -> Result<String, Problem> {
    let answer = line(&format!("This host's device id [{default}]: "), printer)?;
    let answer = answer.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}

fn line(question: &str, printer: &mut Printer) -> Result<String, Problem> {
    printer.ask(question);
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) => Err(nothing_typed()),
        Ok(_) => Ok(line),
        Err(error) => Err(Problem::failure(format!("cannot read the answer: {error}"))),
    }
}

fn nothing_typed() -> Problem {
    Problem::failure("no answer; nothing was changed")
}

/// Asks, and reads a line without echo; `None` after Ctrl-C or Ctrl-D. The echo ends before the question is there: what is typed at
/// once is not shown either. The terminal reads bytes meanwhile and makes no signal of Ctrl-C, which
/// would end this program and leave the terminal without echo.
fn unseen(question: &str, printer: &mut Printer) -> io::Result<Option<String>> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    tcsetattr(&stdin, OptionalActions::Now, &silent)?;
    printer.ask(question);
    let read = until_enter(stdin.lock());
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    read
}

fn until_enter(input: impl BufRead) -> io::Result<Option<String>> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const CTRL_U: u8 = 21;
    let mut typed = Vec::new();
    for byte in input.bytes() {
        match byte? {
            b'\r' | b'\n' => return Ok(Some(String::from_utf8_lossy(&typed).into_owned())),
            CTRL_C | CTRL_D => return Ok(None),
            CTRL_U => typed.clear(),
            8 | 127 => {
                typed.pop();
            }
            byte => typed.push(byte),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::until_enter;

    #[test]
    fn a_key_can_be_corrected_and_given_up() {
        for (typed, wanted) in [
            (&b"org_a\r"[..], Some("org_a")),
            (b"wrong\x15org_ax\x7f\n", Some("org_a")),
            (b"org_a\x03", None),
            (b"\x04", None),
            (b"org_a", None),
        ] {
            assert_eq!(until_enter(typed).unwrap().as_deref(), wanted, "{typed:?}");
        }
    }
}
