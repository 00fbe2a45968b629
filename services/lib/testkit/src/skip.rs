//! Tests that need what not every machine has.

/// Says that a test is skipped because the machine lacks something, and how to have it. Where nothing may be skipped
/// (`BAETYL_TEST_NO_SKIP` is set, as continuous integration does) this fails the test.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to read it")]
pub fn skipped(needs: &str) {
    assert!(
        std::env::var_os("BAETYL_TEST_NO_SKIP").is_none(),
        "nothing may be skipped here, but this test needs {needs}"
    );
    eprintln!("skipped: needs {needs}");
}
