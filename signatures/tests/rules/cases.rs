//! Runs the cases in `cases/`: for every rule that comes with Haechi, what must make it fire and what must not. Adding
//! a rule without cases fails here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::{World, engine, judge, record};
use haechi_ebpf::event::Field;
use haechi_ebpf::wire::{at, var};
use haechi_signatures::engine::Config;
use haechi_signatures::record::Builder;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    rule: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What is shown.
    name: String,
    event: String,
    #[serde(default)]
    fields: BTreeMap<String, Value>,
    /// Fields that were read from the memory of the process.
    #[serde(default)]
    user: BTreeMap<String, String>,
    /// Fields of which only this much is there.
    #[serde(default)]
    cut: BTreeMap<String, String>,
    /// What the same process did before.
    #[serde(default)]
    before: Vec<Deed>,
    /// Programs that the process has run, the last one now.
    #[serde(default)]
    exes: Vec<String>,
    parent: Option<String>,
    container: Option<String>,
    #[serde(default)]
    uid: u32,
    /// The target of the finding; `null`: it must not fire.
    target: Option<String>,
    /// Evidence that must be there.
    #[serde(default)]
    evidence: BTreeMap<String, Value>,
    /// The technique, where it is not the rule's own.
    mitre: Option<String>,
}

/// An event that only prepares.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deed {
    event: String,
    fields: BTreeMap<String, Value>,
}

const PID: u32 = 100;
const PARENT: u32 = 50;

impl Case {
    fn world(&self) -> World {
        let exes: Vec<&str> = self.exes.iter().map(String::as_str).collect();
        let world = match &self.parent {
            Some(exe) => World::default().process(PARENT, 1, &[exe], self.container.as_deref()),
            None => World::default(),
        };
        if exes.is_empty() { world } else { world.process(PID, PARENT, &exes, self.container.as_deref()) }
    }

    fn earlier(&self) -> impl Iterator<Item = Vec<u8>> {
        self.before.iter().map(|deed| {
            let set = |record: Builder, (name, value): (&String, &Value)| record.named(name, value).expect("a field");
            deed.fields.iter().fold(record(&deed.event, PID), set).finish()
        })
    }

    fn record(&self) -> Vec<u8> {
        let mut record = record(&self.event, PID)
            .header_u32(at::EXEC_ID, self.exes.len() as u32)
            .header_u32(at::UID, self.uid)
            .ret(0);
        for (name, value) in &self.fields {
            record = record.named(name, value).expect("a field of this event");
        }
        let mut marked = |fields: &BTreeMap<String, String>, marks, more| {
            for (name, text) in fields {
                let field = self.field(name);
                record = Builder::marked(record.clone(), field, text, text.len() + more, marks);
            }
        };
        marked(&self.user, var::USER, 0);
        marked(&self.cut, 0, 5000);
        record.finish()
    }

    fn field(&self, name: &str) -> Field {
        let def = haechi_ebpf::event::by_name(&self.event).expect("an event");
        Field(def.field(name).expect("a field of this event") as u8)
    }
}

fn all() -> Vec<Cases> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut files: Vec<_> = fs::read_dir(dir).expect("cases").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).expect("a file");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    files.iter().map(read).collect()
}

#[test]
fn rules_fire_on_what_they_must_and_on_nothing_else() {
    for Cases { rule, cases } in all() {
        for case in cases {
            let (mut engine, report) = engine(&Config::default(), &[]);
            assert!(report.errors.is_empty() && report.warnings.is_empty(), "{report:?}");
            for earlier in case.earlier() {
                judge(&mut engine, &case.world(), &earlier);
            }
            let found = judge(&mut engine, &case.world(), &case.record());
            let ours: Vec<_> = found.iter().filter(|f| f.about.name == rule).collect();
            let targets: Vec<_> = ours.iter().map(|f| f.target.as_str()).collect();
            assert_eq!(targets, case.target.iter().map(String::as_str).collect::<Vec<_>>(), "{rule}: {}", case.name);
            for (name, want) in &case.evidence {
                let got = ours.iter().flat_map(|f| &f.evidence).find(|(k, _)| k == name).map(|(_, v)| v);
                assert_eq!(got, Some(want), "{rule}: {}: evidence {name}", case.name);
            }
            let own = engine.catalogue().iter().find(|a| a.name == rule).map(|a| a.mitre.id.clone());
            let technique = case.mitre.or(own);
            assert!(ours.iter().all(|f| Some(&f.about.mitre.id) == technique.as_ref()), "{rule}: {}", case.name);
            let (notices, _) = engine.take_notices();
            assert!(notices.is_empty(), "{rule}: {}: {notices:?}", case.name);
        }
    }
}

#[test]
fn every_rule_has_a_case_of_either_kind_and_tells_people_what_to_do() {
    let (engine, _) = engine(&Config::default(), &[]);
    let cases = all();
    for about in engine.catalogue() {
        let of = cases.iter().find(|c| c.rule == about.name);
        let of = of.unwrap_or_else(|| panic!("rule {} has no file in cases/", about.name));
        assert!(of.cases.iter().any(|c| c.target.is_some()), "{}: no case fires", about.name);
        assert!(of.cases.iter().any(|c| c.target.is_none()), "{}: no case is honest", about.name);
        for text in [&about.id, &about.title, &about.description, &about.remedy, &about.mitre.tactic, &about.mitre.id] {
            assert!(!text.is_empty(), "{} leaves something out: {about:?}", about.name);
        }
    }
    for Cases { rule, .. } in &cases {
        assert!(engine.catalogue().iter().any(|a| a.name == *rule), "there is no rule {rule}");
    }
}
