//! The other end: who watches an agent.

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::address::Address;
use super::wire::Step;
use super::wire::proto::haechi_client::HaechiClient;
use super::wire::proto::{WatchEventsRequest, WatchFindingsRequest, WatchFlowsRequest};

/// What is watched.
#[derive(Clone, Debug)]
pub enum Request {
    /// Findings.
    Findings(WatchFindingsRequest),
    /// Events.
    Events(WatchEventsRequest),
    /// Connections.
    Flows(WatchFlowsRequest),
}

/// Why there is nothing to watch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody serves there.
    #[error("no agent serves at {address} (`haechi run --serve` starts one)")]
    Nobody {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The agent does not understand the request.
    #[error("{0}")]
    Wrong(String),
    /// The agent refuses, or went away.
    #[error("{0}")]
    Refused(String),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let words = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Self::Wrong(words),
            _ => Self::Refused(words),
        }
    }
}

/// Steps as they come.
#[derive(Debug)]
pub struct Watch(Streaming<Step>);

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When nobody serves there, or refuses.
    pub async fn start(address: &Address, request: Request) -> Result<Self, Error> {
        let mut client = connect(address).await?;
        let steps = match request {
            Request::Findings(request) => client.watch_findings(request).await?,
            Request::Events(request) => client.watch_events(request).await?,
            Request::Flows(request) => client.watch_flows(request).await?,
        };
        Ok(Self(steps.into_inner()))
    }

    /// The next step; `None` when the agent has ended.
    ///
    /// # Errors
    /// When the agent is gone without a word.
    pub async fn next(&mut self) -> Result<Option<Step>, Error> {
        Ok(self.0.message().await?)
    }
}

/// A client of the agent at `address`.
///
/// # Errors
/// When nobody serves there.
pub async fn connect(address: &Address) -> Result<HaechiClient<Channel>, Error> {
    let nobody = |source| Error::Nobody { address: address.clone(), source };
    let endpoint = match address {
        Address::Unix(_) => Endpoint::from_shared(address.to_string()),
        Address::Tcp(at) => Endpoint::from_shared(format!("http://{at}")),
    };
    Ok(HaechiClient::new(endpoint.map_err(nobody)?.connect().await.map_err(nobody)?))
}
