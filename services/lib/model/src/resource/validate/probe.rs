//! Probes.

use super::super::{Port, Probe, Service};
use super::Findings;

pub(super) fn probes(service: &Service, findings: &mut Findings<'_>) {
    let probes = [
        ("livenessProbe", &service.liveness_probe),
        ("readinessProbe", &service.readiness_probe),
        ("startupProbe", &service.startup_probe),
    ];
    for (field, probe) in probes {
        if let Some(probe) = probe {
            let mut findings = findings.at(field);
            actions(probe, service, &mut findings);
            times(probe, field != "readinessProbe", &mut findings);
        }
    }
}

fn actions(probe: &Probe, service: &Service, findings: &mut Findings<'_>) {
    match probe.actions() {
        0 => findings.here("asks nothing; one of httpGet, tcpSocket, exec, grpc is needed"),
        1 => {}
        _ => findings
            .here("asks in several ways; exactly one of httpGet, tcpSocket, exec, grpc is needed"),
    }
    if let Some(http) = &probe.http_get {
        port("httpGet.port", &http.port, service, findings);
        findings.one_of("httpGet.scheme", &http.scheme, &["HTTP", "HTTPS"]);
    }
    if let Some(tcp) = &probe.tcp_socket {
        port("tcpSocket.port", &tcp.port, service, findings);
    }
    if let Some(grpc) = &probe.grpc {
        port("grpc.port", &Port::Number(grpc.port), service, findings);
    }
    if probe
        .exec
        .as_ref()
        .is_some_and(|exec| exec.command.is_empty())
    {
        findings.add("exec.command", "is needed");
    }
}

/// A port is a number; ports of a service have no names in Baetyl, so a name names nothing.
fn port(field: &str, port: &Port, service: &Service, findings: &mut Findings<'_>) {
    if port.number().is_none() {
        let known: Vec<_> = service
            .ports
            .iter()
            .map(|port| port.container_port.to_string())
            .collect();
        let known = if known.is_empty() {
            String::new()
        } else {
            format!("; the service has {}", known.join(", "))
        };
        findings.add(
            field,
            format!("\"{port}\" is not a port number from 1 to 65535{known}"),
        );
    }
}

fn times(probe: &Probe, success_is_one: bool, findings: &mut Findings<'_>) {
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if value < 0 {
            findings.add(field, "must not be negative");
        }
    }
    if success_is_one && probe.success_threshold > 1 {
        findings.add(
            "successThreshold",
            "must be 1 for liveness and startup probes",
        );
    }
    if probe
        .termination_grace_period_seconds
        .is_some_and(|seconds| seconds < 1)
    {
        findings.add("terminationGracePeriodSeconds", "must be at least 1");
    }
}
