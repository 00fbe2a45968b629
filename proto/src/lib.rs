//! Generated gRPC contracts of Baetyl and their conversions to the domain model.
//!
//! The sources are `proto/baetyl/<area>/v1/*.proto` and `proto/faas/function.proto`; `cargo xtask codegen` makes
//! `src/generated`, which is checked in. Nothing else lives here: no I/O, no policy beyond the table of callers.

/// Encoded `FileDescriptorSet` of all contracts, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

macro_rules! generated {
    ($(#[$doc:meta])* $area:ident, $file:literal) => {
        $(#[$doc])*
        pub mod $area {
            /// Version 1.
            #[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
            pub mod v1 {
                include!(concat!("generated/", $file));
            }
        }
    };
}

/// Contracts of Baetyl.
pub mod baetyl {
    generated!(
        /// Shared things: protocol ranges, conditions.
        meta, "baetyl.meta.v1.rs");
    generated!(
        /// Resources and references.
        resource, "baetyl.resource.v1.rs");
    generated!(
        /// Desire and report.
        shadow, "baetyl.shadow.v1.rs");
    generated!(
        /// Edge and cloud.
        link, "baetyl.link.v1.rs");
    generated!(
        /// The sync service.
        sync, "baetyl.sync.v1.rs");
    generated!(
        /// The node service.
        node, "baetyl.node.v1.rs");
    generated!(
        /// The engine service.
        engine, "baetyl.engine.v1.rs");
    generated!(
        /// Functions and runtimes.
        function, "baetyl.function.v1.rs");
    generated!(
        /// First contact of a node.
        activation, "baetyl.activation.v1.rs");
}

/// Baetyl v2's function contract.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod faas {
    include!("generated/faas.rs");
}

pub mod callers;
pub mod convert;
pub mod digest;
pub mod mirror;
pub mod reasons;
pub mod sign;
mod signed;
pub mod ticket;
pub mod token;

pub use baetyl::{
    activation::v1 as activation, engine::v1 as engine, function::v1 as function, link::v1 as link,
    meta::v1 as meta, node::v1 as node, resource::v1 as resource, shadow::v1 as shadow,
    sync::v1 as sync,
};
