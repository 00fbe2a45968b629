//! Removes what an edge node kept on a machine: where a cluster has no other program that could.

use std::io;
use std::path::Path;
use std::process::ExitCode;

/// The name every directory of ours ends with: nothing else is removed, whatever is asked for.
const NAME: &str = "baetyl";

/// Why a directory is still there.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// Not one of ours.
    #[error("{path} is no directory of an edge node: those are called {NAME}", path = .0.display())]
    Foreign(std::path::PathBuf),
    /// The operating system refused.
    #[error("{path} cannot be removed", path = .path.display())]
    Remove {
        /// Which one.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Removes a directory with everything in it, and follows no link out of it. One that is not there is removed already.
///
/// # Errors
/// When it is none of ours, or something in it cannot be removed.
pub fn purge(dir: &Path) -> Result<(), PurgeError> {
    if dir.file_name().is_none_or(|name| name != NAME) {
        return Err(PurgeError::Foreign(dir.to_owned()));
    }
    match std::fs::remove_dir_all(dir) {
        // A disk of its own is mounted there: it is emptied; the mount stays.
        Err(source) if source.kind() == io::ErrorKind::ResourceBusy && is_empty(dir) => Ok(()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PurgeError::Remove {
            path: dir.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// The program.
#[expect(clippy::print_stderr, reason = "its log is what a person reads")]
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    match purge(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baetyl-init: {}", baetyl_kit::error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_ours_goes_with_everything_and_nothing_behind_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (dir.path().join("baetyl"), dir.path().join("other"));
        std::fs::create_dir_all(ours.join("core/node")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&other, ours.join("link")).unwrap();
        purge(&ours).unwrap();
        assert!(!ours.exists() && other.join("file").exists());
        purge(&ours).unwrap();
        let foreign = purge(&other).unwrap_err();
        assert!(
            foreign
                .to_string()
                .contains("is no directory of an edge node")
        );
        assert!(other.exists());
    }
}
