//! What a signature says about itself: `__rego_metadoc__`, whose names of members may be in any case.

use std::sync::Arc;

use serde_json::Value;

use crate::demand::Paths;
use crate::exceptions::Excuse;
use crate::model::{About, Mitre, Severity};

/// What was read.
pub(super) struct Meta {
    pub(super) about: Arc<About>,
    /// Our extension: the only paths the signature looks at, so that the kernel can leave out the others.
    pub(super) paths: Paths,
}

/// Reads a metadoc; says what is wrong with it.
pub(super) fn read(doc: &Value) -> Result<Meta, String> {
    if !doc.is_object() {
        return Err("it is not an object".to_owned());
    }
    let text = |name: &str| match member(doc, name) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => n.to_string(),
        _ => String::new(),
    };
    let properties = member(doc, "properties").cloned().unwrap_or_default();
    let (id, title) = (text("id"), text("name"));
    let name = [text("eventName"), slug(&title), slug(&id)].into_iter().find(|n| !n.is_empty());
    let name = name.ok_or("it has no eventName, name or id")?;
    let tags = member(doc, "tags").and_then(Value::as_array);
    let about = About {
        id: if id.is_empty() { name.clone() } else { id },
        title: if title.is_empty() { name.clone() } else { title },
        name,
        version: text("version"),
        description: text("description"),
        remedy: string(&properties, "Remedy").unwrap_or_default(),
        severity: severity(&properties)?,
        mitre: mitre(&properties),
        excuses: excuses(&properties)?,
        tags: tags.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    Ok(Meta { about: Arc::new(about), paths: paths(&properties)? })
}

/// The member called `name` in any case; the exact one first.
fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let any_case = || object.as_object()?.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v);
    object.get(name).or_else(any_case)
}

fn string(object: &Value, name: &str) -> Option<String> {
    member(object, name)?.as_str().map(str::to_owned)
}

/// 0 to 4, as a number of any kind or as text; missing is 0, as it always was.
fn severity(properties: &Value) -> Result<Severity, String> {
    let Some(value) = member(properties, "Severity") else { return Ok(Severity::Info) };
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let known = number.filter(|n| n.fract() == 0.0 && (0.0..=4.0).contains(n)).map(|n| Severity::ALL[n as usize]);
    known.ok_or_else(|| format!("Severity is {value}, which is not a number from 0 to 4"))
}

/// `Tactic: Technique`; the id is taken from wherever it is told.
fn mitre(properties: &Value) -> Mitre {
    let attack = string(properties, "MITRE ATT&CK").unwrap_or_default();
    let (tactic, technique) = attack.split_once(':').unwrap_or(("", &attack));
    let told = ["external_id", "MITRE ID", "MITRE ATT&CK"].into_iter().filter_map(|n| string(properties, n));
    let words = told.flat_map(|s| s.split([' ', '(', ')', '[', ']', ',']).map(str::to_owned).collect::<Vec<_>>());
    let id = words.filter(|w| is_technique(w)).map(|w| w.to_uppercase()).next().unwrap_or_default();
    Mitre { tactic: tactic.trim().to_owned(), id, technique: technique.trim().to_owned() }
}

/// `T` and four digits, perhaps a dot and three more.
fn is_technique(word: &str) -> bool {
    let digits = word.strip_prefix(['T', 't']).unwrap_or_default();
    let (main, sub) = digits.split_once('.').unwrap_or((digits, "000"));
    let all = |s: &str, len| s.len() == len && s.bytes().all(|b| b.is_ascii_digit());
    all(main, 4) && all(sub, 3)
}

fn paths(properties: &Value) -> Result<Paths, String> {
    let Some(hint) = member(properties, "haechi_paths") else { return Ok(Paths::default()) };
    let list = |name: &str| match hint.get(name) {
        None => Ok(Vec::new()),
        Some(list) => {
            let items = list.as_array().and_then(|l| l.iter().map(|s| s.as_str().map(str::to_owned)).collect());
            items.ok_or_else(|| format!("haechi_paths.{name} is not a list of texts"))
        }
    };
    let unknown =
        hint.as_object().map(|o| o.keys().find(|k| !["leaves", "prefixes", "suffixes"].contains(&k.as_str())));
    match unknown {
        None => Err("haechi_paths is not an object".to_owned()),
        Some(Some(key)) => Err(format!("haechi_paths has leaves, prefixes and suffixes, but no `{key}`")),
        Some(None) => Ok(Paths { leaves: list("leaves")?, prefixes: list("prefixes")?, suffixes: list("suffixes")? }),
    }
}

