//! Where secret files lie: in memory, in a directory of this runtime only.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::config::{NativeConfig, SecretsDir};
use crate::runtime::OpenError;

/// `f_type` of tmpfs and ramfs, from the kernel's magic.h.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// The directory, made; `None`: secrets lie in the instance directories.
pub(crate) fn place(config: &NativeConfig) -> Result<Option<PathBuf>, OpenError> {
    let tag = tag(&config.run_dir);
    match &config.secrets {
        SecretsDir::OnDisk => Ok(None),
        SecretsDir::Memory(dir) => {
            fs::create_dir_all(dir).map_err(|source| OpenError::Dir {
                path: dir.clone(),
                source,
            })?;
            if !is_in_memory(dir) {
                return Err(OpenError::SecretsNotInMemory { path: dir.clone() });
            }
            let own = dir.join(tag);
            make_own(&own).map_err(|source| OpenError::Dir {
                path: own.clone(),
                source,
            })?;
            Ok(Some(own))
        }
        SecretsDir::Auto => {
            let mut own = in_memory()
                .filter(|dir| is_in_memory(dir))
                .map(|dir| dir.join(&tag));
            Ok(own.find(|own| make_own(own).is_ok()))
        }
    }
}

/// Directories in memory, the best first.
fn in_memory() -> impl Iterator<Item = PathBuf> {
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = [
        Some(PathBuf::from("/run")),
        user,
        Some(PathBuf::from("/dev/shm")),
    ];
    places.into_iter().flatten()
}

/// Every directory that may hold secrets of this runtime, by settings of now or of earlier.
pub(crate) fn places(config: &NativeConfig) -> Vec<PathBuf> {
    let chosen = match &config.secrets {
        SecretsDir::Memory(dir) => Some(dir.clone()),
        SecretsDir::Auto | SecretsDir::OnDisk => None,
    };
    let tag = tag(&config.run_dir);
    let dirs = chosen.into_iter().chain(in_memory());
    dirs.map(|dir| dir.join(&tag)).collect()
}

/// A name for what belongs to the runtime of this directory: several can live on one machine (FNV-1a, 64 bits).
pub(crate) fn tag(run_dir: &Path) -> String {
    let path = fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    let hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("baetyl-{hash:016x}")
}

fn is_in_memory(dir: &Path) -> bool {
    // As wide as a word of the machine, and negative for ramfs where that is 32 bits: the low ones are the number.
    rustix::fs::statfs(dir).is_ok_and(|stat| IN_MEMORY.contains(&(stat.f_type as u32)))
}

/// Makes a directory that is ours alone. In a directory everybody can write to, somebody else may have been there first.
fn make_own(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir)?;
    let own = metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.mode() & 0o066 == 0;
    if own {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn config(root: &Path, secrets: SecretsDir) -> NativeConfig {
        let mut config = NativeConfig::beneath(root, PathBuf::new());
        config.secrets = secrets;
        config
    }

    #[test]
    fn a_directory_that_is_not_in_memory_is_refused_when_it_was_asked_for() {
        let error =
            place(&config(Path::new("/x"), SecretsDir::Memory("/proc".into()))).unwrap_err();
        assert!(
            matches!(error, OpenError::SecretsNotInMemory { .. }),
            "{error}"
        );
    }

    #[test]
    fn on_disk_means_no_directory() {
        assert_eq!(
            place(&config(Path::new("/x"), SecretsDir::OnDisk)).unwrap(),
            None
        );
    }

    #[test]
    fn each_data_directory_has_its_own_name() {
        assert_ne!(tag(Path::new("/a")), tag(Path::new("/b")));
        assert_eq!(tag(Path::new("/a")), tag(Path::new("/a")));
    }

    #[test]
    fn a_directory_that_others_can_enter_or_have_planted_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("own");
        make_own(&dir).unwrap();
        make_own(&dir).unwrap();
        // Passing through (711) is what instances with users of their own need.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).unwrap();
        make_own(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        make_own(&dir).unwrap_err();
        symlink(&dir, root.path().join("link")).unwrap();
        make_own(&root.path().join("link")).unwrap_err();
    }
}
