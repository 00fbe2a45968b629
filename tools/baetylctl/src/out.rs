//! Standard output, which may be read by a program that does not read to the end, as `head`.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::process::exit;

/// Writes to standard output; what is left of the work is done all the same when nobody reads it any more. Any other
/// failure ends the program.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    match std::io::stdout().lock().write_fmt(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("baetylctl: cannot write to standard output: {error}");
            exit(1);
        }
        _ => {}
    }
}
