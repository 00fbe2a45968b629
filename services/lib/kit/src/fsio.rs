//! Files that survive a power cut: atomic writes, private directories, bounded reads, quarantine.
//!
//! All functions block; call them from `tokio::task::spawn_blocking` when the file is large or the disk
//! may be slow. Nothing here ever deletes what it did not create.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};

/// Replaces `path` with `bytes` so that a reader, also one after a power cut, sees the old or the new
/// content, never a mixture: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// When a step fails; the temporary file is then removed and the old content is still there.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_synced(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_parent(path)
}

/// Flushes the directory that holds `path`, so that a rename or removal in it is durable.
///
/// # Errors
/// When the directory cannot be opened or flushed.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent_of(path))?.sync_all()
}

/// Creates the directory and its missing parents with mode 0700, and narrows an existing one to 0700.
///
/// # Errors
/// When it cannot be created or is not ours.
pub fn create_dir_private(path: &Path) -> io::Result<()> {
    create_dir_mode(path, 0o700)
}

/// Creates the directory with exactly `mode` (missing parents too); sets the mode of an existing one.
///
/// # Errors
/// When it cannot be created or is not ours.
pub fn create_dir_mode(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    let metadata = fs::metadata(path)?;
    if metadata.permissions().mode() & 0o7777 != mode {
        // The umask took bits away, or somebody widened it.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The whole file, unless it is longer than `limit` bytes.
///
/// # Errors
/// What the file system says; `FileTooLarge` beyond the limit.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{} is longer than {limit} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

/// Moves a file or directory that cannot be used out of the way, as `<name>.corrupt-<unix time>-<n>` in
/// the same directory, and says so in the log. Never deletes and never overwrites.
///
/// # Errors
/// When the rename fails; the original is then still in place.
pub fn quarantine(path: &Path) -> io::Result<PathBuf> {
    let name = file_name(path)?;
    let seconds = crate::clock::now().as_second();
    for n in 0..10_000 {
        let target = parent_of(path).join(format!("{name}.corrupt-{seconds}-{n}"));
        match rename_new(path, &target) {
            Ok(()) => {
                // Durable on a best-effort basis: the data is safe under either name.
                let _ = sync_parent(path);
                tracing::error!(file = %path.display(), kept_as = %target.display(),
                    "file could not be used and was put aside");
                return Ok(target);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "{} has been put aside too often; look into the cause and remove the old copies",
        path.display()
    )))
}

/// Room on the file system that holds `path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes this user may still write.
    pub free: u64,
    /// Size of the file system in bytes.
    pub total: u64,
}

/// Room on the file system that holds `path`.
///
/// # Errors
/// When the path does not exist.
pub fn free_space(path: &Path) -> io::Result<Space> {
    let stat = statvfs(path)?;
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The umask may have taken bits away that the caller asked for.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name no other writer uses: two writers of one file must not share their temporary file.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = file_name(path)?;
    let random = crate::crypto::random_hex::<4>().map_err(io::Error::other)?;
    Ok(parent_of(path).join(format!(".{name}.tmp-{random}")))
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Some file systems (older overlayfs, NFS) do not know NOREPLACE.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS)
            if fs::symlink_metadata(to).is_err() =>
        {
            fs::rename(from, to)
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn file_name(path: &Path) -> io::Result<&str> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} does not name a file", path.display()),
            )
        })
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
