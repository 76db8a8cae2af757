//! Which records of a stream a watcher gets. The filters are those of the command line, judged by the same code.

use haechi_ebpf::event::lost_events;
use haechi_signatures::model::{Event, Image, Process, Severity};

use crate::filter::Selection;
use crate::filter::connection::Filter;
use crate::render::{Happening, Item};

/// What is picked.
#[derive(Debug)]
pub(super) enum Pick {
    /// Findings.
    Findings {
        /// Names of rules, which may end in `*`; none: all.
        signatures: Vec<String>,
        /// As bad as this or worse.
        severity: Severity,
        /// Beginning of the id of a container; empty: anywhere.
        container: String,
    },
    /// Events; where no event is named, all in the scope.
    Events(Selection),
    /// Connections.
    Flows(Filter),
}

impl Pick {
    /// Whether the watcher gets it. The word of a gap is for everybody.
    pub(super) fn takes(&self, item: &Item) -> bool {
        if item.name() == lost_events::DEF.name {
            return true;
        }
        match (self, item) {
            (Self::Findings { signatures, severity, container }, Item::Finding(finding)) => {
                let named = |s: &String| {
                    let name = finding.about.name.as_str();
                    s.strip_suffix('*').map_or(name == s, |beginning| name.starts_with(beginning))
                };
                finding.about.severity >= *severity
                    && (signatures.is_empty() || signatures.iter().any(named))
                    && (container.is_empty()
                        || finding.container.as_ref().is_some_and(|c| c.id.starts_with(container.as_str())))
            }
            (Self::Events(selection), Item::Event(happening)) => selected(selection, happening),
            (Self::Flows(filter), Item::Event(happening)) => {
                let (exe, containers) = (happening.program(), happening.containers());
                happening.view().is_some_and(|view| filter.takes(&view, exe, containers))
            }
            _ => false,
        }
    }
}

fn selected(selection: &Selection, happening: &Happening) -> bool {
    let Some(view) = happening.view() else { return false };
    let process = Process { container: happening.container.clone(), ..Process::default() };
    let image = happening.image.as_ref();
    let image = image.map(|i| Image { exe: i.exe.clone(), comm: i.comm.clone(), ..Image::default() });
    let event = Event { view, process: Some(&process), image: image.as_ref(), processes: &() };
    selection.in_scope(&event) && (selection.is_empty() || selection.wants(&event))
}

#[cfg(test)]
mod tests {
    use haechi_ebpf::wire::View;

    use super::*;
    use crate::render::{Program, example};
    use crate::testing::{Who, opened};

    fn opening(path: &str) -> Item {
        let record = opened(1, Who(7, 1, 1), path);
        let mut happening = Happening::of(&Event::join(View::parse(&record).expect("a record"), &()));
        happening.image = Some(Program { exe: "/usr/bin/cat".into(), comm: "cat".into() });
        Item::Event(happening)
    }

    #[test]
    fn events_are_picked_as_the_command_line_does() {
        let picks = |events: &[&str], scope: &[&str]| {
            let pick = Pick::Events(Selection::parse(events, scope).expect("a filter"));
            pick.takes(&opening("/etc/passwd"))
        };
        assert!(picks(&[], &[]));
        assert!(picks(&["security_file_open"], &["exe=/usr/bin/*", "pid=7"]));
        assert!(picks(&["security_file_open.data.pathname=/etc/*"], &[]));
        assert!(!picks(&["security_file_open.data.pathname=/tmp/*"], &[]));
        assert!(!picks(&["ptrace"], &[]));
        assert!(!picks(&[], &["exe=/bin/sh"]));
        assert!(!picks(&[], &["container"]));
    }

    #[test]
    fn findings_are_picked_by_rule_and_severity_and_gaps_are_for_all() {
        let finding = example();
        let (name, severity) = (finding.about.name.clone(), finding.about.severity);
        let item = Item::Finding(Box::new(finding));
        let pick = |signatures: &[&str], severity| Pick::Findings {
            signatures: signatures.iter().map(|s| (*s).to_owned()).collect(),
            severity,
            container: String::new(),
        };
        assert!(pick(&[], Severity::Info).takes(&item));
        assert!(pick(&["other", &name], severity).takes(&item));
        assert!(pick(&[&format!("{}*", &name[..3])], severity).takes(&item));
        assert!(!pick(&["other"], Severity::Info).takes(&item));
        assert!(!pick(&["other"], Severity::Info).takes(&opening("/x")));
        let gap = Item::gap("ptrace", "queue", 3, 1).expect("a gap");
        assert!(pick(&["other"], Severity::Critical).takes(&gap));
        assert!(Pick::Flows(Filter::default()).takes(&gap));
    }
}
