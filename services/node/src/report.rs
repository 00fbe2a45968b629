//! Hop 9, up: join what engine observed with properties and machines, write the status when it changed, tell watchers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use baetyl_proto::shadow::{MachineStats, NodeInfo, NodeStats, NodeStatus, Property};
use prost::Message as _;

use crate::ledger::LedgerError;
use crate::shadow::{Report, Shadow};

/// Run mode of a node whose engine reports Pods.
const KUBE: &str = "kube";

/// Takes engine's report. The status is persisted when its digest changed; stats stay in memory. The machines of a cluster
/// are engine's affair: what node itself sees is the inside of its Pod.
///
/// # Errors
/// When the ledger cannot be written; watchers then hear nothing.
pub fn accept_report(
    shadow: &Shadow,
    status: Option<NodeStatus>,
    stats: Option<NodeStats>,
) -> Result<(), LedgerError> {
    let _writer = shadow.writer();
    if let Some(status) = status {
        persist_status(shadow, status)?;
    }
    if let Some(stats) = stats {
        shadow.report.send_modify(|report| {
            let mut stats = stats;
            if !is_cluster(report) {
                let own = report.stats.as_ref().map(|old| old.nodes.clone());
                stats.nodes = own.unwrap_or_default();
            }
            report.stats = Some(Arc::new(stats));
        });
    }
    Ok(())
}

/// Joins, and persists when the digest differs. The caller holds the writer lock.
fn persist_status(shadow: &Shadow, status: NodeStatus) -> Result<(), LedgerError> {
    let status = join(status, &shadow.properties.borrow(), &shadow.machines());
    let digest = digest(&status);
    if shadow.report.borrow().digest == digest {
        return Ok(());
    }
    shadow
        .ledger
        .persist_record("status", &status.encode_to_vec())?;
    tracing::info!(
        event = "report.persisted",
        digest,
        apps = status.apps.len(),
        "the status changed"
    );
    shadow.report.send_modify(|report| {
        if status.run_mode == KUBE && !is_cluster(report) {
            report.stats = None;
        }
        report.digest = digest;
        report.status = Some(Arc::new(status));
    });
    Ok(())
}

/// Takes fresh facts about the machine: information goes into the status, figures into the stats.
///
/// # Errors
/// When the ledger cannot be written.
pub fn accept_machine(
    shadow: &Shadow,
    info: NodeInfo,
    figures: MachineStats,
) -> Result<(), LedgerError> {
    let _writer = shadow.writer();
    *shadow
        .machines
        .write()
        .unwrap_or_else(PoisonError::into_inner) = vec![info];
    rejoin(shadow)?;
    if is_cluster(&shadow.report.borrow()) {
        return Ok(());
    }
    shadow.report.send_modify(|report| {
        let mut stats = report.stats.as_deref().cloned().unwrap_or_default();
        stats.nodes = vec![figures];
        report.stats = Some(Arc::new(stats));
    });
    Ok(())
}

/// Applies property changes (`None` deletes).
///
/// # Errors
/// When the ledger cannot be written; nothing is changed then.
pub fn accept_properties(
    shadow: &Shadow,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(), LedgerError> {
    let _writer = shadow.writer();
    let mut properties = BTreeMap::clone(&shadow.properties.borrow());
    for (key, value) in changes {
        match value {
            Some(value) => properties.insert(key.clone(), value.clone()),
            None => properties.remove(key),
        };
    }
    if properties == **shadow.properties.borrow() {
        return Ok(());
    }
    shadow.ledger.persist_properties(changes)?;
    shadow.properties.send_replace(Arc::new(properties));
    rejoin(shadow)
}

fn is_cluster(report: &Report) -> bool {
    let status = report.status.as_ref();
    status.is_some_and(|status| status.run_mode == KUBE)
}

/// Joins the status engine reported last with what node knows now.
fn rejoin(shadow: &Shadow) -> Result<(), LedgerError> {
    let last = shadow.report.borrow().status.clone();
    match last {
        Some(status) => persist_status(shadow, (*status).clone()),
        None => Ok(()),
    }
}

fn join(
    mut status: NodeStatus,
    properties: &BTreeMap<String, String>,
    machines: &[NodeInfo],
) -> NodeStatus {
    let property = |(key, value): (&String, &String)| Property {
        key: key.clone(),
        value: value.clone(),
    };
    status.properties = properties.iter().map(property).collect();
    if status.run_mode != KUBE || status.nodes.is_empty() {
        status.nodes = machines.to_vec();
    }
    status
}

/// `sha256:…` of the encoded status.
#[must_use]
pub fn digest(status: &NodeStatus) -> String {
    format!(
        "sha256:{}",
        baetyl_kit::crypto::sha256_hex(&status.encode_to_vec())
    )
}

#[cfg(test)]
mod tests;
