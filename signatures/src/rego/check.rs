//! Mistakes that neither the parser nor the machine tells, and that would leave a signature silent or firing for ever.

use super::error::{LoadError, Problem};
use super::tokens::{At, Token, line, tokens};
use crate::sources::Source;

/// Functions of `regex` whose first argument is a pattern.
const PATTERN_FIRST: &[&str] = &["match", "find_n", "split"];

/// Finds the first mistake in `source`.
pub(super) fn check(source: &Source) -> Result<(), LoadError> {
    let tokens = tokens(&source.text);
    let found = keyword(&tokens).or_else(|| pattern(&tokens));
    found.map_or(Ok(()), |(at, problem)| {
        Err(LoadError { file: source.file.clone(), line: Some(line(&source.text, at)), problem })
    })
}

/// Without its import, `if` is a name: `tracee_match if { .. }` is then a rule that is always true, and another one.
fn keyword(tokens: &[At<'_>]) -> Option<(usize, Problem)> {
    let imported = |words: &[At<'_>]| {
        let imports = |first, last| {
            matches!(words, [(_, Token::Word("import")), (_, Token::Word(a)), (_, Token::Mark('.')), (_, Token::Word(b))]
                if *a == first && *b == last)
        };
        imports("rego", "v1") || imports("future", "keywords")
    };
    if tokens.windows(4).any(imported) {
        return None;
    }
    let mut pairs = tokens.windows(2);
    let (at, word) = pairs.find_map(|pair| match pair {
        [(at, Token::Word("if")), _] => Some((*at, "if")),
        [(at, Token::Word("contains")), (_, Token::Word(_))] => Some((*at, "contains")),
        _ => None,
    })?;
    let why = format!("`{word}` is no keyword here without `import future.keywords`");
    Some((at, Problem::Syntax(why)))
}

/// A regular expression that is none matches nothing, without a word.
fn pattern(tokens: &[At<'_>]) -> Option<(usize, Problem)> {
    tokens.windows(5).find_map(|call| {
        let [
            (_, Token::Word("regex")),
            (_, Token::Mark('.')),
            (_, Token::Word(function)),
            (_, Token::Mark('(')),
            (at, Token::Text(text, raw)),
        ] = call
        else {
            return None;
        };
        let unescaped = || serde_json::from_str(&format!("\"{text}\"")).ok();
        let pattern: String = if *raw { (*text).to_owned() } else { unescaped()? };
        if !PATTERN_FIRST.contains(function) {
            return None;
        }
        let error = regex::Regex::new(&pattern).err()?.to_string();
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Some((*at, Problem::Pattern { pattern, why }))
    })
}
