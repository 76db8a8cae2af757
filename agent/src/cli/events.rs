//! `haechi events`.

use std::fmt::Write;

use haechi_ebpf::event::{EVENTS, EventDef};
use serde_json::json;

use super::{Failure, print};

/// What `events` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these.
    names: Vec<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let known = |name: &String| EVENTS.iter().any(|e| e.name == *name);
    if let Some(name) = args.names.iter().find(|n| !known(n)) {
        let hint = crate::suggest::hint(name, EVENTS.iter().map(|e| e.name));
        return Err(Failure::wrong(format!("there is no event `{name}`{hint}")));
    }
    let chosen = EVENTS.iter().filter(|e| args.names.is_empty() || args.names.iter().any(|n| n == e.name));
    if args.json {
        let all: Vec<_> = chosen.map(as_json).collect();
        return print(&format!("{:#}\n", serde_json::Value::from(all)));
    }
    let mut out = String::new();
    for event in chosen {
        // A string takes everything.
        let _ = writeln!(out, "{}  [{}]\n    {}", event.name, event.tags.join(", "), event.doc.trim());
        for field in event.fields {
            let _ = writeln!(out, "    {:<24} {:<17} {}", field.name, field.ty.c_name(), field.doc);
        }
        out.push('\n');
    }
    if args.names.is_empty() {
        out.push_str("Any system call can be asked for by its name too, as in --events getppid.\n");
    }
    print(&out)
}

fn as_json(event: &EventDef) -> serde_json::Value {
    let fields: Vec<_> =
        event.fields.iter().map(|f| json!({"name": f.name, "type": f.ty.c_name(), "doc": f.doc})).collect();
    json!({"name": event.name, "tags": event.tags, "doc": event.doc.trim(), "fields": fields})
}
