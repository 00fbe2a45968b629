//! Reasons of refusals: words in `google.rpc.ErrorInfo` with the domain `baetyl`, for programs to decide by.
//!
//! They are part of the contract as field numbers are: added, never renamed.

/// `NodeService/AcceptDesire`: the node holds a newer desire.
pub const STALE: &str = "STALE";
/// `NodeService/AcceptDesire`: the node holds another desire of the same epoch and generation.
pub const CONFLICT: &str = "CONFLICT";
/// `NodeService/AcceptDesire`: the desire is another node's.
pub const WRONG_NODE: &str = "WRONG_NODE";
/// `NodeService/AcceptDesire`: the bytes are no desire.
pub const MALFORMED: &str = "MALFORMED";
