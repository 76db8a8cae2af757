//! Records as messages. An event is its fields as the table has them; no message knows an event by name, but for
//! connections, which are a message of their own.

use haechi_ebpf::event::{Field, FieldDef, FieldType, lost_events, net_flow};
use haechi_ebpf::program::Step as Hook;
use haechi_ebpf::symbol::Symbol;
use haechi_ebpf::wire::{self, View, at};
use haechi_signatures::model::{self, About};
use haechi_signatures::sockaddr::{SockAddr, ip_text};
use serde_json::Value as Json;

use super::wire::proto;
use super::wire::proto::value::Value as Kind;
use crate::render::{self, Context, Happening};
use crate::time::Utc;

/// The word of a gap; `None` for all other records.
pub(super) fn gap(view: &View<'_>, boot: u64) -> Option<proto::Gap> {
    use lost_events::field as f;
    (view.event() == lost_events::ID).then(|| proto::Gap {
        time_unix_nano: Utc::of_boot(view.time(), boot).0,
        event: text(view, f::event),
        reason: text(view, f::reason),
        count: view.number(f::count).unwrap_or_default(),
    })
}

/// What a rule found.
pub(super) fn finding(finding: &model::Finding, boot: u64) -> proto::Finding {
    let about = &finding.about;
    proto::Finding {
        time_unix_nano: Utc::of_boot(finding.time, boot).0,
        signature: about.name.clone(),
        severity: about.severity as i32,
        title: about.title.clone(),
        mitre: Some(mitre(about)),
        target: finding.target.clone(),
        evidence: finding.evidence.iter().map(|(name, value)| fact(name, value)).collect(),
        process: Some(process(&finding.process, boot)),
        ancestors: finding.ancestors.iter().map(|p| process(p, boot)).collect(),
        container: finding.container.as_ref().map(container),
        count: finding.count,
        event: finding.event["eventName"].as_str().unwrap_or_default().to_owned(),
    }
}

/// A rule.
pub(super) fn signature(about: &About) -> proto::Signature {
    proto::Signature {
        name: about.name.clone(),
        id: about.id.clone(),
        version: about.version.clone(),
        title: about.title.clone(),
        description: about.description.clone(),
        remedy: about.remedy.clone(),
        severity: about.severity as i32,
        mitre: Some(mitre(about)),
        tags: about.tags.clone(),
    }
}

fn mitre(about: &About) -> proto::Mitre {
    let model::Mitre { tactic, id, technique } = about.mitre.clone();
    proto::Mitre { tactic, id, technique }
}

fn process(info: &model::ProcessInfo, boot: u64) -> proto::Process {
    proto::Process {
        pid: info.pid,
        start_unix_nano: Utc::of_boot(info.start, boot).0,
        ns_pid: info.ns_pid,
        exe: info.exe.clone(),
        comm: info.comm.clone(),
        uid: info.uid,
        argv: info.argv.clone(),
        cwd: info.cwd.clone(),
        sha256: info.sha256.clone().unwrap_or_default(),
    }
}

fn container(container: &model::Container) -> proto::Container {
    proto::Container {
        id: container.id.clone(),
        runtime: container.runtime.to_owned(),
        pod_uid: container.pod_uid.clone().unwrap_or_default(),
    }
}

/// Who did what a record tells.
fn owner(happening: &Happening, view: &View<'_>, boot: u64) -> proto::Process {
    let (pid, start) = view.process();
    let image = happening.image.as_ref();
    let comm = match (view.comm(), image) {
        ([], Some(image)) => image.comm.as_ref().into(),
        (comm, _) => String::from_utf8_lossy(comm),
    };
    proto::Process {
        pid,
        start_unix_nano: if start == 0 { 0 } else { Utc::of_boot(start, boot).0 },
        ns_pid: Some(view.header_u32(at::NS_TGID)).filter(|n| *n != 0).unwrap_or(happening.ns_pid),
        exe: image.map_or_else(String::new, |i| i.exe.as_ref().to_owned()),
        comm: comm.into_owned(),
        uid: view.header_u32(at::UID),
        ..proto::Process::default()
    }
}

