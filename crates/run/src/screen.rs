//! The modes of a terminal that a full-screen program turns on, and how they are turned off without knowing which were.
//!
//! A program that is ended by SIGKILL leaves all of them on, and many leave some of them on after SIGTERM: the shell then
//! shows codes for each movement of the mouse, or writes to the alternate screen. Every sequence here is without effect
//! where its mode is off, or where the terminal does not know it. None of them moves the cursor of a program that used
//! none of this, or clears anything on its screen: no reset of the scroll region (DECSTBM) or of the origin mode (DECOM),
//! which move the cursor home, and no reset of the whole terminal (RIS, DECSTR).

use std::ffi::OsStr;

/// What turns the modes off.
///
/// The alternate screen is entered before it is left. On the main screen `?1049l` alone restores a cursor that was
/// saved long ago (tmux), or never, at the top left corner (xterm); `?1049h` saves the cursor where it is. On the
/// alternate screen `?1049h` changes nothing of the main screen or its saved cursor. Saving the cursor with DECSC instead was
/// rejected: tmux keeps that one apart, and a terminal with one place for both would lose the main screen's.
const RESET: &str = concat!(
    // Synchronised output first: the rest is then shown as it comes.
    "\x1b[?2026l",
    // The kitty keyboard's flags are a stack, and each screen has its own.
    "\x1b[<9u",
    "\x1b[?1049h\x1b[?1049l",
    "\x1b[<9u",
    // xterm's modifyOtherKeys. A terminal that overlooks the `>` takes it for an underline, which is reset below.
    "\x1b[>4m",
    // The mouse: which events are reported, and in which form.
    "\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l",
    // Focus, bracketed paste, grapheme clusters, changes of the colour scheme and of the size.
    "\x1b[?1004l\x1b[?2004l\x1b[?2027l\x1b[?2031l\x1b[?2048l",
    // Cursor and keypad keys in their normal form, wrapping at the margin, no inserting.
    "\x1b[?1l\x1b>\x1b[?7h\x1b[4l",
    // The cursor is shown; no colours; letters, not lines.
    "\x1b[?25h\x1b[0m\x1b(B\x0f",
);

/// What to write to a terminal of this type after a stop. `None` for one that knows no sequences.
pub(super) fn reset(term: Option<&OsStr>) -> Option<&'static [u8]> {
    let knows = term.is_some_and(|term| !term.is_empty() && term != "dumb" && term != "unknown");
    knows.then_some(RESET.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sequences in `text`, each from its ESC on.
    fn sequences(text: &str) -> Vec<&str> {
        text.split('\x1b').skip(1).collect()
    }

    #[test]
    fn a_terminal_without_sequences_gets_none() {
        for term in [None, Some(""), Some("dumb"), Some("unknown")] {
            assert_eq!(reset(term.map(OsStr::new)), None, "{term:?}");
        }
        assert!(reset(Some(OsStr::new("xterm-256color"))).is_some());
    }

    #[test]
    fn nothing_moves_the_cursor_or_clears_the_screen() {
        for sequence in sequences(RESET) {
            let fits = match sequence.as_bytes() {
                // Modes, but not the origin mode (6) nor the columns (3), and only two turned on.
                [b'[', b'?', number @ .., b'l'] => !matches!(number, b"3" | b"6"),
                [b'[', b'?', number @ .., b'h'] => matches!(number, b"7" | b"25" | b"1049"),
                b"[4l" | b"[0m" | b"[>4m" | b"[<9u" | b">" | b"(B\x0f" => true,
                _ => false,
            };
            assert!(fits, "{sequence:?}");
        }
        let all = sequences(RESET);
        let leave = all.iter().position(|&sequence| sequence == "[?1049l").unwrap();
        assert_eq!(all[leave - 1], "[?1049h", "the cursor is saved before it is restored");
        assert!(all[..leave].contains(&"[<9u") && all[leave..].contains(&"[<9u"), "each screen has its own stack");
    }
}
