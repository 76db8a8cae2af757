//! One readable line each: when, how bad, what rule, who, what it touched, why. Everything that comes from those we
//! watch is made harmless for terminals.

use std::fmt::{self, Write};

use haechi_ebpf::event::{Field, FieldType, lost_events};
use haechi_ebpf::symbol::Symbol;
use haechi_ebpf::wire::{Value, View, at, flag};
use haechi_signatures::model::{Container, Finding, ProcessInfo, Severity};
use haechi_signatures::sockaddr::{SockAddr, ip_text};
use serde_json::Value as Json;

use super::{Context, Happening, Item};
use crate::escape::Safe;
use crate::flows::{Place, Tenant};
use crate::time::Utc;

/// Fields that say little to people; JSON has them.
const QUIET: &[&str] = &["env", "ctime", "inode", "dev", "interpreter_dev", "interpreter_inode", "interpreter_ctime"];

/// Writes `item` as one line, with its newline.
pub fn write(item: &Item, context: &Context, out: &mut Vec<u8>) {
    let mut line = String::with_capacity(200);
    // A string takes everything.
    let _ = match item {
        Item::Finding(finding) => finding_line(finding, context, &mut line),
        Item::Event(happening) => event_line(happening, context, &mut line),
    };
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

fn finding_line(finding: &Finding, context: &Context, line: &mut String) -> fmt::Result {
    let about = &finding.about;
    let clock = Utc::of_boot(finding.time, context.host.boot).clock();
    let severity = about.severity.name().to_uppercase();
    let paint = Paint(context.colour);
    write!(line, "{}  {}{severity:<8}{}  ", clock, paint.severity(about.severity), paint.off())?;
    write!(line, "{}{}{}  ", paint.bold(), Safe(&about.name), paint.off())?;
    let parent = finding.ancestors.first().map(shown);
    who(line, shown(&finding.process), finding.process.pid, finding.process.uid, parent, finding.container.as_ref())?;
    if !finding.target.is_empty() {
        write!(line, "  {}", Safe(&finding.target))?;
    }
    write!(line, "  {}", Safe(&about.title))?;
    let facts = finding.evidence.iter().filter(|(_, v)| v.as_str() != Some(&finding.target));
    for (i, (key, value)) in facts.enumerate() {
        write!(line, "{}{}={}", if i == 0 { ": " } else { ", " }, Safe(key), Fact(value))?;
    }
    if !about.mitre.id.is_empty() {
        write!(line, "  [{}]", Safe(&about.mitre.id))?;
    }
    if finding.count > 1 {
        write!(line, "  x{}", finding.count)?;
    }
    Ok(())
}

fn event_line(happening: &Happening, context: &Context, line: &mut String) -> fmt::Result {
    let Some(view) = happening.view() else { return Ok(()) };
    write!(line, "{}  ", Utc::of_boot(view.time(), context.host.boot).clock())?;
    if view.event() == lost_events::ID {
        return gap(&view, context, line);
    }
    write!(line, "{:<24}  ", happening.name)?;
    let exe = happening.image.as_ref().map_or("", |i| &i.exe);
    let comm = String::from_utf8_lossy(view.comm());
    let name = if exe.is_empty() { &*comm } else { exe };
    who(line, name, view.process().0, view.header_u32(at::UID), None, happening.container.as_deref())?;
    line.push(' ');
    for (i, field) in view.def().fields.iter().enumerate().filter(|(_, f)| !QUIET.contains(&f.name)) {
        if let Some(value) = view.value(i) {
            write!(line, " {}=", field.name)?;
            field_value(line, field.symbol, field.ty, value)?;
            if view.text(Field(i as u8)).is_some_and(|t| t.from_user) {
                line.push_str("(as written)");
            }
        }
    }
    if let Some(ret) = view.ret() {
        write!(line, " ret={ret}")?;
    }
    if let Some(place) = happening.place.as_deref() {
        around(line, place)?;
    }
    for (bit, mark) in [(flag::COMPAT, " 32-bit"), (flag::X32, " x32"), (flag::IO_URING, " io_uring")] {
        if view.flags() & bit != 0 {
            line.push_str(mark);
        }
    }
    Ok(())
}

/// Where a connection is, as far as its process does not say it, and who is at its other end.
fn around(line: &mut String, place: &Place) -> fmt::Result {
    if let Some(container) = place.tenant.as_ref().and_then(Tenant::container) {
        write!(line, " network_of={}", Safe(container.short_id()))?;
    }
    if let Some(peer) = &place.peer {
        write!(line, " peer={}", Safe(peer.text()))?;
        if let Some(process) = &peer.process {
            write!(line, "(pid {})", process.process.pid)?;
        }
    }
    Ok(())
}

fn gap(view: &View<'_>, context: &Context, line: &mut String) -> fmt::Result {
    use lost_events::field;
    let text = |f| view.text(f).map(|t| String::from_utf8_lossy(t.bytes)).unwrap_or_default();
    let paint = Paint(context.colour);
    let count = view.number(field::count).unwrap_or_default();
    let (event, reason) = (text(field::event), text(field::reason));
    write!(
        line,
        "{}GAP{}       {count} records of {} lost here: {}",
        paint.severity(Severity::High),
        paint.off(),
        Safe(&event),
        Safe(&reason)
    )
}

fn who(
    line: &mut String,
    name: &str,
    pid: u32,
    uid: u32,
    parent: Option<&str>,
    container: Option<&Container>,
) -> fmt::Result {
    write!(line, "{} (pid {pid}, ", Safe(name))?;
    // Names of users differ from host to host; this number alone means the same everywhere.
    if uid == 0 {
        line.push_str("root");
    } else {
        write!(line, "uid {uid}")?;
    }
    if let Some(parent) = parent.filter(|p| !p.is_empty()) {
        write!(line, ", by {}", Safe(parent))?;
    }
    if let Some(container) = container {
        write!(line, ", container {}", Safe(container.short_id()))?;
    }
    line.push(')');
    Ok(())
}

fn shown(info: &ProcessInfo) -> &str {
    if info.exe.is_empty() { &info.comm } else { &info.exe }
}

fn field_value(line: &mut String, symbol: Symbol, ty: FieldType, value: Value<'_>) -> fmt::Result {
    match value {
        Value::Int(n) if symbol == Symbol::None => write!(line, "{n}"),
        Value::Int(n) => symbol.write(n as u64, line),
        Value::Uint(n) if ty == FieldType::Pointer => write!(line, "{n:#x}"),
        Value::Uint(n) => symbol.write(n, line),
        Value::Bool(b) => write!(line, "{b}"),
        Value::Text(text) => {
            match ty {
                FieldType::StrArray => {
                    line.push('[');
                    for (i, s) in text.strings().enumerate() {
                        write!(line, "{}{}", if i == 0 { "" } else { " " }, Safe(&String::from_utf8_lossy(s)))?;
                    }
                    line.push(']');
                }
                FieldType::Ip => line.push_str(&ip_text(text.bytes)),
                FieldType::SockAddr => {
                    let address = SockAddr::parse(text.bytes).map(|a| a.to_string()).unwrap_or_default();
                    write!(line, "{}", Safe(&address))?;
                }
                _ => write!(line, "{}", Safe(&String::from_utf8_lossy(text.bytes)))?,
            }
            if text.truncated { write!(line, "...({} bytes)", text.true_len) } else { Ok(()) }
        }
    }
}

/// A fact of a rule; text without quotes.
struct Fact<'a>(&'a Json);

impl fmt::Display for Fact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Json::String(text) => Safe(text).fmt(f),
            Json::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { " " }, Fact(item))?;
                }
                Ok(())
            }
            other => Safe(&other.to_string()).fmt(f),
        }
    }
}

/// Colours, or nothing.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    const fn severity(self, severity: Severity) -> &'static str {
        match (self.0, severity) {
            (false, _) => "",
            (true, Severity::Critical) => "\u{1b}[1;97;41m",
            (true, Severity::High) => "\u{1b}[1;31m",
            (true, Severity::Medium) => "\u{1b}[33m",
            (true, Severity::Low) => "\u{1b}[36m",
            (true, Severity::Info) => "\u{1b}[2m",
        }
    }

    const fn bold(self) -> &'static str {
        if self.0 { "\u{1b}[1m" } else { "" }
    }

    const fn off(self) -> &'static str {
        if self.0 { "\u{1b}[0m" } else { "" }
    }
}
