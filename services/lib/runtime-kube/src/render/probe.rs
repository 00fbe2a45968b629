//! Probes.

use baetyl_model::resource::{Port, Probe, Service};
use serde_json::{Value, json};

use super::RenderError;
use super::fields::Fields;

/// All probes of a service.
pub(super) fn probes(service: &Service, mut fields: Fields) -> Result<Fields, RenderError> {
    for (name, given) in [
        ("livenessProbe", &service.liveness_probe),
        ("readinessProbe", &service.readiness_probe),
        ("startupProbe", &service.startup_probe),
    ] {
        if let Some(given) = given {
            let probe = probe(given).map_err(|reason| RenderError::Probe {
                service: service.name.clone(),
                probe: name,
                reason,
            })?;
            fields = fields.with(name, probe);
        }
    }
    Ok(fields)
}

/// The model's probe is Kubernetes', but for ports: they have no names in Baetyl, so one in text is a number.
fn probe(given: &Probe) -> Result<Value, String> {
    if given.actions() != 1 {
        return Err("exactly one of httpGet, tcpSocket, exec, grpc is needed".to_owned());
    }
    let mut probe = given.clone();
    if let Some(http) = &mut probe.http_get {
        number(&mut http.port)?;
        http.scheme.make_ascii_uppercase();
    }
    if let Some(tcp) = &mut probe.tcp_socket {
        number(&mut tcp.port)?;
    }
    if let Some(grpc) = &mut probe.grpc {
        number(&mut Port::Number(grpc.port))?;
        // Absent and empty ask for the same; Kubernetes fills in the empty one.
        grpc.service = grpc.service.take().filter(|service| !service.is_empty());
    }
    if given
        .exec
        .as_ref()
        .is_some_and(|exec| exec.command.is_empty())
    {
        return Err("exec.command is needed".to_owned());
    }
    Ok(json!(probe))
}

fn number(port: &mut Port) -> Result<(), String> {
    let number = port
        .number()
        .ok_or_else(|| format!("\"{port}\" is not a port number from 1 to 65535"))?;
    *port = Port::Number(i32::from(number));
    Ok(())
}
