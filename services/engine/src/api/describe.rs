//! What engine knows of an application, as text for people.

use baetyl_model::desire::Release;
use baetyl_model::report::{AppStatus, InstanceStatus};

use crate::board::AppView;
use crate::context::Context;
use crate::ports::Ports;

/// Renders it. Nothing secret is in it: no bodies, no environment.
pub(crate) fn render<P: Ports>(ctx: &Context<P>, view: &AppView, status: &AppStatus) -> String {
    let accepted = ctx.board.accepted();
    let desire = accepted.map_or_else(
        || "none accepted yet".to_owned(),
        |accepted| accepted.header.to_string(),
    );
    let mut lines = overview(view, status);
    lines.extend(failures(view));
    if !status.instances.is_empty() {
        lines.push("Instances:".to_owned());
    }
    lines.extend(status.instances.values().map(instance));
    lines.push(field("Desire", &desire));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn field(name: &str, value: &str) -> String {
    format!("{:<12} {value}", format!("{name}:"))
}

fn overview(view: &AppView, status: &AppStatus) -> Vec<String> {
    let update = &view.update;
    let version = |release: Option<&Release>| {
        release.map_or_else(|| "none".to_owned(), |release| release.version.to_string())
    };
    let mut lines = vec![
        field("Name", update.app().as_str()),
        field(
            "Phase",
            update.phase().map_or("Idle", |phase| phase.as_str()),
        ),
        field("Status", status.status.as_str()),
        field("Generation", &update.generation().to_string()),
        field("Wanted", &version(update.target())),
        field("Running", &version(update.running())),
        field("Last good", &version(update.good())),
    ];
    if let Some(shape) = view.running_shape() {
        let (wanted, strategy) = (shape.wanted(), shape.strategy);
        let text = format!(
            "{} ({wanted} instances, {strategy:?} updates)",
            shape.workload
        );
        lines.push(field("Workload", &text));
    }
    let said = [("Cause", &status.cause), ("Trouble", &view.trouble)];
    let said = said.into_iter().filter(|(_, text)| !text.is_empty());
    lines.extend(said.map(|(name, text)| field(name, text)));
    if let Some(progress) = view.progress {
        let (items, bytes) = (progress.items_done, progress.bytes_done);
        let (all_items, all_bytes) = (progress.items_total, progress.bytes_total);
        let text = format!("{items}/{all_items} items, {bytes}/{all_bytes} bytes");
        lines.push(field("Staging", &text));
    }
    lines
}

fn failures(view: &AppView) -> Vec<String> {
    let failures = view.update.failures();
    let mut lines: Vec<String> = failures
        .iter()
        .map(|failure| format!("  {}: {}", failure.release.version, failure.reason))
        .collect();
    if !lines.is_empty() {
        let title = "Failed versions, not tried again unless an operator asks:";
        lines.insert(0, title.to_owned());
    }
    lines
}

fn instance(instance: &InstanceStatus) -> String {
    let ports: Vec<String> = instance
        .ports
        .iter()
        .map(|port| port.port.to_string())
        .collect();
    let ready = if instance.ready { ", ready" } else { "" };
    let cause = if instance.cause.is_empty() {
        String::new()
    } else {
        format!(": {}", instance.cause)
    };
    format!(
        "  {}: {}{ready}, pid {}, {} restarts, ports {}{cause}",
        instance.name,
        instance.status,
        instance.pid,
        instance.restarts,
        ports.join(","),
    )
}
