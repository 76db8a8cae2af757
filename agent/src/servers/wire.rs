//! The messages: made of `proto/` by the build, but for the steps of the streams. Those carry a record that was encoded
//! once for all watchers: in protobuf a message within another one and bytes look the same.

use prost::bytes::Bytes;

/// What `proto/haechi/v1` becomes.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "what is generated is documented in the .proto file, and not ours to write otherwise"
)]
pub mod proto {
    tonic::include_proto!("haechi.v1");
}

/// All of `proto/`, for who asks what is served.
pub(super) const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("haechi");

pub(super) use proto::haechi_server::HaechiServer as Service;

/// `WatchFindingsResponse`, `WatchEventsResponse` and `WatchFlowsResponse`. One of what follows `number` is set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Step {
    /// Number of the record, or of the next one.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The first step.
    #[prost(message, optional, tag = "2")]
    pub begin: Option<proto::Begin>,
    /// What is not here any more.
    #[prost(message, optional, tag = "3")]
    pub lost: Option<proto::Lost>,
    /// What the agent lost.
    #[prost(bytes = "bytes", tag = "4")]
    pub gap: Bytes,
    /// `Finding`, `Event` or `Flow`.
    #[prost(bytes = "bytes", tag = "5")]
    pub record: Bytes,
    /// The record as a line.
    #[prost(bytes = "bytes", tag = "6")]
    pub line: Bytes,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// As the .proto file has it.
    #[derive(Clone, PartialEq, Message)]
    struct WatchFindingsResponse {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(oneof = "Kind", tags = "2, 3, 4, 5, 6")]
        step: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    #[expect(clippy::large_enum_variant, reason = "as the build makes it of such a file")]
    enum Kind {
        #[prost(message, tag = "2")]
        Begin(proto::Begin),
        #[prost(message, tag = "3")]
        Lost(proto::Lost),
        #[prost(message, tag = "4")]
        Gap(proto::Gap),
        #[prost(message, tag = "5")]
        Finding(proto::Finding),
        #[prost(string, tag = "6")]
        Line(String),
    }

    #[test]
    fn a_step_is_what_the_proto_file_says() {
        let begin = proto::Begin { instance: "a".into(), next: 7, ..proto::Begin::default() };
        let lost = proto::Lost { records: 9, line: "x".into() };
        let gap = proto::Gap { count: 3, ..proto::Gap::default() };
        let finding = proto::Finding { signature: "s".into(), count: 2, ..proto::Finding::default() };
        let bytes = |m: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            m(&mut out);
            Bytes::from(out)
        };
        let step = Step { number: 5, ..Step::default() };
        for (ours, theirs) in [
            (Step { begin: Some(begin.clone()), ..step.clone() }, Kind::Begin(begin)),
            (Step { lost: Some(lost.clone()), ..step.clone() }, Kind::Lost(lost)),
            (Step { gap: bytes(&|out| gap.encode_raw(out)), ..step.clone() }, Kind::Gap(gap.clone())),
            (Step { record: bytes(&|out| finding.encode_raw(out)), ..step.clone() }, Kind::Finding(finding.clone())),
            (Step { line: Bytes::from_static(b"l"), ..step.clone() }, Kind::Line("l".into())),
        ] {
            let wanted = WatchFindingsResponse { number: 5, step: Some(theirs) };
            assert_eq!(ours.encode_to_vec(), wanted.encode_to_vec());
        }
    }
}