fn excuses(properties: &Value) -> Result<Vec<Excuse>, String> {
    let Some(list) = member(properties, "haechi_excuses") else { return Ok(Vec::new()) };
    let excuses: Vec<Excuse> = serde_json::from_value(list.clone()).map_err(|e| format!("haechi_excuses: {e}"))?;
    match excuses.iter().find(|e| !e.is_sound()) {
        Some(unsound) => Err(format!("haechi_excuses: {unsound:?} says not whom, or not why")),
        None => Ok(excuses),
    }
}

/// A title as a name.
fn slug(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_members_may_be_in_any_case() {
        let doc = json!({"ID": "TRC-2", "VERSION": "0.1.0", "Name": "Anti-Debugging", "EVENTNAME": "anti_debugging",
            "description": "d", "Tags": ["linux", 3], "properties": {"Severity": 3,
            "MITRE ATT&CK": "Defense Evasion: Execution Guardrails", "external_id": "t1480.001"}});
        let meta = read(&doc).map_err(|e| panic!("{e}")).expect("a metadoc");
        let About { id, name, version, title, severity, mitre, tags, .. } = (*meta.about).clone();
        assert_eq!((id.as_str(), name.as_str(), version.as_str()), ("TRC-2", "anti_debugging", "0.1.0"));
        assert_eq!((title.as_str(), severity, tags), ("Anti-Debugging", Severity::High, vec!["linux".to_owned()]));
        assert_eq!(
            mitre,
            Mitre {
                tactic: "Defense Evasion".into(),
                id: "T1480.001".into(),
                technique: "Execution Guardrails".into()
            }
        );
        assert!(meta.paths.is_any());
    }

    #[test]
    fn numbers_may_be_of_any_kind() {
        for (value, want) in [
            (json!(4), Ok(Severity::Critical)),
            (json!(1.0), Ok(Severity::Low)),
            (json!("2"), Ok(Severity::Medium)),
            (json!(5), Err("Severity is 5, which is not a number from 0 to 4".to_owned())),
            (json!("high"), Err("Severity is \"high\", which is not a number from 0 to 4".to_owned())),
        ] {
            assert_eq!(severity(&json!({"severity": value})), want);
        }
        assert_eq!(severity(&json!({})), Ok(Severity::Info));
    }

    #[test]
    fn a_name_is_found_or_missed() {
        let name = |doc| read(&doc).map(|m| m.about.name.clone());
        assert_eq!(name(json!({"name": "K8s API  server!"})), Ok("k8s_api_server".into()));
        assert_eq!(name(json!({"id": "TRC-9"})), Ok("trc_9".into()));
        assert_eq!(name(json!({})), Err("it has no eventName, name or id".into()));
        assert_eq!(name(json!([])), Err("it is not an object".into()));
    }

    #[test]
    fn an_excuse_says_whom_and_why() {
        let list = |l| excuses(&json!({"haechi_excuses": l})).map(|l| l.len());
        assert_eq!(list(json!([{"exes": ["/x"], "why": "it is ours"}])), Ok(1));
        assert_eq!(excuses(&json!({})), Ok(Vec::new()));
        for wrong in [json!([{"why": "all"}]), json!([{"exes": ["/x"]}]), json!([{"exe": "/x", "why": "w"}]), json!(1)]
        {
            assert!(list(wrong.clone()).is_err_and(|e| e.starts_with("haechi_excuses: ")), "{wrong}");
        }
    }

    #[test]
    fn a_path_hint_is_taken_at_its_word() {
        let hint = |h| paths(&json!({"haechi_paths": h}));
        let want = Paths { leaves: vec!["shadow".into()], suffixes: vec![".key".into()], ..Paths::default() };
        assert_eq!(hint(json!({"leaves": ["shadow"], "suffixes": [".key"]})), Ok(want));
        assert_eq!(
            hint(json!({"leaf": []})),
            Err("haechi_paths has leaves, prefixes and suffixes, but no `leaf`".into())
        );
        assert_eq!(hint(json!({"leaves": "x"})), Err("haechi_paths.leaves is not a list of texts".into()));
        assert_eq!(hint(json!(7)), Err("haechi_paths is not an object".into()));
    }
}
