//! What each law looks for in one source file. A breach names its line; the table says what is allowed.

use super::source::{self, Line};
use super::table::{BORDERS, CLOCKS, LONG, LONGEST, UNSAFE};

/// A law about a source file: its name, and what finds the breaches.
pub(crate) struct Law {
    /// What the user reads.
    pub name: &'static str,
    /// Line number (from 1) and what is wrong there.
    pub breaches: fn(&File<'_>) -> Vec<(usize, String)>,
}

/// A source file under the laws.
pub(crate) struct File<'a> {
    /// From the root, with slashes.
    pub path: &'a str,
    /// Its lines, split.
    pub lines: Vec<Line>,
}

impl<'a> File<'a> {
    /// Splits the text.
    pub(crate) fn new(path: &'a str, text: &str) -> Self {
        Self { path, lines: source::lines(text) }
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(at, line)| (at + 1, line))
    }
}

/// All laws about source files.
pub(crate) const LAWS: &[Law] = &[
    Law { name: "a file opens with why it exists", breaches: opening },
    Law { name: "a file stays short", breaches: length },
    Law { name: "crates stay behind their door", breaches: borders },
    Law { name: "unsafe stays where it must be", breaches: unsafe_place },
    Law { name: "unsafe says why it is sound", breaches: unsafe_reason },
    Law { name: "no bare allow", breaches: bare_allow },
    Law { name: "nothing is left for later", breaches: leftovers },
    Law { name: "tests wait for conditions", breaches: sleeping_tests },
    Law { name: "one place tells the time", breaches: clocks },
    Law { name: "kernel programs work apart", breaches: programs },
];

fn opening(file: &File<'_>) -> Vec<(usize, String)> {
    let first = file.lines.first().map_or("", |l| l.comment.as_str());
    let says = first.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty());
    if says { Vec::new() } else { vec![(1, "begin with //! and why the file exists".to_owned())] }
}

fn length(file: &File<'_>) -> Vec<(usize, String)> {
    let lines = file.lines.iter().rposition(|l| *l != Line::default()).map_or(0, |at| at + 1);
    if lines <= LONGEST || LONG.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    vec![(
        lines,
        format!("{lines} lines, at most {LONGEST}: split it, or list it in xtask/src/law/table.rs with a reason"),
    )]
}

fn borders(file: &File<'_>) -> Vec<(usize, String)> {
    let mut breaches = Vec::new();
    for border in BORDERS.iter().filter(|b| !b.inside.iter().any(|p| file.path.starts_with(p))) {
        for (number, line) in file.numbered() {
            if let Some(name) = border.crates.iter().find(|name| names_crate(&line.code, name)) {
                breaches.push((number, format!("names {name} outside {}: {}", border.inside.join(", "), border.why)));
            }
        }
    }
    breaches
}

/// Whether code names the crate or one of its family (`aya` and `aya_log`): in a path or after `use`.
fn names_crate(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let rest = &code[at + name.len()..];
        let family = rest.starts_with('_') || !rest.starts_with(is_word);
        let path_goes_on = rest.trim_start_matches(is_word).starts_with("::");
        let imported = before.trim_end().ends_with("use") || before.trim_end().ends_with("extern crate");
        family && !before.ends_with(is_word) && !before.ends_with("::") && (path_goes_on || imported)
            || before.trim_end() == "use ::" && family
    })
}

fn unsafe_place(file: &File<'_>) -> Vec<(usize, String)> {
    if UNSAFE.iter().any(|(place, _)| file.path.starts_with(place)) {
        return Vec::new();
    }
    let places = || UNSAFE.iter().map(|(place, _)| *place).collect::<Vec<_>>().join(", ");
    let uses = file.numbered().filter(|(_, line)| source::has_word(&line.code, "unsafe"));
    uses.map(|(number, _)| (number, format!("unsafe code belongs in {}", places()))).collect()
}

/// How far above a block its reason may stand: over attributes and the beginning of its statement.
const REACH: usize = 12;

/// Blocks and impls give a reason. An `unsafe fn` gives none of its own: its body is made of such blocks.
fn unsafe_reason(file: &File<'_>) -> Vec<(usize, String)> {
    let claims = |line: &Line| {
        let Some(at) = source::word_at(&line.code, "unsafe") else { return false };
        let rest = line.code[at + "unsafe".len()..].trim_start();
        rest.starts_with('{') || rest.starts_with("impl") || rest.is_empty()
    };
    let mut breaches = Vec::new();
    for (at, line) in file.lines.iter().enumerate().filter(|(_, line)| claims(line)) {
        let above = &file.lines[at.saturating_sub(REACH)..=at];
        if !above.iter().any(|l| l.comment.contains("SAFETY:")) {
            breaches.push((at + 1, format!("`{}`: say with SAFETY: above it why this is sound", line.code.trim())));
        }
    }
    breaches
}