/// Any event.
pub(super) fn event(happening: &Happening, view: &View<'_>, context: &Context) -> proto::Event {
    let fields = view.def().fields.iter().enumerate();
    proto::Event {
        time_unix_nano: Utc::of_boot(view.time(), context.host.boot).0,
        name: happening.name.to_owned(),
        process: Some(owner(happening, view, context.host.boot)),
        tid: view.header_u32(at::TID),
        container: happening.container.as_deref().map(container),
        data: fields.filter_map(|(i, field)| value(view, i, field, &context.env)).collect(),
        result: view.ret(),
        net_namespace: view.header_u32(at::NET_NS),
        cgroup: view.header_u64(at::CGROUP),
        hook: view.step().map(Hook::name).unwrap_or_default().to_owned(),
    }
}

fn value(view: &View<'_>, index: usize, field: &FieldDef, env: &[String]) -> Option<proto::Value> {
    let spelled = |n: u64| if field.symbol == Symbol::None { String::new() } else { field.symbol.of(n).to_string() };
    let value = view.value(index)?;
    let (kind, spelled) = match value {
        wire::Value::Int(n) => (Kind::Int(n), spelled(n as u64)),
        wire::Value::Uint(n) => (Kind::Uint(n), spelled(n)),
        wire::Value::Bool(b) => (Kind::Truth(b), String::new()),
        wire::Value::Text(text) => {
            let kind = match field.ty {
                FieldType::StrArray => {
                    let all = text.strings().map(String::from_utf8_lossy).map(std::borrow::Cow::into_owned);
                    let shown = |s: &String| field.name != "env" || render::shown(env, s);
                    Kind::Texts(proto::Texts { texts: all.filter(shown).collect() })
                }
                FieldType::Bytes => Kind::Bytes(text.bytes.to_vec()),
                FieldType::Ip => Kind::Text(ip_text(text.bytes)),
                FieldType::SockAddr => Kind::Text(SockAddr::parse(text.bytes)?.to_string()),
                _ => Kind::Text(String::from_utf8_lossy(text.bytes).into_owned()),
            };
            (kind, String::new())
        }
    };
    let marks = view.text(Field(index as u8));
    Some(proto::Value {
        name: field.name.to_owned(),
        value: Some(kind),
        spelled,
        truncated: marks.is_some_and(|t| t.truncated),
        from_user: marks.is_some_and(|t| t.from_user),
    })
}

/// A fact of a rule.
fn fact(name: &str, value: &Json) -> proto::Value {
    let kind = match value {
        Json::Bool(b) => Kind::Truth(*b),
        Json::Number(n) if n.is_u64() => Kind::Uint(n.as_u64().unwrap_or_default()),
        Json::Number(n) if n.is_i64() => Kind::Int(n.as_i64().unwrap_or_default()),
        Json::String(text) => Kind::Text(text.clone()),
        Json::Array(items) if items.iter().all(Json::is_string) => {
            let texts = items.iter().filter_map(Json::as_str).map(str::to_owned).collect();
            Kind::Texts(proto::Texts { texts })
        }
        other => Kind::Text(other.to_string()),
    };
    proto::Value { name: name.to_owned(), value: Some(kind), ..proto::Value::default() }
}

