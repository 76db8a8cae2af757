//! Filters: what they match, what they demand of the kernel, how they are refused.

use haechi_ebpf::event::{
    memfd_create, ptrace, sched_process_exit as exit, security_file_open as open, security_socket_connect as connect,
};
use haechi_ebpf::wire::{View, at, var};
use haechi_signatures::demand::{Demand, Paths};
use haechi_signatures::record::Builder;
use serde_json::json;

use super::*;
use crate::testing::{Who, of, opened};

const WHO: Who = Who(11, 200, 2);

fn events(filters: &[&str]) -> Selection {
    Selection::parse(filters, &[]).expect("valid")
}

fn wants(selection: &Selection, record: &[u8]) -> bool {
    selection.wants(&Event::join(View::parse(record).expect("a record"), &()))
}

fn error(events: &[&str], scope: &[&str]) -> String {
    Selection::parse(events, scope).expect_err("invalid").to_string()
}

#[test]
fn paths_match_whole_or_by_their_ends_or_inside() {
    for (filter, path, want) in [
        ("=/etc/shadow", "/etc/shadow", true),
        ("=/etc/shadow", "/etc/shadow-", false),
        ("=/etc/*", "/etc/shadow", true),
        ("=*shadow", "/etc/shadow", true),
        ("=*/ssh/*", "/etc/ssh/key", true),
        ("=*/ssh/*", "/etc/shadow", false),
        ("=/a,/b", "/b", true),
        ("!=/a,/b", "/b", false),
        ("!=/a*", "/b", true),
        ("=*", "/b", true),
    ] {
        let selection = events(&[&format!("security_file_open.data.pathname{filter}")]);
        assert_eq!(wants(&selection, &opened(1, WHO, path)), want, "{filter} {path}");
    }
}

#[test]
fn numbers_compare_and_spelled_ones_are_spelled() {
    let record = of(&ptrace::DEF, 1, WHO, "gdb").number(ptrace::field::request, 4).ret(-1).finish();
    for (filter, want) in [
        ("ptrace", true),
        ("ptrace.data.request=4", true),
        ("ptrace.args.request=PTRACE_POKETEXT", true),
        ("ptrace.data.request=PTRACE_PEEK*,PTRACE_POKE*", true),
        ("ptrace.data.request!=PTRACE_POKETEXT", false),
        ("ptrace.retval<0", true),
        ("ptrace.retval>=0", false),
        ("ptrace.retval=-1", true),
        ("ptrace.scope.comm=gdb", true),
        ("ptrace.scope.processName=strace", false),
        ("ptrace.scope.hostPid=11", true),
        ("ptrace.data.pid=5", false),
        ("memfd_create", false),
    ] {
        assert_eq!(wants(&events(&[filter]), &record), want, "{filter}");
    }
    let addr = Builder::new(&connect::DEF).named("remote_addr", &json!("127.0.0.1:80")).expect("fits").finish();
    assert!(wants(&events(&["security_socket_connect.data.remote_addr=127.0.0.1:*"]), &addr));
}

#[test]
fn a_truth_is_a_word_or_a_digit() {
    let last = |yes: u64| of(&exit::DEF, 1, WHO, "x").number(exit::field::process_group_exit, yes).finish();
    for (filter, yes) in [("=true", 1), ("=1", 1), ("!=0", 1), ("=false", 0), ("=0", 0), ("!=true", 0)] {
        let selection = events(&[&format!("sched_process_exit.data.process_group_exit{filter}")]);
        assert!(wants(&selection, &last(yes)) && !wants(&selection, &last(1 - yes)), "{filter}");
    }
}

#[test]
fn different_fields_must_all_hold_and_values_of_one_are_alternatives() {
    let selection = events(&[
        "security_file_open.data.pathname=/a",
        "security_file_open.data.pathname=/b",
        "security_file_open.scope.uid=1000",
    ]);
    assert!(wants(&selection, &opened(1, WHO, "/a")) && wants(&selection, &opened(1, WHO, "/b")));
    let root = of(&open::DEF, 1, WHO, "x").header_u32(at::UID, 0).text(open::field::pathname, "/a").finish();
    assert!(!wants(&selection, &root));
}

