//! What a selection demands of the kernel. The kernel may let through more than was asked for, never less.

use haechi_ebpf::event::FieldType;
use haechi_signatures::demand::{Choice, Demand, Paths};

use super::test::{Op, Subject, Test, Want};
use super::{Selection, Wanted};

impl Selection {
    /// What the events that were asked for need.
    #[must_use]
    pub fn demands(&self) -> Vec<Demand> {
        self.wanted.iter().map(|w| self.narrow(w.demand())).collect()
    }

    /// Narrows a demand of anybody to the scope, where it does not choose for itself.
    #[must_use]
    pub fn narrow(&self, mut demand: Demand) -> Demand {
        narrow(&self.scope, &mut demand);
        demand
    }
}

impl Wanted {
    fn demand(&self) -> Demand {
        let mut demand = Demand { event: self.event, syscall: self.syscall, ..Demand::default() };
        narrow(&self.tests, &mut demand);
        for test in &self.tests {
            if let Subject::Data(_, def) = test.subject
                && def.name == "pathname"
                && def.ty == FieldType::Path
                && test.op == Op::Is
            {
                demand.paths = paths(&test.values);
            }
        }
        demand
    }
}

fn narrow(tests: &[Test], demand: &mut Demand) {
    for test in tests {
        let Subject::Scope(scope) = test.subject else { continue };
        match scope.name {
            "uid" => choose(&mut demand.uids, test, |v| as_number(v)?.try_into().ok()),
            "cgroup" => choose(&mut demand.cgroups, test, |v| as_number(v)?.try_into().ok()),
            "comm" => choose(&mut demand.comms, test, |v| match v {
                Want::Exact(name) => Some(name.clone()),
                _ => None,
            }),
            _ => {}
        }
    }
}

/// Hands a test over when the kernel can judge it: all its values are plain ones, and nothing was chosen before.
fn choose<T: PartialEq>(choice: &mut Choice<T>, test: &Test, value: impl Fn(&Want) -> Option<T>) {
    let Some(values) = test.values.iter().map(value).collect::<Option<Vec<T>>>() else { return };
    match test.op {
        Op::Is if choice.only.is_empty() => choice.only = values,
        Op::Not => choice.not.extend(values),
        _ => {}
    }
}

fn as_number(value: &Want) -> Option<i128> {
    match value {
        Want::Number(n) => Some(*n),
        _ => None,
    }
}

fn paths(values: &[Want]) -> Paths {
    let mut paths = Paths::default();
    for value in values {
        match value {
            Want::Exact(path) => match path.rsplit_once('/') {
                Some((_, leaf)) if !leaf.is_empty() => paths.leaves.push(leaf.to_owned()),
                _ => paths.prefixes.push(path.clone()),
            },
            Want::Prefix(path) => paths.prefixes.push(path.clone()),
            Want::Suffix(path) => match path.strip_prefix('/') {
                Some(leaf) if !leaf.is_empty() && !leaf.contains('/') => paths.leaves.push(leaf.to_owned()),
                _ => paths.suffixes.push(path.clone()),
            },
            // Only userspace can look inside: the kernel has to send every path.
            Want::Contains(_) | Want::Present | Want::Number(_) => return Paths::default(),
        }
    }
    paths
}
