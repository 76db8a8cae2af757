//! The words of a Rego text, for what must be known before or beside the parser.

/// A token, and the byte at which it begins.
pub(super) type At<'a> = (usize, Token<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// A string without its quotes, and whether it is raw.
    Text(&'a str, bool),
    Mark(char),
}

pub(super) fn tokens(text: &str) -> Vec<At<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (len, token) = match first {
            c if c.is_whitespace() => (c.len_utf8(), None),
            '#' => (rest.find('\n').unwrap_or(rest.len()), None),
            '"' | '`' => {
                let end = closing(rest, first);
                ((end + 1).min(rest.len()), Some(Token::Text(&rest[1..end], first == '`')))
            }
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (end, Some(Token::Word(&rest[..end])))
            }
            c => (c.len_utf8(), Some(Token::Mark(c))),
        };
        tokens.extend(token.map(|t| (at, t)));
        at += len;
    }
    tokens
}

/// The line on which the byte `at` is.
pub(super) fn line(text: &str, at: usize) -> u32 {
    text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() as u32 + 1
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Where the string that `rest` begins with ends.
fn closing(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return i,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_strings_and_marks_are_told_apart() {
        let text = "é := \"a \\\" b\" # \"no\"\n`r\\` \"open";
        let got: Vec<_> = tokens(text).iter().map(|(at, t)| (line(text, *at), *t)).collect();
        assert_eq!(
            got,
            [
                (1, Token::Word("é")),
                (1, Token::Mark(':')),
                (1, Token::Mark('=')),
                (1, Token::Text("a \\\" b", false)),
                (2, Token::Text("r\\", true)),
                (2, Token::Text("open", false)),
            ]
        );
    }
}
