//! Tests that need a Kubernetes. `cargo xtask e2e kube` makes one, builds this program and runs it there; it tells where
//! everything is by the environment:
//!
//! - `BAETYL_E2E_BED`: directory of the test bed (`tools/kubebed`); absent on a cluster of somebody else's;
//! - `BAETYL_E2E_CONTEXT`: context of such a cluster in the user's kubeconfig;
//! - `BAETYL_E2E_REGISTRY`: host and port of a registry the cluster's nodes pull from without credentials;
//! - `BAETYL_PROGRAMS_DIR`: the built programs of the workspace.
//!
//! A test begins with [`Cluster::shared`](cluster::Cluster::shared) or, when it does something to the whole cluster, with
//! [`Cluster::alone`](cluster::Cluster::alone), and puts its objects into a
//! [namespace of its own](cluster::Cluster::fresh_namespace).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod bad_input;
mod bed;
mod bundle;
mod certificates;
mod clocks;
mod cluster;
mod faults;
mod figures;
mod functions;
mod helm;
mod install;
mod machines;
mod many;
mod node;
mod registry;
mod releases;
mod story;
mod upgrade;
mod volumes;
mod workloads;
mod yaml;
