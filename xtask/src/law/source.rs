//! Splits Rust source into code and comments, line by line, with the contents of strings blanked: a law about a name
//! must not trip over a text that mentions it.

/// One line of a source file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The code; a string literal is left as its quotes.
    pub code: String,
    /// The comments, with their slashes.
    pub comment: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: u32 },
    Text,
    RawText { hashes: usize },
}

/// All lines of a file.
pub(crate) fn lines(source: &str) -> Vec<Line> {
    let chars: Vec<char> = source.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        if chars[at] == '\n' {
            if state == State::LineComment {
                state = State::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let line = lines.last_mut().expect("there is always a line");
        let (next, taken) = step(state, &chars[at..], at.checked_sub(1).map(|b| chars[b]));
        let text = chars[at..at + taken].iter();
        match (state, next) {
            (State::Code, State::Code | State::Text | State::RawText { .. }) => line.code.extend(text),
            (State::Text | State::RawText { .. }, State::Code) => line.code.push('"'),
            (State::Text | State::RawText { .. }, _) => {}
            _ => line.comment.extend(text),
        }
        state = next;
        at += taken;
    }
    lines
}

/// The state after the next few characters, and how many those are (never past a line's end).
fn step(state: State, rest: &[char], before: Option<char>) -> (State, usize) {
    let starts = |text: &str| text.chars().enumerate().all(|(at, c)| rest.get(at) == Some(&c));
    match state {
        State::Code if starts("//") => (State::LineComment, 2),
        State::Code if starts("/*") => (State::BlockComment { depth: 1 }, 2),
        State::Code if starts("\"") => (State::Text, 1),
        State::Code if rest[0] == 'r' && !before.is_some_and(is_word_but_byte) => match raw_opening(rest) {
            Some(hashes) => (State::RawText { hashes }, hashes + 2),
            None => (State::Code, 1),
        },
        State::Code if rest[0] == '\'' => (State::Code, char_literal(rest)),
        State::Code | State::LineComment => (state, 1),
        State::BlockComment { depth } if starts("/*") => (State::BlockComment { depth: depth + 1 }, 2),
        State::BlockComment { depth: 1 } if starts("*/") => (State::Code, 2),
        State::BlockComment { depth } if starts("*/") => (State::BlockComment { depth: depth - 1 }, 2),
        State::BlockComment { .. } => (state, 1),
        State::Text if rest[0] == '\\' && rest.get(1).is_some_and(|c| *c != '\n') => (State::Text, 2),
        State::Text if rest[0] == '"' => (State::Code, 1),
        State::RawText { hashes }
            if rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes =>
        {
            (State::Code, 1 + hashes)
        }
        State::Text | State::RawText { .. } => (state, 1),
    }
}

/// A letter before an `r` makes it part of a name; the `b` of `br"..."` and the `c` of `cr"..."` do not.
fn is_word_but_byte(c: char) -> bool {
    (c.is_alphanumeric() || c == '_') && c != 'b' && c != 'c'
}

fn raw_opening(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    (rest.get(1 + hashes) == Some(&'"')).then_some(hashes)
}

/// How long a character literal is; a lifetime counts as its tick alone.
fn char_literal(rest: &[char]) -> usize {
    match rest {
        [_, '\\', _, tail @ ..] => 3 + tail.iter().take_while(|c| **c != '\'' && **c != '\n').count() + 1,
        [_, _, '\'', ..] => 3,
        _ => 1,
    }
    .min(rest.iter().take_while(|c| **c != '\n').count())
}

/// Whether the code has the word, not as a part of a longer one.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    word_at(code, word).is_some()
}

/// Where the word is in the code.
pub(crate) fn word_at(code: &str, word: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .find(|at| !code[..*at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(source: &str) -> Vec<String> {
        lines(source).into_iter().map(|l| l.code.trim().to_owned()).collect()
    }

    #[test]
    fn texts_and_comments_are_not_code() {
        assert_eq!(code("let a = \"unsafe // x\"; // unsafe"), ["let a = \"\";"]);
        assert_eq!(code("let a = \"a\\\"b\"; c"), ["let a = \"\"; c"]);
        assert_eq!(code("let a = r#\"x \" unsafe\"#; c"), ["let a = r#\"\"; c"]);
        assert_eq!(code("let a = br\"\\\"; c"), ["let a = br\"\"; c"]);
        assert_eq!(code("a /* b /* c */ d */ e"), ["a  e"]);
        assert_eq!(code("let a = \"one\ntwo unsafe\nthree\"; b"), ["let a = \"", "", "\"; b"]);
    }

    #[test]
    fn quotes_in_characters_open_nothing() {
        assert_eq!(code("if c == '\"' { unsafe_() }"), ["if c == '\"' { unsafe_() }"]);
        assert_eq!(code("f('\\'', '\\\\', '\\u{7f}') // x"), ["f('\\'', '\\\\', '\\u{7f}')"]);
        assert_eq!(code("fn f<'a>(x: &'a str) {} // x"), ["fn f<'a>(x: &'a str) {}"]);
    }

    #[test]
    fn comments_are_kept_apart() {
        let all = lines("x(); // SAFETY: y\n//! doc");
        assert_eq!(all[0].comment, "// SAFETY: y");
        assert_eq!(all[1], Line { code: String::new(), comment: "//! doc".to_owned() });
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(has_word("(aya::x)", "aya"));
        assert!(!has_word("unsafe_op", "unsafe"));
        assert!(!has_word("my_aya::x", "aya"));
    }
}