fn bare_allow(file: &File<'_>) -> Vec<(usize, String)> {
    let allows = |code: &str| {
        let code: String = code.split_whitespace().collect();
        code.contains("#[allow(") || code.contains("#![allow(")
    };
    let found = file.numbered().filter(|(_, line)| allows(&line.code));
    found.map(|(number, _)| (number, "write #[expect(.., reason = \"..\")]".to_owned())).collect()
}

fn leftovers(file: &File<'_>) -> Vec<(usize, String)> {
    const MARKS: &[&str] = &["FIXME", "TODO", "XXX"];
    let is_left = |line: &Line| {
        let code: String = line.code.split_whitespace().collect();
        ["todo!", "unimplemented!", "#[ignore"].iter().any(|mark| code.contains(mark))
            || MARKS.iter().any(|mark| source::has_word(&line.comment, mark))
    };
    let found = file.numbered().filter(|(_, line)| is_left(line));
    found.map(|(number, _)| (number, "finish it, or file it where work is planned".to_owned())).collect()
}

/// In the tests package everything is a test; elsewhere what follows `#[cfg(test)]` is.
fn sleeping_tests(file: &File<'_>) -> Vec<(usize, String)> {
    let start = if file.path.starts_with("tests/") || file.path.contains("/tests/") {
        0
    } else {
        file.lines.iter().position(|l| l.code.contains("#[cfg(test)]")).unwrap_or(file.lines.len())
    };
    let tests = file.numbered().skip(start);
    let naps = tests.filter(|(_, line)| ["thread::sleep(", "time::sleep("].iter().any(|nap| line.code.contains(nap)));
    naps.map(|(number, _)| (number, "wait with a deadline on what must become true".to_owned())).collect()
}

fn clocks(file: &File<'_>) -> Vec<(usize, String)> {
    let watched = ["agent/", "signatures/"].iter().any(|p| file.path.starts_with(p));
    if !watched || CLOCKS.iter().any(|place| file.path.starts_with(place)) {
        return Vec::new();
    }
    let looks = file.numbered().filter(|(_, line)| line.code.contains("SystemTime::now"));
    looks.map(|(number, _)| (number, format!("only {} may ask: a replay must be exact", CLOCKS.join(", ")))).collect()
}

