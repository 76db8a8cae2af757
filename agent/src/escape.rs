//! Makes text from elsewhere harmless on a terminal. Paths, arguments and thread names are chosen by those we watch:
//! no control character, no escape sequence and no change of writing direction may reach a screen.

use std::fmt::{self, Write};

/// Displays text with everything that could move, colour or reorder a terminal's output spelled out.
#[derive(Clone, Copy, Debug)]
pub struct Safe<'a>(pub &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\\' => f.write_str("\\\\")?,
                c if is_unsafe(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a terminal may act on `c` instead of showing it.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_acts_on_gets_through() {
        let nasty = "/tmp/\u{1b}]0;owned\u{7}\u{9b}31m\n\u{202e}gpj.exe\u{7f}ü\\n";
        let shown = Safe(nasty).to_string();
        assert_eq!(shown, "/tmp/\\u{1b}]0;owned\\u{7}\\u{9b}31m\\n\\u{202e}gpj.exe\\u{7f}ü\\\\n");
        assert!(!shown.chars().any(is_unsafe));
    }
}
