//! Times.

use baetyl_model::jiff::Timestamp;

use super::{ConvertError, invalid};

/// To the wire.
pub fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    // Jiff splits times before 1970 with a negative fraction, the contract wants a positive one.
    let nanos = time.subsec_nanosecond();
    if nanos < 0 {
        prost_types::Timestamp {
            seconds: time.as_second() - 1,
            nanos: nanos + 1_000_000_000,
        }
    } else {
        prost_types::Timestamp {
            seconds: time.as_second(),
            nanos,
        }
    }
}

/// From the wire; `field` names the field in the error.
pub fn from_wire(
    field: &'static str,
    time: prost_types::Timestamp,
) -> Result<Timestamp, ConvertError> {
    Timestamp::new(time.seconds, time.nanos).map_err(invalid(field))
}

/// From the wire, when there is one.
pub fn optional(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, ConvertError> {
    time.map(|time| from_wire(field, time)).transpose()
}
