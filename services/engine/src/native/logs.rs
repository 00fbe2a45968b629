//! Logs of instances, in pieces.

use baetyl_model::workload;
use baetyl_runtime_native::{self as native, InstanceId, NativeRuntime, is_too_old};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::ports::{LOG_PIECE, LogError, LogPosition, LogStart};

type Piece = Result<(Bytes, LogPosition), LogError>;

/// The log of an instance.
pub(super) fn logs(
    runtime: &NativeRuntime,
    id: &workload::InstanceId,
    start: LogStart,
    follow: bool,
) -> BoxStream<'static, Piece> {
    let Some(id) = native_id(id) else {
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        return stream::iter([Err(LogError::Failed(error))]).boxed();
    };
    let start = match start {
        LogStart::Tail(lines) => native::LogStart::Tail(lines),
        LogStart::After(position) => match parse(&position) {
            Some(position) => native::LogStart::After(position),
            None => return stream::iter([Err(LogError::TooOld)]).boxed(),
        },
    };
    let log = runtime.logs(&id, start, follow).with_positions();
    let pieces = log.flat_map(|read| {
        stream::iter(match read {
            Ok((bytes, end)) => pieces(&bytes, end),
            Err(error) if is_too_old(&error) => vec![Err(LogError::TooOld)],
            Err(error) => vec![Err(LogError::Failed(error))],
        })
    });
    pieces.boxed()
}

/// The last part of the name is the number of the instance.
fn native_id(id: &workload::InstanceId) -> Option<InstanceId> {
    let (_, index) = id.name.rsplit_once('.')?;
    Some(InstanceId {
        workload: id.workload.clone(),
        index: index.parse().ok()?,
    })
}

/// `<rotations>:<offset>`
fn parse(position: &LogPosition) -> Option<native::LogPosition> {
    let (rotations, offset) = position.0.split_once(':')?;
    Some(native::LogPosition {
        rotations: rotations.parse().ok()?,
        offset: offset.parse().ok()?,
    })
}

/// The bytes that end at a position.
fn pieces(bytes: &Bytes, end: native::LogPosition) -> Vec<Piece> {
    let mut offset = end.offset.saturating_sub(bytes.len() as u64);
    let pieces = bytes.chunks(LOG_PIECE).map(|piece| {
        offset += piece.len() as u64;
        let position = format!("{}:{offset}", end.rotations);
        Ok((bytes.slice_ref(piece), LogPosition(position)))
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_piece_has_the_position_after_it() {
        let bytes = Bytes::from(vec![b'x'; LOG_PIECE + 1]);
        let end = native::LogPosition {
            rotations: 3,
            offset: LOG_PIECE as u64 + 8,
        };
        let read: Vec<_> = pieces(&bytes, end)
            .into_iter()
            .map(|piece| piece.unwrap())
            .map(|(piece, position)| (piece.len(), parse(&position).unwrap()))
            .collect();
        let position = |offset| native::LogPosition {
            rotations: 3,
            offset,
        };
        let last = LOG_PIECE as u64 + 8;
        assert_eq!(read, [(LOG_PIECE, position(last - 1)), (1, position(last))]);
        for malformed in ["", "1", "x:2", "1:x"] {
            assert!(parse(&LogPosition(malformed.to_owned())).is_none());
        }
    }
}
