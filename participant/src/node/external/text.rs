//! Text of programs, made harmless for terminals and logs.

/// At most so many characters of a text, none of which is a control character.
pub fn plain(text: &str, length_max: usize) -> String {
    let harmless = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().take(length_max).map(harmless).collect::<String>().trim().to_owned()
}

/// The same of bytes that need not be UTF-8.
pub fn plain_bytes(bytes: &[u8], length_max: usize) -> String {
    plain(&String::from_utf8_lossy(bytes), length_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(plain("\u{1b}]0;title\u{7}red\r\n", 40), "]0;title red");
        assert_eq!(plain("0123456789", 4), "0123");
        assert_eq!(plain_bytes(b"\xffok\x00\n", 9), "\u{fffd}ok");
    }
}
