//! Kubernetes quantities: `250m`, `1.5`, `64Mi`, `2k`, `1e3`.

use std::fmt;
use std::str::FromStr;

/// An amount, exact to a billionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity {
    nano: i128,
}

/// Text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a quantity; examples: 250m, 0.5, 2, 64Mi, 1Gi")]
pub struct QuantityError(pub String);

const NANO: i128 = 1_000_000_000;

/// Factor of a suffix in billionths.
fn factor(suffix: &str) -> Option<i128> {
    let factor = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            if !(-9..=18).contains(&power) {
                return None;
            }
            10_i128.pow(u32::try_from(power + 9).ok()?)
        }
    };
    Some(factor)
}

fn parse(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0
        || fraction.contains('.')
        || whole.len() > 19
        || fraction.len() > 18
    {
        return None;
    }
    let factor = factor(suffix)?;
    let digits = |digits: &str| {
        if digits.is_empty() {
            Some(0)
        } else {
            digits.parse::<i128>().ok()
        }
    };
    let part =
        digits(fraction)?.checked_mul(factor)? / 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let nano = digits(whole)?.checked_mul(factor)?.checked_add(part)?;
    Some(if negative { -nano } else { nano })
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text)
            .map(|nano| Self { nano })
            .ok_or_else(|| QuantityError(text.to_owned()))
    }
}

impl Quantity {
    /// As a fraction, e.g. cores.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure for people and for cgroup limits; 15 digits are enough"
    )]
    pub fn as_f64(self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// As whole units, rounded up, e.g. bytes. Negative amounts give 0, larger ones than fit the largest number.
    pub fn as_u64(self) -> u64 {
        u64::try_from(
            self.nano.max(0).div_euclid(NANO) + i128::from(self.nano.max(0).rem_euclid(NANO) != 0),
        )
        .unwrap_or(u64::MAX)
    }

    /// In thousandths, rounded up, e.g. milli-cores.
    pub fn as_milli(self) -> u64 {
        let milli = NANO / 1000;
        u64::try_from(
            self.nano.max(0).div_euclid(milli)
                + i128::from(self.nano.max(0).rem_euclid(milli) != 0),
        )
        .unwrap_or(u64::MAX)
    }

    /// True below zero.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }
}

impl fmt::Display for Quantity {
    /// Plain decimal digits, as Baetyl v2's views show quantities.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nano < 0 { "-" } else { "" };
        let (whole, rest) = (self.nano.abs() / NANO, self.nano.abs() % NANO);
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let fraction = format!("{rest:09}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, plain) in [
            ("250m", "0.25"),
            ("1526Ki", "1562624"),
            ("1Gi", "1073741824"),
            ("0.5", "0.5"),
            (".5", "0.5"),
            ("2.", "2"),
            ("2k", "2000"),
            ("1e3", "1000"),
            ("1E-3", "0.001"),
            ("3E", "3000000000000000000"),
            ("100n", "0.0000001"),
            ("-1", "-1"),
            ("0", "0"),
            ("1.5Gi", "1610612736"),
        ] {
            assert_eq!(quantity(text).to_string(), plain, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_quantities() {
        for text in [
            "",
            "bogus",
            "1 Gi",
            "1gi",
            "1KB",
            "..5",
            "1.2.3",
            "m",
            "-",
            "1e99",
            "99999999999999999999",
            "１",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_a_unit_round_up() {
        assert_eq!(quantity("1500u").as_milli(), 2);
        assert_eq!(quantity("0.1").as_u64(), 1);
        assert_eq!(quantity("-5").as_u64(), 0);
        assert_eq!(quantity("1Gi").as_u64(), 1 << 30);
        assert!((quantity("250m").as_f64() - 0.25).abs() < 1e-12);
    }
}
