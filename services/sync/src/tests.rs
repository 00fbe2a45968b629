//! The service as a whole: real sockets, TLS and gRPC, against a cloud, a node, an engine and a function proxy that do
//! what the test says.

pub(crate) mod fake;
pub(crate) mod harness;
mod identities;
mod linking;
mod mirroring;
mod objects;
mod recovering;
mod reporting;
mod staging;
mod timing;
mod web;
