use super::*;
use proptest::prelude::*;

#[test]
fn times_are_read_with_their_units() {
    for (text, millis) in [
        ("500ms", 500),
        ("10s", 10_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("7d", 604_800_000),
        ("0", 0),
        (" 1s ", 1000),
    ] {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_millis(millis)),
            "{text}"
        );
    }
}

#[test]
fn a_time_without_a_unit_is_refused() {
    for text in [
        "",
        "10",
        "s",
        "10 s",
        "1.5s",
        "-1s",
        "10x",
        "99999999999999999999s",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_are_read_with_their_units() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("64KiB", 65_536),
        ("64kib", 65_536),
        ("10MB", 10_000_000),
        ("2 GiB", 2 << 30),
        ("1TiB", 1 << 40),
        ("5B", 5),
    ] {
        assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
    }
    for text in ["", "MiB", "1.5MiB", "-1", "5XB", "99999999TiB"] {
        assert!(text.parse::<ByteSize>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn a_time_that_was_written_is_read_again(millis in any::<u64>()) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn a_size_that_was_written_is_read_again(bytes in any::<u64>()) {
        prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
    }
}
