//! Words for a POSIX shell, in command lines that users copy and in scripts.

/// The text as one word: as it is where no character means anything to a shell, otherwise in quotes.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_a_shell_would_read_something_else() {
        for (text, word) in
            [("/run/a-b.sock", "/run/a-b.sock"), ("", "''"), ("a b", "'a b'"), ("~", "'~'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(shell_word(text), word);
        }
    }
}
