//! What engine knows of an application, as text for people.

use std::fmt::Write as _;

use baetyl_model::report::AppStatus;

use crate::board::AppView;
use crate::context::Context;
use crate::ports::Ports;

/// Renders it. Nothing secret is in it: no bodies, no environment.
pub(crate) fn render<P: Ports>(ctx: &Context<P>, view: &AppView, status: &AppStatus) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, ctx, view, status);
    text
}

fn write<P: Ports>(out: &mut String, ctx: &Context<P>, view: &AppView, status: &AppStatus) -> std::fmt::Result {
    let update = &view.update;
    let version = |release: Option<&baetyl_model::desire::Release>| {
        release.map_or_else(|| "none".to_owned(), |release| release.version.to_string())
    };
    writeln!(out, "Name:        {}", update.app())?;
    writeln!(out, "Phase:       {}", update.phase().map_or("Idle", |phase| phase.as_str()))?;
    writeln!(out, "Status:      {}", status.status)?;
    writeln!(out, "Generation:  {}", update.generation())?;
    writeln!(out, "Wanted:      {}", version(update.target()))?;
    writeln!(out, "Running:     {}", version(update.running()))?;
    writeln!(out, "Last good:   {}", version(update.good()))?;
    if let Some(shape) = view.running_shape() {
        writeln!(out, "Workload:    {} ({} instances, {:?} updates)", shape.workload, shape.wanted(), shape.strategy)?;
    }
    for (label, line) in [("Cause", &status.cause), ("Trouble", &view.trouble)] {
        if !line.is_empty() {
            writeln!(out, "{:<12} {line}", format!("{label}:"))?;
        }
    }
    if let Some(progress) = view.progress {
        let (items, bytes) = (progress.items_done, progress.bytes_done);
        writeln!(out, "Staging:     {items}/{} items, {bytes}/{} bytes", progress.items_total, progress.bytes_total)?;
    }
    if !update.failures().is_empty() {
        writeln!(out, "Failed versions, not tried again unless an operator asks:")?;
        for failure in update.failures() {
            writeln!(out, "  {}: {}", failure.release.version, failure.reason)?;
        }
    }
    if !status.instances.is_empty() {
        writeln!(out, "Instances:")?;
    }
    for (name, instance) in &status.instances {
        let ports: Vec<String> = instance.ports.iter().map(|port| port.port.to_string()).collect();
        writeln!(
            out,
            "  {name}: {}{}, pid {}, {} restarts, ports {}{}",
            instance.status,
            if instance.ready { ", ready" } else { "" },
            instance.pid,
            instance.restarts,
            ports.join(","),
            if instance.cause.is_empty() { String::new() } else { format!(": {}", instance.cause) },
        )?;
    }
    let accepted = ctx.board.accepted();
    let desire = accepted.map_or_else(|| "none accepted yet".to_owned(), |accepted| accepted.header.to_string());
    writeln!(out, "Desire:      {desire}")
}
