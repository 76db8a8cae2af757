//! `haechi signatures`.

use std::fmt::Write;
use std::time::Duration;

use haechi_ebpf::event::by_id;
use haechi_signatures::demand::Demand;
use haechi_signatures::engine::{self, Engine};
use haechi_signatures::flat::Host;
use haechi_signatures::model::About;
use haechi_signatures::sources::{Bounds, Sources};

use super::{Failure, OrFail, Settings, WRONG, cost, print, run};
use crate::docs;
use crate::escape::Safe;
use crate::suggest;

/// What `signatures` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    settings: Settings,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the rules.
    List,
    /// Explain one: what it means that it fires, and what to do.
    Show {
        /// Its name or id.
        name: String,
    },
    /// Watch this host for a while, and say what each rule cost.
    Cost {
        /// How long, as 10s or 5m.
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = run::duration)]
        duration: Duration,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(Action::Cost { duration }) = &args.action {
        return cost::cost(&args.settings, *duration, args.json);
    }
    let config = args.settings.load()?;
    let (sources, unread) = Sources::read(&config.rules.dirs, Bounds::default());
    let (engine, report) = config.options().rules.build(Host::default(), &sources).or_fail(WRONG)?;
    let problems = unread.iter().map(ToString::to_string).chain(report.errors.iter().map(ToString::to_string));
    for problem in problems {
        eprintln!("haechi: {problem}");
    }
    let mut rules = engine.catalogue();
    if let Some(Action::Show { name }) = &args.action {
        rules.retain(|a| a.name == *name || a.id.eq_ignore_ascii_case(name));
        if rules.is_empty() {
            let all = engine.catalogue();
            let hint = suggest::hint(name, all.iter().flat_map(|a| [a.name.as_str(), a.id.as_str()]));
            return Err(Failure::wrong(format!("there is no rule `{name}`{hint}")));
        }
        if !args.json {
            let demands = |about: &About| demands(&engine, &config.options().rules, &sources, about);
            return print(&rules.iter().map(|about| explain(about, &demands(about))).collect::<String>());
        }
    }
    if args.json {
        return print(&format!("{:#}\n", serde_json::json!(rules)));
    }
    let mut out = String::new();
    for about in rules {
        // A string takes everything.
        let _ = writeln!(
            out,
            "{:<10} {:<32} {:<9} {:<10} {}",
            Safe(&about.id).to_string(),
            Safe(&about.name).to_string(),
            about.severity,
            Safe(&about.mitre.id).to_string(),
            Safe(&about.title)
        );
    }
    print(&out)
}

/// What one rule demands: what an engine of only that rule demands.
fn demands(engine: &Engine, config: &engine::Config, sources: &Sources, about: &About) -> Vec<Demand> {
    let mut config = config.clone();
    config.disabled.extend(engine.catalogue().iter().map(|a| a.name.clone()).filter(|n| *n != about.name));
    config.build(Host::default(), sources).map(|(alone, _)| alone.demands()).unwrap_or_default()
}

fn explain(about: &About, demands: &[Demand]) -> String {
    let mut out = String::new();
    let mitre = &about.mitre;
    // A string takes everything.
    let _ = writeln!(out, "{} ({}, version {})", Safe(&about.name), Safe(&about.id), Safe(&about.version));
    let _ = writeln!(out, "{}\n", Safe(&about.title));
    let _ = writeln!(out, "Severity      {}", about.severity);
    if !mitre.id.is_empty() || !mitre.tactic.is_empty() {
        let _ = writeln!(out, "MITRE ATT&CK  {}: {} {}", Safe(&mitre.tactic), Safe(&mitre.id), Safe(&mitre.technique));
    }
    for (i, demand) in demands.iter().enumerate() {
        let _ = writeln!(out, "{:<13} {}", if i == 0 { "Watches" } else { "" }, watched(demand));
    }
    let _ = writeln!(out, "\nWhat it means\n{}", indented(&about.description));
    let excuses: Vec<String> = about.excuses.iter().map(docs::excused).collect();
    if !excuses.is_empty() {
        let _ = writeln!(out, "\nWho is left alone\n{}", indented(&excuses.join("\n")));
    }
    if !about.remedy.is_empty() {
        let _ = writeln!(out, "\nWhat to do\n{}", indented(&about.remedy));
    }
    out
}

/// A demand in words.
pub(crate) fn watched(demand: &Demand) -> String {
    let name = demand.syscall.or_else(|| by_id(demand.event).map(|d| d.name)).unwrap_or("?");
    let paths = &demand.paths;
    let parts: Vec<String> =
        [("files called", &paths.leaves), ("paths from", &paths.prefixes), ("paths to", &paths.suffixes)]
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(what, list)| format!("{what} {}", list.join(" ")))
            .collect();
    let name = if demand.writes { format!("{name} for writing") } else { name.to_owned() };
    if parts.is_empty() { name } else { format!("{name}: {}", Safe(&parts.join(", "))) }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {}", Safe(line.trim()))).collect::<Vec<_>>().join("\n")
}
