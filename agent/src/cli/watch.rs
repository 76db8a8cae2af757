//! `haechi watch`: what an agent that runs here finds and sees, as the lines that it prints itself.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;
use haechi_signatures::model::Severity;

use super::{FAILED, Failure, OrFail, OutputFormat, WRONG, colour, flows};
use crate::servers::address::Address;
use crate::servers::client::{Error, Request, Watch};
use crate::servers::wire::Step;
use crate::servers::wire::proto::{Form, Position, WatchEventsRequest, WatchFindingsRequest, WatchFlowsRequest};

/// What `watch` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Form of the lines.
    #[arg(short, long, value_name = "FORMAT", default_value = "pretty", global = true)]
    output: OutputFormat,
    /// Begin with this record instead of with the next one: a number (0 is the oldest that is still there), or what the
    /// last watch ended with.
    #[arg(long, value_name = "[RUN:]NUMBER", value_parser = position, global = true)]
    since: Option<Position>,
    /// Where the agent serves [default: as `--config` says, or unix:/run/haechi/haechi.sock].
    #[arg(long, value_name = "ADDRESS", global = true)]
    server: Option<Address>,
    /// The configuration that the agent has.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// What rules find (the default).
    Findings(Findings),
    /// Events that the agent shows or serves.
    Events(Events),
    /// Connections: how they stand, and how they ended.
    Flows(flows::Wanted),
}

#[derive(Clone, Debug, Default, clap::Args)]
struct Findings {
    /// Only of this rule; the name may end in `*`; may be given again.
    #[arg(long, value_name = "RULE")]
    signature: Vec<String>,
    /// Only as bad as this or worse.
    #[arg(long, value_name = "SEVERITY", default_value = "info", value_parser = Severity::ALL.map(Severity::name))]
    severity: String,
    /// Only of this container: its id or the beginning of it.
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
struct Events {
    /// Only these, of those that are served: names, tags, -name, or name.data.field=value; may be given again.
    #[arg(short, long, value_name = "EVENTS", allow_hyphen_values = true)]
    events: Vec<String>,
    /// Only these: uid=0, comm=x, container, ...; may be given again.
    #[arg(short, long, value_name = "SCOPE")]
    scope: Vec<String>,
}

fn position(text: &str) -> Result<Position, String> {
    let (instance, number) = text.rsplit_once(':').unwrap_or(("", text));
    let next = number.parse().map_err(|_source| format!("`{number}` is no number"))?;
    Ok(Position { instance: instance.to_owned(), next })
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let settings = super::Settings { config: args.config.clone(), ..super::Settings::default() };
    let address = match &args.server {
        Some(address) => address.clone(),
        None => settings.load()?.server.address,
    };
    let form = match (args.output, colour()) {
        (OutputFormat::Json, _) => Form::Json,
        (OutputFormat::Pretty, true) => Form::Colour,
        (OutputFormat::Pretty, false) => Form::Pretty,
    };
    let request = request(args, form as i32);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail(FAILED)?;
    let mut reader = Reader::default();
    let result = runtime.block_on(async {
        tokio::select! {
            result = reader.read(&address, request) => result,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    reader.say_where();
    result
}

fn request(args: &Args, form: i32) -> Request {
    let since = args.since.clone();
    match args.what.clone().unwrap_or_else(|| What::Findings(Findings::default())) {
        What::Findings(Findings { signature, severity, container }) => {
            let severity = Severity::ALL.into_iter().find(|s| s.name() == severity).unwrap_or(Severity::Info) as i32;
            let container = container.unwrap_or_default();
            Request::Findings(WatchFindingsRequest { since, form, signatures: signature, severity, container })
        }
        What::Events(Events { events, scope }) => Request::Events(WatchEventsRequest { since, form, events, scope }),
        What::Flows(wanted) => {
            let words = wanted.words();
            Request::Flows(WatchFlowsRequest {
                since,
                form,
                processes: words.processes,
                addresses: words.addresses,
                ports: words.ports.into_iter().map(u32::from).collect(),
                direction: words.direction.unwrap_or_default(),
                states: words.states,
                containers: words.containers,
                net_namespaces: words.netns,
            })
        }
    }
}

/// What was read.
#[derive(Default)]
struct Reader {
    instance: String,
    next: u64,
}

impl Reader {
    async fn read(&mut self, address: &Address, request: Request) -> Result<(), Failure> {
        let mut watch = Watch::start(address, request).await.map_err(|e| failure(&e))?;
        let mut out = io::stdout();
        while let Some(step) = watch.next().await.map_err(|e| failure(&e))? {
            match self.take(&step, &mut out) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                result => result.or_fail(FAILED)?,
            }
        }
        Ok(())
    }

    fn take(&mut self, step: &Step, out: &mut impl Write) -> io::Result<()> {
        if let Some(begin) = &step.begin {
            self.instance.clone_from(&begin.instance);
            self.next = begin.next;
            if begin.restarted {
                say("the agent was started anew: what came in between is not known");
            }
            if !begin.unserved.is_empty() {
                say(&format!("not served: {} (`serve.events` names what is)", begin.unserved.join(", ")));
            }
            // Not a matter of output: who started us wants to know that it stands.
            say(&format!("watching from {}:{}", self.instance, self.next));
            return Ok(());
        }
        let lost = step.lost.as_ref();
        let mut line = lost.map_or(&step.line[..], |lost| lost.line.as_bytes()).to_vec();
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()?;
        self.next = if lost.is_some() { step.number } else { step.number + 1 };
        Ok(())
    }

    fn say_where(&self) {
        if !self.instance.is_empty() {
            say(&format!("go on with --since {}:{}", self.instance, self.next));
        }
    }
}

fn say(words: &str) {
    // Standard error may be gone; these words are for nobody then.
    let _ = writeln!(io::stderr(), "haechi: {words}");
}

fn failure(error: &Error) -> Failure {
    Failure::new(if matches!(error, Error::Wrong(_)) { WRONG } else { FAILED }, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_numbers_of_a_run() {
        let at = |instance: &str, next| Ok(Position { instance: instance.into(), next });
        assert_eq!(position("7"), at("", 7));
        assert_eq!(position("18a:7"), at("18a", 7));
        assert!(position("18a").is_err() && position("7:").is_err());
        assert_eq!(crate::servers::Config::default().address.to_string(), "unix:/run/haechi/haechi.sock");
    }
}
