//! Messages of the contract and what the state machine hears and says, one to the other.

use baetyl_kit::error::chain;
use baetyl_model::desire::Header;
use baetyl_model::link::{Down as Say, Refused, Up as Heard};
use baetyl_proto::convert::time as times;
use baetyl_proto::link::connect_response::Message as Down;
use baetyl_proto::link::{
    DesireAck, EventAck, HeartbeatAck, PresentDesire, Removed, StatusAck, StatusEnvelope, Welcome,
};
use baetyl_proto::shadow;
use tonic::Status;

use crate::link::FEATURES;
use crate::link::admit::DELETED;
use crate::pki::NodeIdentity;
use crate::report::{NotStored, ReportConfig};

/// The message the machine is just told of: its bytes, until the machine says what becomes of them.
pub(super) enum Incoming {
    None,
    Status(shadow::NodeStatus),
    Stats(shadow::NodeStats),
    Event(shadow::Event),
    Refusal(String),
    Presented(Header),
}

/// What a Welcome tells beyond what the machine knows.
pub(super) struct Greeting<'a> {
    pub(super) protocol: u32,
    pub(super) config: &'a ReportConfig,
    pub(super) node: &'a NodeIdentity,
}

/// A message of the machine. None for a desire, whose bytes the session has, and for a command, which comes from an
/// operator.
pub(super) fn to_wire(message: Say, about: &Greeting<'_>) -> Option<Down> {
    Some(match message {
        Say::Welcome {
            status,
            events,
            time,
            ..
        } => Down::Welcome(Welcome {
            protocol: about.protocol,
            features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
            heartbeat_period_ms: about.config.heartbeat_period_ms,
            stats_period_ms: about.config.stats_period_ms,
            status_digest: status.map(|digest| digest.to_string()).unwrap_or_default(),
            event_sequence: events,
            time: time.map(times::to_wire),
            namespace: about.node.namespace.to_string(),
            node_name: about.node.name.to_string(),
        }),
        Say::StatusAck(digest) => Down::StatusAck(StatusAck {
            digest: digest.to_string(),
        }),
        Say::EventAck(sequence) => Down::EventAck(EventAck { sequence }),
        Say::PresentDesire => Down::PresentDesire(PresentDesire {}),
        Say::Removed => Down::Removed(Removed {
            reason: DELETED.to_owned(),
        }),
        Say::HeartbeatAck { time } => Down::HeartbeatAck(HeartbeatAck {
            time: time.map(times::to_wire),
        }),
        Say::Desire(_) | Say::Command(_) => return None,
    })
}

pub(super) fn read_status(envelope: StatusEnvelope) -> Result<(Heard, Incoming), Status> {
    match (envelope.digest.parse(), envelope.status) {
        (Ok(digest), Some(status)) => Ok((Heard::Status(digest), Incoming::Status(status))),
        _ => Err(Status::invalid_argument(
            "a status needs its content and a digest, sha256:<64 hex digits>",
        )),
    }
}

pub(super) fn read_ack(ack: DesireAck) -> Result<(Heard, Incoming), Status> {
    let header = ack.header.and_then(|header| Header::try_from(header).ok());
    let header =
        header.ok_or_else(|| Status::invalid_argument("the acknowledgement names no desire"))?;
    let refused = (!ack.refused.is_empty()).then(|| Refused::from_word(&ack.refused));
    Ok((
        Heard::DesireAck { header, refused },
        Incoming::Refusal(ack.message),
    ))
}

pub(super) fn unavailable(error: &dyn std::error::Error) -> Status {
    tracing::error!(error = %chain(error), "the link cannot serve a node");
    Status::unavailable("the cloud cannot serve nodes at the moment; try again")
}

pub(super) fn not_stored(error: NotStored) -> Status {
    Status::unavailable(error.to_string())
}
