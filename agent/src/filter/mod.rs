//! Which events the user asked to see: `--events` and `--scope`, in Tracee's notation, made into an exact matcher and
//! into what is demanded of the kernel. Knows the event table; no kernel, no engine, no sink.
//!
//! ```text
//! --events  name[,name...]  -name  tag  name.data.<field>OPvalue[,value...]  name.retvalOPvalue  name.scope.<scope>OPvalue
//! --scope   <scope>OPvalue[,value...]  container  not-container
//! ```
//!
//! `OP` is `=`, `!=`, and for numbers `<`, `<=`, `>`, `>=`. A text value may be `x*`, `*x` or `*x*`. Values of one
//! field are alternatives; different fields must all hold. The scope holds for events and rules alike.

pub mod connection;
mod demand;
mod scope;
mod test;

use haechi_ebpf::event::{EVENTS, EventDef, EventId, Field, MAX_EVENTS, by_name, syscall};
use haechi_ebpf::syscall as calls;
use haechi_signatures::model::Event;

use crate::suggest;
pub use scope::docs as scopes;
use test::{Op, Subject, Test};

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither an event, a system call nor a tag.
    #[error("`{name}` is no event, system call or tag{hint}")]
    UnknownEvent {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// The event has no such field.
    #[error("event `{event}` has no field `{field}`{hint}")]
    UnknownField {
        /// The event.
        event: String,
        /// What was asked for.
        field: String,
        /// What may have been meant.
        hint: String,
    },
    /// There is no such scope.
    #[error("`{name}` is no scope{hint}")]
    UnknownScope {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// Not of the form of a filter.
    #[error("`{text}` is no filter: {problem}")]
    Form {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A value that does not fit the field.
    #[error("`{value}` in `{text}` is no number, and `{subject}` is one")]
    Value {
        /// What was given.
        text: String,
        /// The part of it.
        value: String,
        /// What it is compared with.
        subject: String,
    },
}

/// The events and the scope that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    wanted: Vec<Wanted>,
    by_event: Vec<Vec<usize>>,
    scope: Vec<Test>,
}

/// One event that was asked for.
#[derive(Clone, Debug)]
struct Wanted {
    event: EventId,
    syscall: Option<&'static str>,
    tests: Vec<Test>,
}

impl Selection {
    /// Reads what was given to `--events` and to `--scope`.
    ///
    /// # Errors
    /// The first piece that means nothing.
    pub fn parse<S: AsRef<str>>(events: &[S], scope: &[S]) -> Result<Self, Error> {
        let mut selection = Self::default();
        let mut excluded = Vec::new();
        for text in events.iter().map(AsRef::as_ref) {
            if text.contains(['=', '<', '>']) {
                selection.add_filter(text.trim())?;
                continue;
            }
            for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
                match name.strip_prefix('-') {
                    Some(name) => excluded.extend(lookup(name)?),
                    None => lookup(name)?.into_iter().for_each(|w| {
                        selection.add(w);
                    }),
                }
            }
        }
        selection.wanted.retain(|w| !excluded.contains(&(w.event, w.syscall)));
        for text in scope.iter().map(AsRef::as_ref) {
            merge(&mut selection.scope, scope::parse(text.trim())?);
        }
        selection.by_event = vec![Vec::new(); MAX_EVENTS];
        for (i, wanted) in selection.wanted.iter().enumerate() {
            selection.by_event[wanted.event as usize].push(i);
        }
        Ok(selection)
    }

    /// Whether no event was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Events that were asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether it asks for this kind of event, if only for some of them.
    #[must_use]
    pub fn names(&self, event: EventId) -> bool {
        self.wanted.iter().any(|w| w.event == event)
    }

    /// Names of events that it asks for and none of `others` does.
    #[must_use]
    pub fn beyond(&self, others: &[Self]) -> Vec<&'static str> {
        let by = |w: &Wanted, o: &Self| o.wanted.iter().any(|x| (x.event, x.syscall) == (w.event, w.syscall));
        let missing = self.wanted.iter().filter(|w| !others.iter().any(|o| by(w, o)));
        missing.map(|w| w.syscall.or_else(|| Some(haechi_ebpf::event::by_id(w.event)?.name)).unwrap_or("?")).collect()
    }

    /// Whether it looks at the ancestors of a process, which only the process tree knows.
    #[must_use]
    pub fn climbs(&self) -> bool {
        let mut tests = self.wanted.iter().flat_map(|w| &w.tests).chain(&self.scope);
        tests.any(|t| matches!(t.subject, Subject::Scope(scope) if scope.name == "tree"))
    }

    /// Whether the user asked to see this event.
    #[must_use]
    pub fn wants(&self, event: &Event<'_>) -> bool {
        let Some(candidates) = self.by_event.get(event.view.event() as usize) else { return false };
        candidates.iter().any(|i| {
            let wanted = &self.wanted[*i];
            wanted.syscall.is_none_or(|name| name == event.name()) && wanted.tests.iter().all(|t| t.holds(event))
        })
    }

    /// Whether the event lies in the scope that is watched at all.
    #[must_use]
    pub fn in_scope(&self, event: &Event<'_>) -> bool {
        self.scope.iter().all(|t| t.holds(event))
    }

    fn add(&mut self, (event, syscall): (EventId, Option<&'static str>)) -> usize {
        let known = self.wanted.iter().position(|w| w.event == event && w.syscall == syscall);
        known.unwrap_or_else(|| {
            self.wanted.push(Wanted { event, syscall, tests: Vec::new() });
            self.wanted.len() - 1
        })
    }

    fn add_filter(&mut self, text: &str) -> Result<(), Error> {
        let form = |problem| Error::Form { text: text.to_owned(), problem };
        let (path, op, values) = Op::split(text).ok_or_else(|| form("an operator is missing"))?;
        let (name, rest) =
            path.split_once('.').ok_or_else(|| form("write event.data.field, event.retval or event.scope.name"))?;
        let names = lookup(name)?;
        let [key] = names[..] else { return Err(form("a filter belongs to one event, not to a tag")) };
        let def = haechi_ebpf::event::by_id(key.0).ok_or_else(|| form("no such event"))?;
        let subject = match rest.split_once('.') {
            Some(("data" | "args", field)) => data(def, field)?,
            Some(("scope" | "context", name)) => scope::subject(name)?,
            None if matches!(rest, "retval" | "ret") => Subject::Return,
            _ => return Err(form("after the event comes `data.`, `retval` or `scope.`")),
        };
        let test = Test::new(text, subject, op, values)?;
        let index = self.add(key);
        merge(&mut self.wanted[index].tests, test);
        Ok(())
    }
}

