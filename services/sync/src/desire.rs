//! Hop 3, down: receive a desire, verify its signature, hand it to node.

use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::details;
use baetyl_model::desire::Header;
use baetyl_model::link::Refused;
use baetyl_proto::reasons;
use baetyl_proto::shadow::SignedDesire;
use baetyl_proto::sign::{self, VerifyError};
use tonic::{Code, Status};

use crate::identity::Identity;
use crate::node::Node;

/// A desire that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What it claims to be; None when not even that can be read.
    pub(crate) header: Option<Header>,
    /// The word for the cloud.
    pub(crate) refused: Refused,
    /// The sentence for people.
    pub(crate) message: String,
}

/// Verifies what came from the cloud. Nothing of a desire that fails here reaches node.
///
/// # Errors
/// Why it is not taken.
pub(crate) fn receive_desire(
    identity: &Identity,
    signed: &SignedDesire,
) -> Result<Header, Refusal> {
    let (header, apps) = verify_desire(identity, signed)?;
    tracing::info!(
        event = "desire.received",
        epoch = header.epoch.get(),
        generation = header.generation.get(),
        apps,
        "a signed desire came from the cloud"
    );
    Ok(header)
}

/// A desire is believed when it is signed by a key that was installed, readable, and for this node. Gives how many
/// applications it wants, too.
///
/// # Errors
/// Why it is not taken.
pub(crate) fn verify_desire(
    identity: &Identity,
    signed: &SignedDesire,
) -> Result<(Header, usize), Refusal> {
    match sign::verify_desire(&identity.desire_keys, Some(&identity.node_uid), signed) {
        Ok(desire) => Ok((desire.header(), desire.apps.len())),
        Err(error) => {
            tracing::warn!(%error, "a desire is refused; node keeps what it has");
            Err(Refusal {
                header: sign::read_desire(signed).ok().map(|desire| desire.header()),
                refused: refused(&error),
                message: error.to_string(),
            })
        }
    }
}

/// Hands a verified desire to node, for as long as node is away.
///
/// # Errors
/// Why node does not take it.
pub(crate) async fn deliver_desire(
    node: Node,
    header: Header,
    signed: SignedDesire,
) -> Result<Header, Refusal> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let status = match node.accept_desire(signed.clone()).await {
            Ok(_) => return Ok(header),
            Err(status) => status,
        };
        if let Some(refused) = node_refused(&status) {
            let message = status.message().to_owned();
            tracing::warn!(reason = message, "node refuses a desire");
            return Err(Refusal {
                header: Some(header),
                refused,
                message,
            });
        }
        tracing::debug!(code = ?status.code(), reason = status.message(), "node does not take a desire now");
        backoff.wait().await;
    }
}

fn refused(error: &VerifyError) -> Refused {
    Refused::from_word(error.as_str())
}

/// What node's answer says about the desire; None when it says only that node cannot decide now.
fn node_refused(status: &Status) -> Option<Refused> {
    match details::reason(status).as_deref() {
        Some(reasons::STALE) => Some(Refused::Stale),
        Some(reasons::CONFLICT) => Some(Refused::Conflict),
        Some(reasons::WRONG_NODE) => Some(Refused::WrongNode),
        Some(reasons::MALFORMED) => Some(Refused::Malformed),
        _ => refused_in_words(status),
    }
}

/// A node of the first release tells its reasons in the text alone.
fn refused_in_words(status: &Status) -> Option<Refused> {
    match status.code() {
        Code::FailedPrecondition if status.message().starts_with("CONFLICT") => {
            Some(Refused::Conflict)
        }
        Code::FailedPrecondition => Some(Refused::Stale),
        Code::PermissionDenied => Some(Refused::WrongNode),
        Code::InvalidArgument => Some(Refused::Malformed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_decides_whatever_the_text_says() {
        let refused = |code: Code, reason: &str| {
            node_refused(&details::refused(
                code,
                reason,
                "CONFLICT: no more than a text",
            ))
        };
        let precondition = Code::FailedPrecondition;
        assert_eq!(refused(precondition, reasons::STALE), Some(Refused::Stale));
        assert_eq!(
            refused(precondition, reasons::CONFLICT),
            Some(Refused::Conflict)
        );
        assert_eq!(
            refused(Code::PermissionDenied, reasons::WRONG_NODE),
            Some(Refused::WrongNode)
        );
        assert_eq!(
            refused(Code::InvalidArgument, reasons::MALFORMED),
            Some(Refused::Malformed)
        );
        // A reason of a later release says nothing here; the code does.
        assert_eq!(
            refused(Code::PermissionDenied, "TOO_LATE"),
            Some(Refused::WrongNode)
        );
    }

    #[test]
    fn what_node_answers_decides_only_when_it_is_about_the_desire() {
        let refused = |status: Status| node_refused(&status);
        assert_eq!(
            refused(Status::failed_precondition("STALE: old")),
            Some(Refused::Stale)
        );
        assert_eq!(
            refused(Status::failed_precondition("CONFLICT: other")),
            Some(Refused::Conflict)
        );
        assert_eq!(
            refused(Status::permission_denied("other uid")),
            Some(Refused::WrongNode)
        );
        assert_eq!(
            refused(Status::invalid_argument("garbage")),
            Some(Refused::Malformed)
        );
        for undecided in [
            Status::unavailable("away"),
            Status::resource_exhausted("full"),
            Status::internal("broken"),
        ] {
            assert_eq!(refused(undecided), None);
        }
    }
}
