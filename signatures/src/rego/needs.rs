//! Which parts of the input a signature can read at all, found in its text: what no rule reads is not built.
//!
//! It errs on the side of everything: only `input.name`, `input["name"]` and `get_tracee_argument("name")` are taken
//! for what they say, and any other use of these words means all.

use std::collections::BTreeSet;

use haechi_ebpf::event::EventDef;

use super::tokens::{Token, tokens};
use crate::flat::{Need, keys};

/// What a signature reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reads {
    top: u64,
    /// Names of arguments; `None` is all.
    args: Option<BTreeSet<String>>,
}

const ALL: Reads = Reads { top: u64::MAX, args: None };
const INPUT: &str = "input";
const ARGUMENT: &str = "get_tracee_argument";

impl Reads {
    /// What the text of a module reads.
    pub(super) fn of(text: &str) -> Self {
        let tokens: Vec<_> = tokens(text).into_iter().map(|(_, t)| t).collect();
        let (mut top, mut args) = (0, BTreeSet::new());
        let mut all_args = false;
        for (i, token) in tokens.iter().enumerate() {
            let next = |n: usize| tokens.get(i + n);
            match token {
                Token::Text(t, _) if [INPUT, ARGUMENT].contains(t) => return ALL,
                Token::Word(ARGUMENT) => match (next(1), next(2), next(3)) {
                    (Some(Token::Mark('(')), Some(Token::Text(name, _)), Some(Token::Mark(')'))) => {
                        top |= keys::ARGS.bit();
                        args.insert((*name).to_owned());
                    }
                    _ => return ALL,
                },
                Token::Word(INPUT) => {
                    let name = match (next(1), next(2), next(3)) {
                        (Some(Token::Mark('.')), Some(Token::Word(name)), _) => name,
                        (Some(Token::Mark('[')), Some(Token::Text(name, _)), Some(Token::Mark(']'))) => name,
                        _ => return ALL,
                    };
                    top |= keys::by_name(name).map_or(0, keys::Key::bit);
                    all_args |= *name == keys::ARGS.name();
                }
                _ => {}
            }
        }
        Self { top, args: (!all_args).then_some(args) }
    }

    /// What this or `other` reads.
    pub(super) fn and(self, other: Self) -> Self {
        let args = self.args.zip(other.args).map(|(a, b)| a.into_iter().chain(b).collect());
        Self { top: self.top | other.top, args }
    }

    /// The same for events of one kind.
    pub(super) fn need(&self, def: &EventDef) -> Need {
        let Some(names) = &self.args else { return Need { top: self.top, args: u64::MAX } };
        let bits = names.iter().filter_map(|n| def.field(n)).fold(0, |bits, i| bits | 1 << i);
        Need { top: self.top, args: bits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::event::sched_process_exec as exec;

    fn names(top: u64) -> Vec<&'static str> {
        keys::KEYS.iter().enumerate().filter(|(i, _)| top >> i & 1 == 1).map(|(_, k)| *k).collect()
    }

    #[test]
    fn plain_uses_are_taken_for_what_they_say() {
        let reads = Reads::of(
            r##"# input[x] in a comment
            import data.tracee.helpers
            a { input.eventName == "say \"input\" twice"; input["processName"] }
            b { helpers.get_tracee_argument("pathname") == `raw "input[_]" text` }"##,
        );
        assert_eq!(names(reads.top), ["processName", "eventName", "args"]);
        let need = reads.need(&exec::DEF);
        assert_eq!(need.args, 1 << exec::field::pathname.0);
        let other = Reads::of(r#"a { helpers.get_tracee_argument("argv") }"#);
        let both = reads.and(other).need(&exec::DEF);
        assert_eq!(both.args, 1 << exec::field::pathname.0 | 1 << exec::field::argv.0);
    }

    #[test]
    fn every_other_use_means_all() {
        for text in [
            "a { input[k] }",
            "a { x := input }",
            "a with input as {}",
            "a { object.get(input, \"x\", 1) }",
            "a { helpers.get_tracee_argument(name) }",
            "a { helpers[\"get_tracee_argument\"](\"x\") }",
            "import data.tracee.helpers.get_tracee_argument as arg",
        ] {
            assert_eq!(Reads::of(text), ALL, "{text}");
        }
        for text in ["a { input.args[_].name == \"x\" }", "import input.args as them", "a { input[\"args\"][0] }"] {
            let reads = Reads::of(text);
            assert_eq!((names(reads.top), reads.args), (vec!["args"], None), "{text}");
        }
        assert_eq!(Reads::of("a { input.args }").and(Reads::of("b { input.x }")).args, None);
    }
}
