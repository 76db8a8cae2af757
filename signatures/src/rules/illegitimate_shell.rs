//! TRC-1016: a web server became, or started, a shell.

use haechi_ebpf::event::sched_process_exec as exec;
use serde_json::json;

use super::known::is_shell;
use super::plain::Plain;
use crate::demand::Demand;
use crate::model::{Event, Severity};
use crate::path::leaf;
use crate::rule::{AboutDef, Emit};

const ABOUT: AboutDef = AboutDef {
    id: "TRC-1016",
    name: "illegitimate_shell",
    version: "1",
    title: "A web server started a shell",
    description: "A web server (nginx, Apache, lighttpd, Tomcat) ran a shell. None of them needs one to serve \
                  pages: it is what a web shell or an exploit does first.",
    remedy: "Look at what the shell ran and at the server's log at that time: the request that made it do so is \
             there. If an application of yours needs a shell, add an exception for the server with the path of \
             the shell's parent.",
    severity: Severity::Medium,
    mitre: ("Initial Access", "T1190", "Exploit Public-Facing Application"),
    tags: &["linux", "container"],
    excuses: &[],
};

/// Names of the threads of web servers, as the kernel cuts them.
const SERVERS: &[&str] =
    &["nginx", "httpd", "httpd-foregroun", "http-nio", "lighttpd", "apache", "apache2", "caddy", "openresty"];

pub(super) fn new() -> Plain {
    Plain::new(&ABOUT, demands, look)
}

fn demands() -> Vec<Demand> {
    vec![Demand::of(exec::ID)]
}

fn look(event: &Event<'_>, emit: &mut Emit) {
    let Some(before) = event.str(exec::field::prev_comm) else { return };
    // Threads of Tomcat are numbered: http-nio-8080-e.
    if !SERVERS.contains(&before) && !before.starts_with("http-nio-") {
        return;
    }
    let (Some(path), called) = (event.str(exec::field::pathname), event.str(exec::field::cmdpath)) else { return };
    // A script is known by its own name: a CGI script in shell is what the server was set up to run.
    let script = called.zip(event.str(exec::field::interp)).is_some_and(|(called, interp)| called != interp);
    if is_shell(path) && !script || called.is_some_and(is_shell) {
        let argv = event.text(exec::field::argv).map(|a| a.strings().map(String::from_utf8_lossy).collect::<Vec<_>>());
        emit.fire(leaf(path), [("server", json!(before)), ("shell", json!(path)), ("argv", json!(argv))]);
    }
}
