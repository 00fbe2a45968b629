//! A directory as Kubernetes mounts a Secret.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::{TestCa, TestIdentity};

/// Files that are links through `..data`, a link to the directory of the present set. A new set is made beside the old
/// one; then `..data` is replaced, which swaps all files in one step, and the old set is removed.
#[derive(Debug)]
pub struct SecretMount {
    dir: PathBuf,
    round: u32,
}

impl SecretMount {
    /// At `dir`, which is made without files if it is not there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).expect("the directory can be made");
        let present = std::fs::read_link(dir.join("..data")).unwrap_or_default();
        let round = present
            .to_str()
            .and_then(|name| name.strip_prefix("..set-")?.parse().ok());
        Self {
            dir,
            round: round.unwrap_or(0),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Swaps in these files.
    pub fn put(&mut self, files: &[(&str, &str)]) {
        let before = self.dir.join(format!("..set-{}", self.round));
        self.round += 1;
        let name = format!("..set-{}", self.round);
        let set = self.dir.join(&name);
        std::fs::create_dir(&set).expect("the set is a new one");
        for (file, text) in files {
            std::fs::write(set.join(file), text).expect("the file can be written");
            let link = self.dir.join(file);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(file), link).expect("a link can be made");
            }
        }
        let swap = self.dir.join("..data_tmp");
        symlink(&name, &swap).expect("a link can be made");
        std::fs::rename(swap, self.dir.join("..data")).expect("the link can be replaced");
        // There is none before the first.
        let _ = std::fs::remove_dir_all(before);
    }

    /// Swaps in the files of a service's identity; `authorities` are all it trusts.
    pub fn identity(&mut self, identity: &TestIdentity, authorities: &[&TestCa]) {
        let authorities: String = authorities.iter().map(|ca| ca.pem()).collect();
        self.put(&[
            ("tls.crt", &identity.chain_pem),
            ("tls.key", &identity.key_pem),
            ("ca.crt", &authorities),
        ]);
    }
}