/// Alternatives for one subject are one test.
fn merge(tests: &mut Vec<Test>, test: Test) {
    match tests.iter_mut().find(|t| t.joins(&test)) {
        Some(same) => same.values.extend(test.values),
        None => tests.push(test),
    }
}

fn data(def: &'static EventDef, name: &str) -> Result<Subject, Error> {
    let index = def.field(name).ok_or_else(|| Error::UnknownField {
        event: def.name.to_owned(),
        field: name.to_owned(),
        hint: suggest::hint(name, def.fields.iter().map(|f| f.name)),
    })?;
    Ok(Subject::Data(Field(index as u8), &def.fields[index]))
}

/// What a name stands for: an event, the events of a tag, or a system call.
fn lookup(name: &str) -> Result<Vec<(EventId, Option<&'static str>)>, Error> {
    if let Some(def) = by_name(name).filter(|d| d.id != syscall::ID) {
        return Ok(vec![(def.id, None)]);
    }
    if let Some(call) = calls::by_name(name) {
        return Ok(vec![(syscall::ID, Some(call.name))]);
    }
    let all = matches!(name, "*" | "all");
    let tagged: Vec<_> = EVENTS
        .iter()
        .filter(|e| e.id != syscall::ID && (all || e.tags.contains(&name)))
        .map(|e| (e.id, None))
        .collect();
    if !tagged.is_empty() {
        return Ok(tagged);
    }
    let tags = EVENTS.iter().flat_map(|e| e.tags.iter().copied());
    let names = EVENTS.iter().map(|e| e.name).chain(tags).chain(calls::SYSCALLS.iter().map(|c| c.name));
    Err(Error::UnknownEvent { name: name.to_owned(), hint: suggest::hint(name, names) })
}

#[cfg(test)]
mod tests;
