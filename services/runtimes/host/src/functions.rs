//! The functions of the application, from the file the cloud generates (`etc/baetyl/conf.yml`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file is small; anything longer is a mistake.
const MAX_FILE: u64 = 1024 * 1024;

/// One function. Keys as Baetyl v2 writes them; `timeoutMs` is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// What callers call it.
    pub name: String,
    /// `module.function`.
    pub handler: String,
    /// Directory of the module, relative to the code directory.
    #[serde(default)]
    pub codedir: String,
    /// Longest time one invocation may take, in milliseconds; 0 = the proxy's default.
    #[serde(default, rename = "timeoutMs", skip_serializing_if = "is_zero")]
    pub timeout_ms: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Baetyl v2 files may also have `server` and `logger`, which mean nothing here and are left alone.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    functions: Vec<Function>,
}

/// Why the functions are not known.
#[derive(Debug, thiserror::Error)]
pub enum FunctionsError {
    /// No such file, or not readable.
    #[error(
        "cannot read the functions from {path}; the application mounts them as etc/baetyl/conf.yml (BAETYL_FUNCTIONS_FILE names another place)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not YAML of the expected shape.
    #[error("{path} is not a list of functions {{name, handler, codedir}}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_norway::Error,
    },
    /// The list is there and wrong.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What and where.
        problem: String,
    },
}

/// Reads and checks the file.
///
/// # Errors
/// When it cannot be read, is not what it should be, names no function, or one twice.
pub fn load(path: &Path) -> Result<Vec<Function>, FunctionsError> {
    let text =
        baetyl_kit::fsio::read_limited(path, MAX_FILE).map_err(|source| FunctionsError::Read {
            path: path.to_owned(),
            source,
        })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<Function>, FunctionsError> {
    let file: File = serde_norway::from_slice(text).map_err(|source| FunctionsError::Parse {
        path: path.to_owned(),
        source,
    })?;
    let problem = |problem: String| FunctionsError::Invalid {
        path: path.to_owned(),
        problem,
    };
    if file.functions.is_empty() {
        return Err(problem(
            "no function is listed; add one under functions".to_owned(),
        ));
    }
    let mut names = BTreeSet::new();
    for function in &file.functions {
        if function.name.is_empty() {
            return Err(problem("a function without a name".to_owned()));
        }
        if !names.insert(&function.name) {
            return Err(problem(format!(
                "function {} is listed twice",
                function.name
            )));
        }
    }
    Ok(file.functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Function>, String> {
        parse(Path::new("conf.yml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_generated_file_of_v2_is_read_with_whatever_else_it_says() {
        let text = r#"{"functions":[{"name":"f","handler":"index.handler","codedir":"."},{"name":"g","handler":"a.b.c"}],
            "server":{"address":"x"},"logger":{"level":"debug"}}"#;
        let functions = parsed(text).unwrap();
        assert_eq!(functions.len(), 2);
        assert_eq!(functions[0].codedir, ".");
        assert_eq!(
            (functions[1].codedir.as_str(), functions[1].timeout_ms),
            ("", 0)
        );
    }

    #[test]
    fn mistakes_name_the_file_and_the_function() {
        assert!(
            parsed("{}")
                .unwrap_err()
                .contains("conf.yml: no function is listed")
        );
        assert!(
            parsed("functions: [{handler: a.b}]")
                .unwrap_err()
                .contains("conf.yml is not a list of functions")
        );
        let twice = "functions: [{name: f, handler: a.b}, {name: f, handler: a.c}]";
        assert!(
            parsed(twice)
                .unwrap_err()
                .contains("function f is listed twice")
        );
    }
}
