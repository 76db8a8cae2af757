//! Text of a signature to programs of the Rego machine.

use std::sync::Arc;

use regorus::Value;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::{Program, RegoVM};

use super::bounds;
use super::error::{LoadError, Problem};
use super::necessary::Necessary;
use super::select::SELECTED;
use super::{MATCH, METADOC};
use crate::sources::Source;

/// Our helpers: part of every signature.
const HELPERS: (&str, &str) = ("builtin/helpers.rego", include_str!("helpers.rego"));

/// What a rule must not call: it would see a clock, the network or chance, or make a value of any size in one step.
const FORBIDDEN: &[&str] =
    &["rand.", "time.", "http.", "net.lookup", "opa.runtime", "uuid.", "numbers.range", "bits.lsh", "test.sleep"];

/// A compiled signature.
pub(super) struct Compiled {
    pub(super) metadoc: Value,
    pub(super) selected: Value,
    pub(super) necessary: Necessary,
    /// Together they are `tracee_match`: one, or one for each of its definitions.
    pub(super) matchers: Vec<Arc<Program>>,
}

/// Whether `source` can be a helper module.
pub(super) fn check_helper(source: &Source) -> Result<(), LoadError> {
    let mut engine = engine(&[])?;
    add(&mut engine, &source.file, &source.text).map(drop)
}

/// Compiles `source` with `helpers`, which have been checked. What the file says about itself is evaluated within
/// `instructions`.
pub(super) fn compile(source: &Source, helpers: &[&Source], instructions: usize) -> Result<Compiled, LoadError> {
    let Source { file, text } = source;
    let fail = |line, problem| LoadError { file: file.clone(), line, problem };
    let mut engine = engine(helpers)?;
    let package = add(&mut engine, file, text)?;
    for rule in [METADOC, SELECTED, MATCH] {
        if !engine.has_declared_rule_rooted_at(file, rule).map_err(|e| LoadError::syntax(file, &e))? {
            return Err(fail(None, Problem::Missing(rule)));
        }
    }
    // Helpers of the user's could give the names that are looked for another meaning.
    let module = engine.get_modules().last().filter(|_| helpers.is_empty());
    let necessary = module.map(|m| Necessary::of(m)).unwrap_or_default();
    let path = |rule: &str| format!("{package}.{rule}");
    let policy = engine.compile_with_entrypoint(&path(MATCH).into()).map_err(|e| LoadError::syntax(file, &e))?;
    let program = |rule: &str| {
        let program = Compiler::compile_from_policy(&policy, &[path(rule).as_str()])
            .map_err(|e| fail(e.span.as_ref().map(|s| s.line), Problem::Compile(e.error.to_string())))?;
        let mut calls = program.builtin_info_table.iter().map(|b| &b.name);
        match calls.find(|name| FORBIDDEN.iter().any(|f| name.starts_with(f))) {
            Some(name) => Err(fail(line_of(text, name), Problem::Forbidden(name.clone()))),
            None => Ok(program),
        }
    };
    let fact = |rule: &'static str| {
        let value = machine(&*program(rule)?, instructions).execute();
        let value = value.map_err(|e| e.to_string());
        let value = value.and_then(|v| if bounds::fits(&v) { Ok(v) } else { Err("it is too large".to_owned()) });
        let value = value.and_then(|v| if v == Value::Undefined { Err("it is undefined".to_owned()) } else { Ok(v) });
        value.map_err(|why| fail(line_of(text, rule), Problem::Value { rule, why }))
    };
    Ok(Compiled {
        metadoc: fact(METADOC)?,
        selected: fact(SELECTED)?,
        necessary,
        matchers: split(&program(MATCH)?, &path(MATCH)),
    })
}

/// A machine with a program in it.
pub(super) fn machine(program: &Program, instructions: usize) -> RegoVM {
    let mut program = program.clone();
    let names = program.builtin_info_table.iter().map(|b| b.name.as_str());
    let functions = names.zip(&program.resolved_builtins).map(|(name, function)| bounds::gated(name, *function));
    program.resolved_builtins = functions.collect();
    let mut vm = RegoVM::new();
    vm.set_max_instructions(instructions);
    vm.load_program(Arc::new(program));
    vm
}

/// The first line of `text` that holds `word` outside a comment.
pub(super) fn line_of(text: &str, word: &str) -> Option<u32> {
    let code = |line: &str| line.split('#').next().is_some_and(|c| c.contains(word));
    text.lines().position(code).map(|i| i as u32 + 1)
}

fn engine(helpers: &[&Source]) -> Result<regorus::Engine, LoadError> {
    let mut engine = regorus::Engine::new();
    engine.set_rego_v0(true);
    add(&mut engine, HELPERS.0, HELPERS.1)?;
    for helper in helpers {
        add(&mut engine, &helper.file, &helper.text)?;
    }
    Ok(engine)
}

fn add(engine: &mut regorus::Engine, file: &str, text: &str) -> Result<String, LoadError> {
    engine.add_policy(file.to_owned(), text.to_owned()).map_err(|e| LoadError::syntax(file, &e))
}

/// The machine takes definitions that disagree for undefined, which would look like "no match". So where they could
/// disagree, each becomes a program of its own, and we compare.
fn split(program: &Arc<Program>, path: &str) -> Vec<Arc<Program>> {
    let rule = program.rule_infos.iter().position(|r| r.name == path);
    let Some((index, rule)) = rule.map(|i| (i, &program.rule_infos[i])) else { return vec![program.clone()] };
    if rule.early_exit_on_first_success || rule.definitions.len() < 2 {
        return vec![program.clone()];
    }
    let single = |i: usize| {
        let mut only = Program::clone(program);
        let rule = &mut only.rule_infos[index];
        rule.definitions = Arc::new(vec![rule.definitions[i].clone()]);
        rule.destructuring_blocks = rule.destructuring_blocks.get(i).into_iter().copied().collect();
        rule.else_bodies = rule.else_bodies.get(i).into_iter().cloned().collect();
        Arc::new(only)
    };
    (0..rule.definitions.len()).map(single).collect()
}
