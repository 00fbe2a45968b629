//! Frames between the host and a worker process: what is on the socket, and nothing about processes.
//!
//! A frame is 4 bytes length (big endian) of what follows, 1 byte kind, body. A body with a header is 4 bytes
//! length of the header, the header as JSON, the payload. The worker's half is in each language's worker script.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::functions::Function;

/// Largest payload in either direction, in bytes: the limit of one gRPC message.
pub const MAX_PAYLOAD: usize = 4 * 1024 * 1024;

/// A payload with its header. The proxy limits metadata to 128 KiB; a handler may answer with as much again.
const MAX_FRAME: usize = MAX_PAYLOAD + 1024 * 1024;

/// What a worker is told before its first invocation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setup {
    /// Directory that `codedir`s are relative to.
    pub(crate) code: String,
    pub(crate) functions: Vec<Function>,
    pub(crate) max_payload: usize,
}

impl Setup {
    /// The frame.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut frame = begin(b'S');
        serde_json::to_writer(&mut frame, self)?;
        Ok(finish(frame, 0))
    }
}

#[derive(Serialize)]
struct InvokeHeader<'a> {
    function: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

/// The frame of an invocation up to its payload of `payload` bytes, which follows as it is.
pub(crate) fn encode_invoke(
    function: &str,
    metadata: &BTreeMap<String, String>,
    payload: usize,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut frame = begin(b'I');
    frame.extend_from_slice(&[0; 4]);
    let start = frame.len();
    serde_json::to_writer(&mut frame, &InvokeHeader { function, metadata })?;
    let header = to_u32(frame.len() - start);
    frame[start - 4..start].copy_from_slice(&header.to_be_bytes());
    Ok(finish(frame, payload))
}

fn begin(kind: u8) -> Vec<u8> {
    vec![0, 0, 0, 0, kind]
}

fn finish(mut frame: Vec<u8>, more: usize) -> Vec<u8> {
    let length = to_u32(frame.len() - 4 + more);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Saturates: a frame beyond 4 GiB cannot come from a 4 MiB message, and a worker refuses the length.
fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What a worker says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromWorker {
    Ready(Ready),
    Chunk(Bytes),
    Output {
        metadata: BTreeMap<String, String>,
        payload: Bytes,
    },
    Failure(WorkerFailure),
}

/// The worker has loaded what could be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Ready {
    /// Version of the interpreter.
    pub(crate) version: String,
    pub(crate) functions: Vec<Loaded>,
}

/// One function and, if it could not be loaded, why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) error: Option<String>,
}

/// An invocation that gave no result.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct WorkerFailure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    Function,
    Return,
    NotFound,
    Cancelled,
}

#[derive(Deserialize)]
struct OutputHeader {
    metadata: BTreeMap<String, String>,
}

/// A worker that does not keep to the frames. It cannot be trusted any more and is replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the worker announced a frame of {0} bytes, at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    #[error("the worker sent a frame of the unknown kind {0:#04x}")]
    UnknownKind(u8),
    #[error("the worker sent a frame nobody waits for")]
    Unexpected,
    #[error("the worker sent a frame whose header is cut")]
    Cut,
    #[error("the worker sent a frame whose header is not the JSON it should be")]
    NotJson(#[from] serde_json::Error),
}

/// Takes the first whole frame out of `buffer`; None when it is not all there yet.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<FromWorker>, FrameError> {
    let Some((head, _)) = buffer.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let (length, kind) = (
        u32::from_be_bytes([head[0], head[1], head[2], head[3]]),
        head[4],
    );
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length == 0 || length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    // A kind that does not exist is noticed before its body arrives, which may never happen.
    if !b"RCOF".contains(&kind) {
        return Err(FrameError::UnknownKind(kind));
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    let mut body = buffer.split_to(4 + length).freeze();
    body.advance(5);
    Ok(Some(match kind {
        b'R' => FromWorker::Ready(serde_json::from_slice(&body)?),
        b'C' => FromWorker::Chunk(body),
        b'F' => FromWorker::Failure(serde_json::from_slice(&body)?),
        _ => decode_output(body)?,
    }))
}

fn decode_output(mut body: Bytes) -> Result<FromWorker, FrameError> {
    let size = body.try_get_u32().map_err(|_| FrameError::Cut)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > body.len() {
        return Err(FrameError::Cut);
    }
    let header: OutputHeader = serde_json::from_slice(&body.split_to(size))?;
    Ok(FromWorker::Output {
        metadata: header.metadata,
        payload: body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&to_u32(body.len() + 1).to_be_bytes()[..]);
        bytes.extend_from_slice(&[kind]);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn an_output_arrives_whole_however_it_is_cut() {
        let whole = frame(b'O', b"\x00\x00\x00\x16{\"metadata\":{\"a\":\"b\"}}hello");
        let mut buffer = BytesMut::new();
        for (index, byte) in whole.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            let decoded = decode(&mut buffer).unwrap();
            assert_eq!(decoded.is_some(), index + 1 == whole.len());
            if let Some(decoded) = decoded {
                let metadata = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
                let payload = Bytes::from_static(b"hello");
                assert_eq!(decoded, FromWorker::Output { metadata, payload });
            }
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn two_frames_in_one_read_are_two_frames() {
        let mut buffer = frame(b'C', b"one");
        buffer.extend_from_slice(&frame(b'F', br#"{"kind":"return","message":"m"}"#));
        assert_eq!(
            decode(&mut buffer).unwrap(),
            Some(FromWorker::Chunk(Bytes::from_static(b"one")))
        );
        let failure = WorkerFailure {
            kind: FailureKind::Return,
            message: "m".to_owned(),
        };
        assert_eq!(
            decode(&mut buffer).unwrap(),
            Some(FromWorker::Failure(failure))
        );
        assert_eq!(decode(&mut buffer).unwrap(), None);
    }

    #[test]
    fn garbage_is_refused_before_its_announced_end() {
        let cases: [(&[u8], &str); 6] = [
            (b"hello, world", "announced a frame"),
            (b"\x00\x00\x00\x00R", "announced a frame of 0"),
            (b"\x00\x00\x10\x00?", "unknown kind 0x3f"),
            (b"\x00\x00\x00\x03Oab", "header is cut"),
            (b"\x00\x00\x00\x05O\x00\x00\x00\x09", "header is cut"),
            (b"\x00\x00\x00\x03F{}", "not the JSON"),
        ];
        for (bytes, expected) in cases {
            let error = decode(&mut BytesMut::from(bytes)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn an_invocation_is_its_header_and_then_the_payload() {
        let metadata = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let bytes = encode_invoke("f", &metadata, 10).unwrap();
        let json = br#"{"function":"f","metadata":{"k":"v"}}"#;
        assert_eq!(bytes[..5], [0, 0, 0, 15 + json.len() as u8, b'I']);
        assert_eq!(bytes[5..9], [0, 0, 0, json.len() as u8]);
        assert_eq!(&bytes[9..], json);
    }
}