#[test]
fn a_path_as_a_process_wrote_it_is_seen_through() {
    let selection = events(&["security_file_open.data.pathname=/etc/shadow"]);
    let written = of(&open::DEF, 1, WHO, "x");
    let record = written.clone().marked(open::field::pathname, "/etc//x/../shadow", 17, var::USER).finish();
    assert!(wants(&selection, &record));
    // Where the kernel's path could not be had, the one that was written stands in.
    let record = written.marked(open::field::syscall_pathname, "/etc/./shadow", 13, var::USER).finish();
    assert!(wants(&selection, &record));
}

#[test]
fn system_calls_tags_and_exclusions_have_names() {
    let demands = events(&["getppid,execve"]).demands();
    assert_eq!(
        demands.iter().map(|d| (d.event, d.syscall)).collect::<Vec<_>>(),
        [(syscall::ID, Some("getppid")), (syscall::ID, Some("execve")),]
    );
    let call = of(&syscall::DEF, 1, WHO, "x").number(syscall::field::nr, 110).finish();
    if cfg!(target_arch = "x86_64") {
        assert!(wants(&events(&["getppid"]), &call) && !wants(&events(&["getpid"]), &call));
    }
    // An event that has a call's name is the event.
    assert_eq!(events(&["ptrace"]).demands(), [Demand::of(ptrace::ID)]);
    let fs: Vec<_> = events(&["fs", "-memfd_create"]).demands().iter().map(|d| d.event).collect();
    assert!(fs.contains(&open::ID) && !fs.contains(&memfd_create::ID));
    assert!(events(&[]).is_empty());
}

#[test]
fn the_kernel_gets_what_it_can_judge() {
    let paths = |filter: &str| events(&[filter]).demands()[0].paths.clone();
    let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        paths("security_file_open.data.pathname=/etc/shadow,/root/*,*.key,*/id_rsa"),
        Paths { leaves: list(&["shadow", "id_rsa"]), prefixes: list(&["/root/"]), suffixes: list(&[".key"]) }
    );
    assert!(paths("security_file_open.data.pathname=/etc/shadow,*ssh*").is_any(), "contains is ours alone");
    assert!(paths("security_file_open.data.pathname!=/etc/shadow").is_any());

    let selection =
        Selection::parse(&["memfd_create"], &["uid=0,1", "comm!=bash", "comm=a*", "cgroup=7"]).expect("valid");
    let demand = &selection.demands()[0];
    assert_eq!(demand.uids.only, [0, 1]);
    assert_eq!((list(&["bash"]), demand.comms.only.len()), (demand.comms.not.clone(), 0));
    assert_eq!(demand.cgroups.only, [7]);
    // What chose for itself keeps its choice.
    let own = events(&["memfd_create.scope.uid=5"]).demands().remove(0);
    assert_eq!(selection.narrow(own).uids.only, [5]);
}

#[test]
fn what_means_nothing_is_named() {
    for (filter, want) in [
        (
            "security_file_opne",
            "`security_file_opne` is no event, system call or tag; did you mean `security_file_open`?",
        ),
        ("ptrace.data.requets=1", "event `ptrace` has no field `requets`; did you mean `request`?"),
        ("ptrace.scope.udi=1", "`udi` is no scope; did you mean `uid`?"),
        ("ptrace.data.pid=x", "`x` in `ptrace.data.pid=x` is no number, and `data.pid` is one"),
        ("ptrace.data.request>PTRACE_X", "is no number"),
        ("ptrace.retval=", "a value is missing"),
        ("ptrace=1", "write event.data.field, event.retval or event.scope.name"),
        ("ptrace.datum.pid=1", "after the event comes"),
        ("sched_process_exit.data.process_group_exit=yes", "this field is true or false"),
        ("sched_process_exit.data.process_group_exit<1", "this is compared with = and != only"),
        ("fs.data.pathname=/x", "a filter belongs to one event, not to a tag"),
        ("security_file_open.data.pathname<5", "this is compared with = and != only"),
    ] {
        let got = error(&[filter], &[]);
        assert!(got.contains(want), "{filter}: {got}");
    }
    assert!(error(&[], &["uid"]).contains("a scope needs a value"));
    assert!(error(&[], &["usr=1"]).contains("no scope"));
}

#[test]
fn every_scope_is_documented_and_understood() {
    for (name, doc) in scopes() {
        assert!(!doc.is_empty());
        Selection::parse::<&str>(&[], &[&format!("{name}=1")]).expect(name);
    }
}