/// A program with typed arguments loads through them in a function of its own; agent-ebpf/src/kernel/apart.rs says why.
fn programs(file: &File<'_>) -> Vec<(usize, String)> {
    const TYPED: &[&str] = &["#[btf_tracepoint", "#[fexit", "#[lsm", "link_section"];
    // Ways to keep to it: by the door, by a function called only for what is watched, by not using the arguments.
    const APART: &[&str] = &["apart(", "if watched(", "with_current_regs!", "<Probe"];
    if !file.path.starts_with("agent-ebpf/src/kernel/") {
        return Vec::new();
    }
    // The function right below the attributes that end before line `at`; none for a static.
    let body = |at: usize| {
        let begins = file.lines[at..].iter().take(3).position(|l| l.code.trim_start().starts_with("fn "));
        let lines = file.lines[at..].iter().skip(begins.unwrap_or(usize::MAX)).take(20);
        lines.scan(false, |over, line| {
            let past = std::mem::replace(over, line.code == "}" || line.code == "        }");
            (!past).then_some(line)
        })
    };
    let is_program = |line: &Line| TYPED.iter().any(|mark| line.code.contains(mark));
    let starts = file.numbered().filter(|(_, line)| is_program(line));
    let inline = starts.filter(|(number, _)| {
        let mut body = body(*number).peekable();
        body.peek().is_some() && !body.any(|line| APART.iter().any(|way| line.code.contains(way)))
    });
    inline
        .map(|(number, _)| (number, "call `apart`: a fault in a main function is an oops on 5.10".to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law, path, text, the lines that must be found.
    const CASES: &[(&str, &str, &str, &[usize])] = &[
        ("a file opens with why it exists", "agent/src/a.rs", "//! Why.\n", &[]),
        ("a file opens with why it exists", "agent/src/a.rs", "//!\nfn a() {}\n", &[1]),
        ("a file opens with why it exists", "agent/src/a.rs", "#![no_std]\n//! Late.\n", &[1]),
        (
            "crates stay behind their door",
            "agent/src/a.rs",
            "use aya::Ebpf;\nuse aya_log::X;\nuse aya as b;",
            &[1, 2, 3],
        ),
        ("crates stay behind their door", "agent/src/kernel/a.rs", "use aya::Ebpf;", &[]),
        ("crates stay behind their door", "agent/src/a.rs", "fn f(x: tonic::Status) {}\nuse ::prost;", &[1, 2]),
        ("crates stay behind their door", "agent/src/servers/a.rs", "fn f(x: tonic::Status) {}", &[]),
        (
            "crates stay behind their door",
            "agent/src/a.rs",
            "let e: regorus::Engine;\nlet x = cel_interpreter::P;",
            &[1, 2],
        ),
        (
            "crates stay behind their door",
            "agent/src/a.rs",
            "let aya = 1;\ncancel::x();\nself::aya::y(); // aya::z",
            &[],
        ),
        ("crates stay behind their door", "agent/src/a.rs", "opentelemetry_otlp::x();", &[1]),
        ("unsafe stays where it must be", "agent/src/a.rs", "fn f() {\n    unsafe { x() }\n}", &[2]),
        ("unsafe stays where it must be", "agent/src/kernel/a.rs", "unsafe { x() }", &[]),
        (
            "unsafe stays where it must be",
            "agent/src/a.rs",
            "// unsafe\nlet a = \"unsafe\";\n#![deny(unsafe_code)]",
            &[],
        ),
        ("unsafe says why it is sound", "agent/src/kernel/a.rs", "unsafe { x() }", &[1]),
        ("unsafe says why it is sound", "agent/src/kernel/a.rs", "// SAFETY: x asks nothing.\nunsafe { x() }", &[]),
        ("unsafe says why it is sound", "agent/src/kernel/a.rs", "unsafe fn f() {}\nunsafe impl A for B {}", &[2]),
        (
            "unsafe says why it is sound",
            "agent/src/kernel/a.rs",
            "#[unsafe(no_mangle)]\nlet f: unsafe extern \"C\" fn();",
            &[],
        ),
        (
            "no bare allow",
            "agent/src/a.rs",
            "#[allow(dead_code)]\n#![allow(unused)]\n#[expect(x, reason = \"\")]",
            &[1, 2],
        ),
        (
            "nothing is left for later",
            "agent/src/a.rs",
            "todo!()\n// FIXME later\n#[ignore]\nunimplemented!()",
            &[1, 2, 3, 4],
        ),
        ("tests wait for conditions", "tests/src/a.rs", "thread::sleep(x);\nthread::park_timeout(x);", &[1]),
        (
            "tests wait for conditions",
            "agent/src/a.rs",
            "thread::sleep(x);\n#[cfg(test)]\ntokio::time::sleep(x);",
            &[3],
        ),
        ("one place tells the time", "signatures/src/a.rs", "std::time::SystemTime::now()", &[1]),
        ("one place tells the time", "agent/src/clock.rs", "std::time::SystemTime::now()", &[]),
        (
            "kernel programs work apart",
            "agent-ebpf/src/kernel/a.rs",
            "#[lsm(hook = \"a\")]\nfn a() {\n    b();\n}\n#[fexit]\nfn c() {\n    apart(b)\n}\n#[kprobe]\nfn d() {}",
            &[1],
        ),
        ("nothing is left for later", "agent/src/a.rs", "let a = \"todo!\"; // the method\nlet mktodo = 1;", &[]),
    ];

    #[test]
    fn each_law_catches_its_breach_and_no_more() {
        for (name, path, text, expected) in CASES {
            let law = LAWS.iter().find(|l| l.name == *name).expect("the case names a law");
            let found: Vec<usize> = (law.breaches)(&File::new(path, text)).iter().map(|(line, _)| *line).collect();
            assert_eq!(&found, expected, "{name}: {path}:\n{text}");
        }
    }

    #[test]
    fn length_counts_lines_not_the_last_newline() {
        let text = |lines: usize| "//! x\n".repeat(lines);
        assert!(length(&File::new("agent/src/a.rs", &text(LONGEST))).is_empty());
        assert_eq!(length(&File::new("agent/src/a.rs", &text(LONGEST + 1))).len(), 1);
    }

    #[test]
    fn every_law_has_a_case_that_breaks_it() {
        for law in LAWS.iter().filter(|l| l.name != "a file stays short") {
            assert!(CASES.iter().any(|c| c.0 == law.name && !c.3.is_empty()), "{}", law.name);
        }
    }
}
