//! Pure domain model of Baetyl: what things are called, what is wished, what is seen, and what follows from that.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and randomness are arguments, so every rule can
//! be tested as a plain function. Services own the shells around it.
//!
//! Read in this order: [`name`] and [`digest`] (identifiers, parsed once at the border), [`resource`] (what an operator
//! writes, in Baetyl v2's field names), [`desire`] (what travels down, and which one is accepted), [`mod@plan`] (desire and
//! observation to ordered steps), [`update`] (one application's way from one version to the next), [`workload`] (what a
//! runtime runs and sees), [`objects`] (directories of Pods with large files), [`upgrade`] (the core services of a node in kube mode), [`rollup`] and [`report`] (what travels up), [`link`] (the protocol between an edge and its cloud), [`trust`] (time and
//! certificates).

pub mod base64;
pub mod desire;
pub mod digest;
pub mod labels;
pub mod link;
pub mod merge;
pub mod name;
pub mod objects;
pub mod plan;
pub mod report;
pub mod resource;
pub mod rollup;
pub mod strict;
pub mod trust;
pub mod update;
pub mod upgrade;
pub mod workload;

/// The time types of the whole workspace.
pub use jiff;

pub use desire::{
    Accept, AppRef, Desire, DesiredApp, DesiredCore, Header, ObjectRef, Refusal, ResourceRef,
    accept_desire,
};
pub use digest::Digest;
pub use name::{
    AppName, ConfigKey, Epoch, Generation, Kind, NameError, Namespace, NodeName, NodeUid,
    ResourceName, Revision, ServiceName, Version,
};
pub use report::{AppStatus, InstanceStatus, NodeStats, NodeStatus};
pub use resource::{Application, Configuration, Secret};
