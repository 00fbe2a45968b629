//! Limits and requests.

use std::collections::BTreeMap;

use baetyl_model::resource::Service;
use baetyl_model::resource::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::RenderError;
use super::build::Build;
use super::fields::Fields;

/// An amount of which there can be some.
///
/// # Errors
/// What is wrong, as a sentence.
pub(super) fn quantity(text: &str) -> Result<Quantity, String> {
    let amount: Quantity = text
        .parse()
        .map_err(|error: baetyl_model::resource::quantity::QuantityError| error.to_string())?;
    if amount.is_negative() {
        return Err(format!("\"{text}\" is negative"));
    }
    Ok(amount)
}

/// What a container may use and wants, with the devices that plugins offer. Blank amounts are not given.
pub(super) fn resources(build: &Build<'_>, service: &Service) -> Result<Value, RenderError> {
    let given = service.resources.clone().unwrap_or_default();
    let mut limits = amounts(&given.limits);
    let requests = amounts(&given.requests);
    for device in &service.devices {
        if let Some(resource) = build.request.place.devices.get(&device.device_path) {
            limits.entry(resource).or_insert("1");
        }
    }
    for (list, amounts) in [("limits", &limits), ("requests", &requests)] {
        for (name, text) in amounts {
            check(name, text).map_err(|reason| RenderError::Amount {
                what: format!("{list} of {name} of service {}", service.name),
                reason,
            })?;
        }
    }
    for (name, request) in &requests {
        let limit = limits.get(name).copied();
        compare(name, request, limit).map_err(|reason| RenderError::Amount {
            what: format!("request of {name} of service {}", service.name),
            reason,
        })?;
    }
    Ok(Fields::new()
        .given("limits", texts(&limits))
        .given("requests", texts(&requests))
        .into())
}

fn amounts(given: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    given
        .iter()
        .filter(|(_, amount)| !amount.trim().is_empty())
        .map(|(name, amount)| (name.as_str(), amount.trim()))
        .collect()
}

fn texts(amounts: &BTreeMap<&str, &str>) -> Map<String, Value> {
    amounts
        .iter()
        .map(|(name, amount)| ((*name).to_owned(), json!(amount)))
        .collect()
}

/// Resources of device plugins have a domain before their name.
fn is_extended(name: &str) -> bool {
    name.contains('/')
}

fn check(name: &str, text: &str) -> Result<(), String> {
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage")
        || name.starts_with("hugepages-")
        || is_extended(name);
    if !known {
        return Err("Kubernetes knows cpu, memory, ephemeral-storage, hugepages-… and resources with a domain, e.g. nvidia.com/gpu".to_owned());
    }
    let amount = quantity(text)?;
    if is_extended(name) && amount.as_milli() % 1000 != 0 {
        return Err(format!("\"{text}\" is not a whole number"));
    }
    Ok(())
}

fn compare(name: &str, request: &str, limit: Option<&str>) -> Result<(), String> {
    let Some(limit) = limit else {
        return if is_extended(name) {
            Err("a device is had by a limit; set limits to the same amount".to_owned())
        } else {
            Ok(())
        };
    };
    let (wanted, most) = (quantity(request)?, quantity(limit)?);
    if is_extended(name) && wanted != most {
        return Err(format!("{request} must equal the limit of {limit}"));
    }
    if wanted > most {
        return Err(format!("{request} is more than the limit of {limit}"));
    }
    Ok(())
}
