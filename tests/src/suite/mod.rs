//! The tests, by theme. A test drives the agent by its command line, an actor does something for real, and every field
//! of what the agent says is compared with what the actor knows.

mod account;
mod change;
mod check;
mod cli;
mod connect;
mod container;
mod deed;
mod endpoint;
mod evade;
mod exec;
mod fault;
mod flow;
mod flow_end;
mod flow_fault;
mod flow_help;
mod flow_load;
mod flow_mptcp;
mod flow_net;
mod flow_old;
mod flow_owner;
mod flow_place;
mod flow_table;
mod life;
mod mount;
mod open;
mod path;
mod persist;
mod reach;
mod reload;
mod replay;
mod rules;
mod scope;
mod serve;
mod shells;
mod syscall;
mod trace;

use crate::harness::Test;

/// All tests, in order.
pub fn all() -> impl Iterator<Item = Test> {
    [
        cli::TESTS,
        check::TESTS,
        open::TESTS,
        path::TESTS,
        evade::TESTS,
        change::TESTS,
        mount::TESTS,
        reach::TESTS,
        endpoint::TESTS,
        deed::TESTS,
        connect::TESTS,
        trace::TESTS,
        exec::TESTS,
        life::TESTS,
        container::TESTS,
        syscall::TESTS,
        scope::TESTS,
        rules::TESTS,
        persist::TESTS,
        shells::TESTS,
        account::TESTS,
        flow::TESTS,
        flow_end::TESTS,
        flow_owner::TESTS,
        flow_old::TESTS,
        flow_net::TESTS,
        flow_mptcp::TESTS,
        flow_place::TESTS,
        flow_table::TESTS,
        flow_fault::TESTS,
        flow_load::TESTS,
        serve::TESTS,
        reload::TESTS,
        replay::TESTS,
        fault::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}
