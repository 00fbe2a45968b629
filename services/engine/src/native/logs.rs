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
        LogStart::After(LogPosition { part, offset }) => {
            native::LogStart::After(native::LogPosition {
                rotations: part,
                offset,
            })
        }
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

/// The bytes that end at a position.
fn pieces(bytes: &Bytes, end: native::LogPosition) -> Vec<Piece> {
    let mut offset = end.offset.saturating_sub(bytes.len() as u64);
    let pieces = bytes.chunks(LOG_PIECE).map(|piece| {
        offset += piece.len() as u64;
        let position = LogPosition {
            part: end.rotations,
            offset,
        };
        Ok((bytes.slice_ref(piece), position))
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
        let positions: Vec<_> = pieces(&bytes, end)
            .into_iter()
            .map(|piece| piece.unwrap())
            .map(|(piece, position)| (piece.len(), position.part, position.offset))
            .collect();
        assert_eq!(
            positions,
            [
                (LOG_PIECE, 3, LOG_PIECE as u64 + 7),
                (1, 3, LOG_PIECE as u64 + 8)
            ]
        );
    }
}
