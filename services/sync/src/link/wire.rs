//! Between the messages of the contract and those of the state machine.

use std::time::Duration;

use baetyl_kit::VERSION;
use baetyl_model::desire::Header;
use baetyl_model::link::{Down, PROTOCOL, Periods, Up};
use baetyl_proto::convert::time;
use baetyl_proto::link::connect_request::Message as Request;
use baetyl_proto::link::connect_response::Message as Response;
use baetyl_proto::link::{ConnectRequest, DesireAck, Heartbeat, Hello, Welcome};
use baetyl_proto::meta::{ProgramInfo, ProtocolRange};

/// Shortest periods a cloud may ask for: a mistake there must not make every node shout.
const SHORTEST: Duration = Duration::from_millis(100);

/// What a response means to the state machine; None for what the shell decides alone or cannot read.
pub(crate) fn down(message: &Response) -> Option<Down> {
    Some(match message {
        Response::Welcome(welcome) => Down::Welcome {
            periods: periods(welcome),
            status: welcome.status_digest.parse().ok(),
            events: welcome.event_sequence,
            time: time::optional("time", welcome.time).ok().flatten(),
        },
        Response::StatusAck(ack) => Down::StatusAck(ack.digest.parse().ok()?),
        Response::EventAck(ack) => Down::EventAck(ack.sequence),
        Response::PresentDesire(_) => Down::PresentDesire,
        Response::Removed(_) => Down::Removed,
        Response::HeartbeatAck(ack) => Down::HeartbeatAck {
            time: time::optional("time", ack.time).ok().flatten(),
        },
        Response::Desire(_) | Response::Command(_) => return None,
    })
}

/// The cloud must speak a protocol of ours; 0 = it does not say.
///
/// # Errors
/// A sentence that names both.
pub(crate) fn check_protocol(welcome: &Welcome) -> Result<(), String> {
    let ours = PROTOCOL;
    match welcome.protocol {
        0 => Ok(()),
        theirs if (ours.min..=ours.max).contains(&theirs) => Ok(()),
        theirs => Err(format!(
            "the cloud speaks protocol {theirs}, this node {} to {}; upgrade the older of the two",
            ours.min, ours.max
        )),
    }
}

fn periods(welcome: &Welcome) -> Periods {
    let usual = Periods::default();
    let period = |millis: u32, usual: Duration| match millis {
        0 => usual,
        millis => Duration::from_millis(millis.into()).max(SHORTEST),
    };
    Periods {
        heartbeat: period(welcome.heartbeat_period_ms, usual.heartbeat),
        stats: period(welcome.stats_period_ms, usual.stats),
        retry: usual.retry,
    }
}

/// The request for a message that needs nothing but what it says; None for those that carry a body.
pub(crate) fn up(message: Up, fingerprint: &str, why: &str) -> Option<ConnectRequest> {
    Some(request(match message {
        Up::Hello { held, status } => Request::Hello(Hello {
            protocol: Some(ProtocolRange {
                min: PROTOCOL.min,
                max: PROTOCOL.max,
            }),
            features: Vec::new(),
            program: Some(program()),
            held: held.map(Into::into),
            status_digest: status.map(|digest| digest.to_string()).unwrap_or_default(),
            certificate_fingerprint: fingerprint.to_owned(),
        }),
        Up::Heartbeat => Request::Heartbeat(Heartbeat {}),
        Up::DesireAck { header, refused } => desire_ack(
            Some(header),
            refused.map_or("", |refused| refused.as_str()),
            if refused.is_some() { why } else { "" },
        ),
        Up::Status(_) | Up::Stats | Up::Presented { .. } | Up::Event { .. } => return None,
    }))
}

/// What became of a desire.
pub(crate) fn desire_ack(header: Option<Header>, refused: &str, message: &str) -> Request {
    Request::DesireAck(DesireAck {
        header: header.map(Into::into),
        refused: refused.to_owned(),
        message: message.to_owned(),
    })
}

/// A message as it travels.
pub(crate) fn request(message: Request) -> ConnectRequest {
    ConnectRequest {
        message: Some(message),
    }
}

fn program() -> ProgramInfo {
    // The cloud speaks of platforms as container images do.
    let (arch, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "arm" => ("arm", "v7"),
        other => (other, ""),
    };
    ProgramInfo {
        name: "baetyl-sync".to_owned(),
        version: VERSION.to_owned(),
        arch: arch.to_owned(),
        os: std::env::consts::OS.to_owned(),
        variant: variant.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_welcome_without_periods_means_the_usual_ones_and_tiny_ones_are_not_obeyed() {
        let usual = periods(&Welcome::default());
        assert_eq!(usual, Periods::default());
        let tiny = periods(&Welcome {
            heartbeat_period_ms: 1,
            stats_period_ms: 5000,
            ..Welcome::default()
        });
        assert_eq!(
            (tiny.heartbeat, tiny.stats),
            (SHORTEST, Duration::from_secs(5))
        );
    }
}
