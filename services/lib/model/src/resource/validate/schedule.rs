//! Timetables of scheduled jobs, as Kubernetes reads them: `minute hour day-of-month month day-of-week`.

/// A field: its name, its range, and the words that stand for numbers.
struct Field {
    name: &'static str,
    from: u32,
    to: u32,
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WORDS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

const FIELDS: [Field; 5] = [
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day of month", 1, 31, &[]),
    field("month", 1, 12, &MONTHS),
    field("day of week", 0, 6, &DAYS),
];

const fn field(name: &'static str, from: u32, to: u32, words: &'static [&'static str]) -> Field {
    Field {
        name,
        from,
        to,
        words,
    }
}

/// Whether a text is a timetable: five fields, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
///
/// # Errors
/// What is wrong with it, as a sentence part.
pub fn check(text: &str) -> Result<(), String> {
    if text.starts_with('@') {
        return if WORDS.contains(&text) {
            Ok(())
        } else {
            Err(format!("\"{text}\" is not one of {}", WORDS.join(", ")))
        };
    }
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "\"{text}\" has {} fields; minute, hour, day of month, month and day of week are needed, e.g. */5 * * * *",
            parts.len()
        ));
    }
    for (field, part) in FIELDS.iter().zip(parts) {
        if !part.split(',').all(|item| field.takes(item)) {
            return Err(format!(
                "\"{part}\" is not a {}: numbers from {} to {}, ranges (a-b), steps (*/n), lists (a,b) or * are wanted",
                field.name, field.from, field.to
            ));
        }
    }
    Ok(())
}

impl Field {
    fn takes(&self, item: &str) -> bool {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|step| *step > 0)),
            None => (item, Some(1)),
        };
        let range = match range {
            "*" | "?" => Some((self.from, self.to)),
            range => match range.split_once('-') {
                Some((from, to)) => self.number(from).zip(self.number(to)),
                None => self.number(range).map(|number| (number, number)),
            },
        };
        step.is_some() && range.is_some_and(|(from, to)| from <= to)
    }

    fn number(&self, text: &str) -> Option<u32> {
        let word = self
            .words
            .iter()
            .position(|word| text.eq_ignore_ascii_case(word));
        let number = match word {
            Some(at) => u32::try_from(at).ok()?.checked_add(self.from)?,
            None if text.bytes().all(|digit| digit.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.from..=self.to).contains(&number).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn timetables_are_read_as_kubernetes_reads_them() {
        for good in [
            "* * * * *",
            "*/5 * * * *",
            "0 0 1 1 0",
            "59 23 31 12 6",
            "0,30 8-18/2 ? jan-MAR mon,Wed,fri",
            "5/15 * * * *",
            "@hourly",
            "@daily",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "*/x * * * *",
            "5-1 * * * *",
            ", * * * *",
            "-1 * * * *",
            "+1 * * * *",
            "TZ=UTC * * * * *",
            "@every 5m",
            "@noon",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
