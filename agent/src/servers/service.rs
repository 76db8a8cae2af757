//! The calls that clients make.

use std::sync::{Arc, PoisonError};

use haechi_ebpf::event::{EVENTS, EventDef, net_flow};
use haechi_ebpf::loss::Loss;
use haechi_signatures::model::Severity;
use tonic::{Request, Response, Status, async_trait};

use super::pick::Pick;
use super::stream::{Steps, watch};
use super::wire::proto::haechi_server::Haechi;
use super::wire::proto::{
    EventAbout, FieldAbout, GetStatusRequest, GetStatusResponse, ListEventsRequest, ListEventsResponse,
    ListSignaturesRequest, ListSignaturesResponse, LostRecords, StreamStatus, WatchEventsRequest, WatchFindingsRequest,
    WatchFlowsRequest,
};
use super::{Served, Stream, convert};
use crate::filter::Selection;
use crate::filter::connection::{Filter, Words};
use crate::time::Utc;

/// Who answers.
pub(super) struct Service {
    served: Arc<Served>,
}

impl Service {
    pub(super) const fn new(served: Arc<Served>) -> Self {
        Self { served }
    }

    /// Events that were asked for and that nothing brings.
    fn unserved(&self, wanted: &Selection) -> Result<Vec<String>, Status> {
        if wanted.climbs() {
            return Err(Status::invalid_argument("`tree` is known where events happen only: use it in `serve.events`"));
        }
        let unserved = wanted.beyond(&self.served.visible);
        if !unserved.is_empty() && unserved.len() == wanted.len() {
            let names = unserved.join(", ");
            return Err(Status::failed_precondition(format!(
                "not served: {names}; the agent's settings name what is, in `events` and `serve.events`"
            )));
        }
        Ok(unserved.into_iter().map(str::to_owned).collect())
    }
}

fn wrong(error: impl Into<String>) -> Status {
    Status::invalid_argument(error)
}

#[async_trait]
impl Haechi for Service {
    type WatchFindingsStream = Steps;
    type WatchEventsStream = Steps;
    type WatchFlowsStream = Steps;

    async fn watch_findings(&self, request: Request<WatchFindingsRequest>) -> Result<Response<Steps>, Status> {
        let WatchFindingsRequest { since, form, signatures, severity, container } = request.into_inner();
        let known = Severity::ALL.into_iter().find(|s| *s as i32 == severity);
        let severity = known.ok_or_else(|| wrong(format!("there is no severity {severity}")))?;
        let pick = Pick::Findings { signatures, severity, container };
        watch(self.served.clone(), Stream::Findings, form, since, pick, Vec::new()).map(Response::new)
    }

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Result<Response<Steps>, Status> {
        let WatchEventsRequest { since, form, events, scope } = request.into_inner();
        let selection = Selection::parse(&events, &scope).map_err(|e| wrong(e.to_string()))?;
        let unserved = self.unserved(&selection)?;
        let pick = Pick::Events(selection);
        watch(self.served.clone(), Stream::Events, form, since, pick, unserved).map(Response::new)
    }

    async fn watch_flows(&self, request: Request<WatchFlowsRequest>) -> Result<Response<Steps>, Status> {
        let asked = request.into_inner();
        let port = |p: u32| u16::try_from(p).map_err(|_too_large| wrong(format!("there is no port {p}")));
        let words = Words {
            processes: asked.processes,
            addresses: asked.addresses,
            ports: asked.ports.into_iter().map(port).collect::<Result<_, _>>()?,
            direction: Some(asked.direction).filter(|d| !d.is_empty()),
            states: asked.states,
            containers: asked.containers,
            netns: asked.net_namespaces,
        };
        let pick = Pick::Flows(Filter::parse(words).map_err(|e| wrong(e.to_string()))?);
        if !self.served.visible.iter().any(|s| s.names(net_flow::ID)) {
            return Err(Status::failed_precondition("connections are not watched: `flows.enabled` is false"));
        }
        watch(self.served.clone(), Stream::Flows, asked.form, asked.since, pick, Vec::new()).map(Response::new)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let served = &self.served;
        let counts =
            served.telling.get().map(|t| t.counts.lock().unwrap_or_else(PoisonError::into_inner).counts.clone());
        let counts = counts.unwrap_or_default();
        let ledger = served.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pairs = EVENTS.iter().flat_map(|event| Loss::ALL.map(|cause| (event, cause)));
        let lost = pairs.map(|(event, cause)| LostRecords {
            event: event.name.to_owned(),
            reason: cause.name().to_owned(),
            count: ledger.lost(event.id, cause),
        });
        let stream = |(stream, fare): (Stream, super::Fare)| {
            let numbers = served.lanes[stream as usize].ring.numbers();
            StreamStatus {
                name: stream.name().to_owned(),
                oldest: numbers.start,
                next: numbers.end,
                bytes: fare.bytes,
                watchers: fare.watchers,
                lost: fare.lost,
            }
        };
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: served.instance.clone(),
            host: served.start.host.name.clone(),
            started_unix_nano: Utc::of_boot(served.start.time, served.start.host.boot).0,
            events: counts.delivered.iter().sum(),
            findings: counts.findings,
            lost: lost.filter(|l| l.count > 0).collect(),
            streams: Stream::ALL.into_iter().zip(served.fares()).map(stream).collect(),
        }))
    }

    async fn list_events(&self, _: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let about = |event: &EventDef| EventAbout {
            name: event.name.to_owned(),
            about: event.doc.trim().to_owned(),
            tags: event.tags.iter().map(|t| (*t).to_owned()).collect(),
            fields: event
                .fields
                .iter()
                .map(|f| FieldAbout {
                    name: f.name.to_owned(),
                    r#type: f.ty.c_name().to_owned(),
                    about: f.doc.to_owned(),
                })
                .collect(),
            served: self.served.visible.iter().any(|s| s.names(event.id)),
        };
        Ok(Response::new(ListEventsResponse { events: EVENTS.iter().map(about).collect() }))
    }

    async fn list_signatures(
        &self,
        _: Request<ListSignaturesRequest>,
    ) -> Result<Response<ListSignaturesResponse>, Status> {
        let rules = self.served.rules.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Response::new(ListSignaturesResponse { signatures: rules.iter().map(convert::signature).collect() }))
    }
}
