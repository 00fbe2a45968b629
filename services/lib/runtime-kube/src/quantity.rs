//! Kubernetes' quantities: `250m`, `1526Ki`, `12345678n`, `1e3`, `0.5`.

/// The number a quantity stands for; None: it is none.
pub(crate) fn parse(text: &str) -> Option<f64> {
    let text = text.trim();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && !matches!(letter, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        exponent => {
            let exponent = exponent.strip_prefix(['e', 'E'])?;
            10.0_f64.powi(exponent.parse().ok()?)
        }
    };
    Some(number * factor)
}

/// The same in whole units; what is no quantity counts as nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "floats are cut to what fits, and never negative here"
)]
pub(crate) fn whole(text: &str) -> u64 {
    parse(text).unwrap_or(0.0).max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_suffixes() {
        for (text, number) in [
            ("0", 0.0),
            ("2", 2.0),
            ("0.5", 0.5),
            ("250m", 0.25),
            ("3241918n", 0.003_241_918),
            ("12u", 0.000_012),
            ("1526Ki", 1_562_624.0),
            ("2Gi", 2_147_483_648.0),
            ("129M", 129e6),
            ("129e6", 129e6),
            ("1E3", 1e3),
            ("1E", 1e18),
        ] {
            let parsed = parse(text).unwrap();
            assert!(
                (parsed - number).abs() <= number * 1e-12,
                "{text}: {parsed}"
            );
        }
        for text in ["", "x", "1x", "Ki", "1eMi"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(whole("1526Ki"), 1_562_624);
        assert_eq!(whole("-5"), 0);
    }
}
