//! The configuration: every key, and every way to get one wrong.

use haechi_signatures::exceptions::Exception;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("haechi.yaml", text).map_err(|e| e.to_string())
}

#[test]
fn the_defaults_are_read_back_as_they_are_shown() {
    let config = Config::default();
    assert_eq!(parse(&config.show()), Ok(config));
    assert_eq!(parse(""), Ok(Config::default()));
    assert_eq!(parse("# nothing\nrules:\n"), Ok(Config::default()));
}

#[test]
fn every_key_is_read_and_shown() {
    let text = r#"
events: [memfd_create, "security_file_open.data.pathname=/etc/*"]
scope: ["uid=0"]
sinks:
  - type: stdout
  - {type: file, path: "/var/log/a b.json", format: pretty}
log: debug
rules:
  builtin: false
  dirs: [/a, /b]
  disabled: [x]
  allow:
    r: ["/opt/*"]
  exceptions:
    - {rule: r, exe: /usr/bin/gdb, uid: 7}
    - rule: s
      container: "*"
      path: /x
      parent: /bin/sh
  dedup_window: 5
kernel:
  critical_ring_bytes: 65_536
  bulk_ring_bytes: 131072
  flow_ring_bytes: 262144
  env: []
  without: [lsm, kprobe]
  debug_log: true
flows: {enabled: false, poll_seconds: 3, metric_names: 4}
serve: {enabled: true, address: "tcp:[::1]:4466", events: [ptrace], ring_bytes: 65536, flow_ring_bytes: 65536, watchers: 1}
enrich: {executable_hash: false, decoded_data: false}
limits: {processes: 100, connections: 200, queue_bytes: 100_000, sink_queue: 3, rule_instructions: 1000, rule_milliseconds: 4, rule_failures: 5, rule_aside_seconds: 6}
"#;
    let config = parse(text).expect("all is well");
    let default = Config::default();
    for key in KEYS {
        assert_ne!((key.show)(&config), (key.show)(&default), "{} was not set", key.path);
    }
    assert_eq!(parse(&config.show()), Ok(config.clone()));
    assert_eq!(config.sinks[1].path.as_deref(), Some(Path::new("/var/log/a b.json")));
    assert_eq!(config.without, [Step::Lsm, Step::Kprobe]);
    let gdb = Exception { exe: Some("/usr/bin/gdb".into()), uid: Some(7), ..Exception::default() };
    assert_eq!(config.rules.rules["r"].exceptions, [gdb]);
    assert_eq!(config.kernel(Vec::new()).env_bytes, 0);
    assert!(!config.options().rules.builtin);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, want) in [
        ("\n\noutptu: 1", "unknown key `outptu` at haechi.yaml:3"),
        ("sniks: []", "unknown key `sniks` at haechi.yaml:1; did you mean `sinks`?"),
        ("rules:\n  dir: [/x]", "unknown key `rules.dir` at haechi.yaml:2; did you mean `dirs`?"),
        ("processes: 5", "unknown key `processes` at haechi.yaml:1; did you mean `limits.processes`?"),
        ("rules: [x]", "expected a map, found a list at haechi.yaml:1"),
        ("limits:\n  processes: many", "`limits.processes`: expected a whole number, found a text at haechi.yaml:2"),
        ("limits:\n  processes: \"5\"", "`limits.processes`: expected a number, found a text at haechi.yaml:2"),
        ("limits:\n  processes: 1", "`limits.processes`: 1 is out of range: 16 to 16777216 at haechi.yaml:2"),
        ("kernel:\n  debug_log: yes", "`kernel.debug_log`: expected true or false, found a text at haechi.yaml:2"),
        ("kernel:\n  bulk_ring_bytes: 100000", "`kernel.bulk_ring_bytes`: 100000 is no power of two at haechi.yaml:2"),
        ("kernel:\n  without:\n    - lms", "`lms` is none of"),
        ("log: lod", "is none of error, warn, info, debug, trace"),
        ("sinks:\n  - tpye: stdout", "`sinks`: unknown key `tpye`; did you mean `type`? at haechi.yaml:2"),
        ("sinks:\n  - type: file", "`sinks`: sink `file` needs a `path` at haechi.yaml:2"),
        ("sinks:\n  - format: json", "`sinks`: `type` is missing at haechi.yaml:2"),
        ("rules:\n  exceptions:\n  - rule: x", "would silence the rule"),
        ("rules:\n  exceptions:\n  - exe: x", "`rule` is missing at haechi.yaml:3"),
        ("log: info\nlog: warn", "`log` was already set on line 1 at haechi.yaml:2"),
        ("log: &a info", "anchors (`&name`) are not supported at haechi.yaml:1"),
        ("log: *a", "haechi.yaml:1"),
        ("log: !!str info", "tags (`!name`) are not supported at haechi.yaml:1"),
        ("log: info\n---\nlog: warn", "a second document at haechi.yaml:3"),
        ("[a, b]: c", "a key must be a word at haechi.yaml:1"),
        ("log: [info", "haechi.yaml:"),
        ("events:\n\t- x", "haechi.yaml:2"),
        (&"[".repeat(40), "this is nested too deeply at haechi.yaml:1"),
        (&"[".repeat(100_000), "at haechi.yaml:1"),
    ] {
        let short: String = text.chars().take(60).collect();
        let error = parse(text).expect_err(&short);
        assert!(error.contains(want), "{short}\n  {error}\n  {want}");
    }
}
