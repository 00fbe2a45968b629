//! Limits, read from Kubernetes quantities.

use baetyl_model::resource::Resources;

/// Limits of one instance. Absent: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
}

/// A quantity that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "limit {resource} = \"{value}\" is no quantity: write a positive number such as 500m, 1.5, 64Mi or 1G"
)]
pub struct QuantityError {
    /// `cpu` or `memory`.
    pub resource: &'static str,
    /// What was written.
    pub value: String,
}

impl Limits {
    /// Takes `cpu` and `memory` from `limits`; requests and other resources mean nothing to a process.
    pub fn from_resources(resources: &Resources) -> Result<Self, QuantityError> {
        let read = |resource: &'static str, scale: u32| match resources.limits.get(resource) {
            None => Ok(None),
            Some(value) => match parse_quantity(value, scale) {
                Some(amount) if amount > 0 => Ok(Some(amount)),
                _ => Err(QuantityError {
                    resource,
                    value: value.clone(),
                }),
            },
        };
        Ok(Self {
            memory: read("memory", 1)?,
            cpu_millis: read("cpu", 1000)?,
        })
    }

    /// True when nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.memory.is_none() && self.cpu_millis.is_none()
    }
}

/// Reads a Kubernetes quantity as a multiple of `1 / scale`, rounded up. `None`: not a quantity, or too large.
fn parse_quantity(text: &str, scale: u32) -> Option<u64> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || fraction.len() > 18
        || whole.len() > 18
    {
        return None;
    }
    let (up, down) = factor(suffix)?;
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10u128
        .checked_pow(u32::try_from(fraction.len()).ok()?)?
        .checked_mul(down)?;
    let value = mantissa
        .checked_mul(up)?
        .checked_mul(u128::from(scale))?
        .div_ceil(divisor);
    u64::try_from(value).ok()
}

/// Numerator and denominator of a suffix.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10u128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(pairs: &[(&str, &str)]) -> Result<Limits, QuantityError> {
        let mut resources = Resources::default();
        resources.limits.extend(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        Limits::from_resources(&resources)
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, millis) in [
            ("1", 1000),
            ("500m", 500),
            ("0.1", 100),
            ("1.5", 1500),
            ("2e0", 2000),
            ("1u", 1),
            ("100n", 1),
        ] {
            assert_eq!(
                limits(&[("cpu", text)]).unwrap().cpu_millis,
                Some(millis),
                "{text}"
            );
        }
        for (text, bytes) in [
            ("64Mi", 64 << 20),
            ("1G", 1_000_000_000),
            ("1.5Ki", 1536),
            ("1e3", 1000),
            ("1000m", 1),
        ] {
            assert_eq!(
                limits(&[("memory", text)]).unwrap().memory,
                Some(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_by_name() {
        for text in [
            "",
            "m",
            ".",
            "1.2.3",
            "-1",
            "0",
            "1 Gi",
            "1Zi",
            "99999999999999999999",
            "1e99",
        ] {
            let error = limits(&[("memory", text)]).unwrap_err();
            assert_eq!((error.resource, error.value.as_str()), ("memory", text));
        }
    }

    #[test]
    fn no_limits_limit_nothing() {
        assert!(limits(&[("nvidia.com/gpu", "1")]).unwrap().is_empty());
    }
}
