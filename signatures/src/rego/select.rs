//! Which events a signature wants: `tracee_selected_events`, a set of source, name and origin, each of which may be
//! missing or `*`.

use haechi_ebpf::event::{self, EVENTS, EventId, Ring};
use haechi_ebpf::syscall;
use serde_json::Value;

use super::necessary::Necessary;
use crate::demand::{Demand, Paths};
use crate::model::Event;

/// The rule that says it.
pub(super) const SELECTED: &str = "tracee_selected_events";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Any,
    Host,
    Container,
    /// In a container that is being made. We know a container by its cgroup, which tells of no such state: never.
    ContainerInit,
}

/// A kind of event that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    event: EventId,
    syscall: Option<&'static str>,
    origin: Origin,
}

impl Selector {
    /// Whether it wants `event`.
    pub(super) fn wants(&self, event: &Event<'_>) -> bool {
        let origin = match self.origin {
            Origin::Any => true,
            Origin::Host => event.container().is_none(),
            Origin::Container => event.container().is_some(),
            Origin::ContainerInit => false,
        };
        origin && event.view.event() == self.event && self.syscall.is_none_or(|name| event.name() == name)
    }
}

/// Reads the set; names that are not known here come back apart. Says what is wrong with it.
pub(super) fn read(set: &Value) -> Result<(Vec<Selector>, Vec<String>), String> {
    let items = set.as_array().ok_or("it is not a set")?;
    let (mut selectors, mut unknown) = (Vec::new(), Vec::new());
    for item in items {
        let text = |name: &str| match item.get(name) {
            None => Ok("*"),
            Some(Value::String(s)) if s.is_empty() => Ok("*"),
            Some(Value::String(s)) => Ok(s.as_str()),
            Some(other) => Err(format!("{name} is {other}, not a text")),
        };
        if !item.is_object() {
            return Err(format!("{item} is not an object with source, name and origin"));
        }
        if !["*", "tracee"].contains(&text("source")?) {
            continue;
        }
        let origin = match text("origin")? {
            "*" => Origin::Any,
            "host" => Origin::Host,
            "container" => Origin::Container,
            "container-init" => Origin::ContainerInit,
            other => return Err(format!("there is no origin `{other}`, only container, container-init, host and *")),
        };
        let one = |event, syscall| Selector { event, syscall, origin };
        let name = text("name")?;
        if name == "*" {
            let real = EVENTS.iter().filter(|e| e.ring != Ring::None && e.id != event::syscall::ID);
            selectors.extend(real.map(|e| one(e.id, None)));
        } else if let Some(def) = event::by_name(name) {
            selectors.push(one(def.id, None));
        } else if let Some(call) = syscall::by_name(name) {
            selectors.push(one(event::syscall::ID, Some(call.name)));
        } else {
            unknown.push(name.to_owned());
        }
    }
    if selectors.is_empty() && unknown.is_empty() {
        return Err("it names no event".to_owned());
    }
    Ok((selectors, unknown))
}

/// The same as demands. For events that are about a path, `paths` say which; where they do not, what the text needs does.
pub(super) fn demands(selectors: &[Selector], paths: &Paths, necessary: &Necessary) -> Vec<Demand> {
    let mut demands: Vec<Demand> = Vec::new();
    for Selector { event, syscall, .. } in selectors {
        let demand = match event::by_id(*event) {
            Some(def) if def.fields.iter().any(|f| f.ty == event::FieldType::Path) => {
                let paths = if paths.is_any() { necessary.paths(def) } else { paths.clone() };
                Demand { writes: necessary.writes(def), ..Demand::at(*event, paths) }
            }
            _ => Demand { syscall: *syscall, ..Demand::of(*event) },
        };
        if !demands.contains(&demand) {
            demands.push(demand);
        }
    }
    demands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Container, Process, ProcessKey, Processes};
    use crate::record::Builder;
    use haechi_ebpf::event::{ptrace, security_file_open as open};
    use haechi_ebpf::wire::View;
    use serde_json::json;
    use std::sync::Arc;

    struct Contained(Process);

    impl Processes for Contained {
        fn get(&self, _: ProcessKey) -> Option<&Process> {
            Some(&self.0)
        }
    }

    #[test]
    fn origins_and_missing_members_decide() {
        let contained = Contained(Process { container: Some(Arc::new(Container::default())), ..Process::default() });
        let bytes = Builder::new(&ptrace::DEF).finish();
        let view = View::parse(&bytes).expect("a record");
        let (host, inside) = (Event::join(view, &()), Event::join(view, &contained));
        for (item, want) in [
            (json!({"source": "tracee", "name": "ptrace"}), (true, true)),
            (json!({"source": "tracee", "name": "ptrace", "origin": "*"}), (true, true)),
            (json!({"name": "ptrace", "origin": "host"}), (true, false)),
            (json!({"name": "ptrace", "origin": "container"}), (false, true)),
            (json!({"name": "ptrace", "origin": "container-init"}), (false, false)),
            (json!({"name": "*"}), (true, true)),
            (json!({"source": "tracee"}), (true, true)),
            (json!({"name": "security_file_open"}), (false, false)),
        ] {
            let (selectors, unknown) = read(&json!([item])).expect("a set");
            assert!(unknown.is_empty());
            let wants = |e| selectors.iter().any(|s| s.wants(e));
            assert_eq!((wants(&host), wants(&inside)), want, "{item}");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (set, want) in [
            (json!({}), "it is not a set"),
            (json!([]), "it names no event"),
            (json!([{"source": "other", "name": "x"}]), "it names no event"),
            (json!(["ptrace"]), "\"ptrace\" is not an object with source, name and origin"),
            (json!([{"name": 3}]), "name is 3, not a text"),
            (json!([{"origin": "pod"}]), "there is no origin `pod`, only container, container-init, host and *"),
        ] {
            assert_eq!(read(&set).map(drop), Err(want.to_owned()));
        }
        let (known, unknown) = read(&json!([{"name": "ptrace"}, {"name": "mem_prot_alert"}])).expect("a set");
        assert_eq!((known.len(), unknown), (1, vec!["mem_prot_alert".to_owned()]));
    }

    #[test]
    fn a_system_call_is_demanded_by_its_name_and_a_path_only_where_there_is_one() {
        let paths = Paths { leaves: vec!["x".into()], ..Paths::default() };
        let set = json!([{"name": "kill"}, {"name": "kill", "origin": "host"}, {"name": "security_file_open"}]);
        let (selectors, _) = read(&set).expect("a set");
        let kill = Demand { syscall: Some("kill"), ..Demand::of(event::syscall::ID) };
        assert_eq!(demands(&selectors, &paths, &Necessary::default()), [kill, Demand::at(open::ID, paths.clone())]);
    }
}
