//! Making foreign text fit for logs and terminals.

/// Whether a character could move the cursor, colour the screen, or reorder or hide the text around it.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns the text's characters with each hostile one replaced. The caller limits their number.
pub fn printable(text: &str, instead: char) -> impl Iterator<Item = char> {
    text.chars().map(move |c| if is_hostile(c) { instead } else { c })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        let text: String = printable("a\u{1b}[2J\u{9b}1m\u{202e}b\nc", '?').collect();
        assert_eq!(text, "a?[2J?1m?b?c");
        assert_eq!(printable("worker:é:日本", '?').collect::<String>(), "worker:é:日本");
    }
}
