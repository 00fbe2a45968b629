//! Temporary directories.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary data directory (mode 0700, removed on drop) whose path is short enough for Unix sockets.
#[derive(Debug)]
pub struct TestDir(TempDir);

impl TestDir {
    /// Directly under `/tmp`: `$TMPDIR` may be so deep that a socket path does not fit into 108 bytes.
    #[expect(
        clippy::new_without_default,
        reason = "a default that makes a directory would surprise"
    )]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bt-")
            .tempdir_in("/tmp")
            .expect("a temporary directory can be made in /tmp");
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in it (and the directories before it) and gives its path.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        let parent = path.parent().expect("a file in a directory has a parent");
        std::fs::create_dir_all(parent).expect("the directory can be made");
        std::fs::write(&path, content).expect("the file can be written");
        path
    }

    /// Keeps the directory after the test and gives its path, to look into a failure.
    pub fn keep(self) -> PathBuf {
        self.0.keep()
    }
}

impl AsRef<Path> for TestDir {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}
