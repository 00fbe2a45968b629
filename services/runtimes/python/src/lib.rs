//! Python for the function runtime host: how a worker is started, and the script it runs.
//!
//! The script is `worker.py`; it travels over the socket the worker inherits, so that nothing has to be installed or
//! written to disk. Python 3.7 or newer, its standard library, no package.
//!
//! # For authors of functions
//!
//! ```python
//! def handler(event, context):
//!     context["http.status"] = 201
//!     context["http.header.x-kind"] = "demo"
//!     return {"hello": event["name"], "by": context["functionName"]}
//! ```
//!
//! `event` is the body as an object if it is JSON, else `bytes`. `context` is a dict with `serviceName`,
//! `functionName`, `invokeId`, and over HTTP `httpMethod`, `httpPath`, `httpQuery` and `header.<name>`; what the handler
//! changes in it goes back to the caller. `None` and `""` answer nothing, `bytes` go as they are, all else becomes JSON.
//! A handler may be `async def`; one that yields streams its values. When the caller goes away, `KeyboardInterrupt`
//! (in an `async def`: `CancelledError`) is raised in the handler; what it has loaded stays loaded.

mod cli;

use std::fs::File;

use baetyl_runtime_host::{Language, Program};
use bytes::Bytes;

pub use cli::main;

/// The worker's script.
pub const SCRIPT: &str = include_str!("worker.py");

/// What the interpreter is given as `-c`: reads the script from the socket and runs it.
const LOADER: &str = "\
import os
def take(n):
    parts = []
    while n:
        part = os.read(0, n)
        if not part:
            raise SystemExit(1)
        parts.append(part)
        n -= len(part)
    return b''.join(parts)
source = take(int.from_bytes(take(4), 'big'))
exec(compile(source, '<baetyl worker>', 'exec'))
";

/// Python 3 with this interpreter; `log` takes what functions print, None leaves it on standard error.
pub fn language(python: &str, log: Option<File>) -> Language {
    let length = u32::try_from(SCRIPT.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    // Unbuffered: a line that was printed is in the log, also when the worker is killed.
    let command = [python, "-u", "-c", LOADER, "baetyl-worker"]
        .map(str::to_owned)
        .to_vec();
    Language {
        name: "python3",
        program: Program {
            command,
            preamble: Bytes::from([&length, SCRIPT.as_bytes()].concat()),
            log,
        },
    }
}

#[cfg(test)]
mod tests;