/// A connection.
pub(super) fn flow(happening: &Happening, view: &View<'_>, boot: u64) -> proto::Flow {
    use net_flow::field as f;
    let number = |field| view.number(field).unwrap_or_default();
    let spelled = |field: Field| match view.number(field) {
        Some(n) => view.def().fields[field.0 as usize].symbol.of(n).to_string(),
        None => String::new(),
    };
    let end = |ip, port| {
        let ip = view.text(ip).map(|t| ip_text(t.bytes)).unwrap_or_default();
        Some(proto::Endpoint { ip, port: number(port) as u32 })
    };
    proto::Flow {
        time_unix_nano: Utc::of_boot(view.time(), boot).0,
        cookie: number(f::cookie),
        start_unix_nano: view.number(f::start_time).map_or(0, |start| Utc::of_boot(start, boot).0),
        phase: spelled(f::phase),
        direction: spelled(f::direction),
        local: end(f::src, f::src_port),
        remote: end(f::dst, f::dst_port),
        state: spelled(f::state),
        reason: spelled(f::reason),
        error: if number(f::error) == 0 { String::new() } else { spelled(f::error) },
        marks: if number(f::marks) == 0 { String::new() } else { spelled(f::marks) },
        tx_bytes: number(f::tx_bytes),
        rx_bytes: number(f::rx_bytes),
        tx_segments: number(f::tx_segments),
        rx_segments: number(f::rx_segments),
        retransmits: number(f::retransmits),
        lost_segments: number(f::lost),
        srtt_micros: number(f::srtt),
        min_rtt_micros: number(f::min_rtt),
        connect_nanos: number(f::connect_latency),
        process: Some(owner(happening, view, boot)),
        container: happening.container.as_deref().map(container),
        net_namespace: view.header_u32(at::NET_NS),
        group: view.number(f::group),
    }
}

fn text(view: &View<'_>, field: Field) -> String {
    view.text(field).map(|t| String::from_utf8_lossy(t.bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use haechi_signatures::model::Event;
    use haechi_signatures::record::Builder;

    use super::*;
    use crate::render::example;
    use crate::testing::{BOOT, Who, opened};

    #[test]
    fn an_event_is_its_fields() {
        let record = opened(5, Who(7, 2, 1), "/etc/passwd");
        let view = View::parse(&record).expect("a record");
        let happening = Happening::of(&Event::join(view, &()));
        let context =
            Context { host: haechi_signatures::flat::Host { boot: BOOT, ..Default::default() }, ..Default::default() };
        let got = event(&happening, &view, &context);
        assert_eq!((got.time_unix_nano, got.name.as_str(), got.result), (BOOT + 5, "security_file_open", Some(0)));
        let who = got.process.expect("a process");
        assert_eq!((who.pid, who.start_unix_nano, who.uid, who.comm.as_str()), (7, BOOT + 2, 1000, "reader"));
        let path = got.data.iter().find(|v| v.name == "pathname").expect("a path");
        assert_eq!(path.value, Some(Kind::Text("/etc/passwd".into())));
        let flags = got.data.iter().find(|v| v.name == "flags").expect("flags");
        assert_eq!(flags.spelled, "O_RDONLY");
    }

    #[test]
    fn a_connection_is_spelled_as_in_lines() {
        use net_flow::field as f;
        let record = Builder::new(&net_flow::DEF)
            .time(9)
            .process(42, 3, 1)
            .text(f::src, [10, 0, 0, 1])
            .number(f::src_port, 4000)
            .number(f::direction, 1)
            .number(f::tx_bytes, 77)
            .finish();
        let view = View::parse(&record).expect("a record");
        let got = flow(&Happening::of(&Event::join(view, &())), &view, BOOT);
        assert_eq!((got.direction.as_str(), got.tx_bytes, got.group), ("outgoing", 77, None));
        assert_eq!(got.local, Some(proto::Endpoint { ip: "10.0.0.1".into(), port: 4000 }));
    }

    #[test]
    fn a_finding_and_a_gap_keep_their_numbers() {
        let example = example();
        let got = finding(&example, BOOT);
        assert_eq!((got.signature, got.count), (example.about.name.clone(), example.count));
        assert_eq!(got.evidence.len(), example.evidence.len());
        let Some(render::Item::Event(lost)) = render::Item::gap("ptrace", "queue", 3, 1) else { panic!("no gap") };
        let word = gap(&lost.view().expect("a record"), BOOT).expect("a gap");
        assert_eq!((word.event.as_str(), word.reason.as_str(), word.count), ("ptrace", "queue", 3));
    }
}
