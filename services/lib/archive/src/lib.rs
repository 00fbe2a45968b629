//! Unpacks program packages and code archives, without trusting them: nothing is written outside the target, no device
//! or socket is made, set-id bits are dropped, and the total size is bounded. Engine (native mode) and the init container
//! of Pods with objects (`baetyl-sync stage`) unpack by the same rules.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use baetyl_model::desire::Unpack;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading the archive or writing its content failed.
    #[error(
        "the {format} archive cannot be unpacked; check that it is complete and that the disk has room"
    )]
    Io {
        /// zip, tar, tgz.
        format: &'static str,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// An entry points out of the target.
    #[error(
        "entry {entry:?} of the archive leads outside of it; make the archive again with relative names"
    )]
    Outside {
        /// Name of the entry.
        entry: String,
    },
    /// More than the limit.
    #[error("the archive holds more than {limit} bytes; raise objects.max_unpacked or split it")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
}

/// Unpacks `archive` into the empty directory `target`; at most `limit` bytes.
///
/// # Errors
/// See [`ArchiveError`]; `target` may then be filled in part.
pub fn unpack(
    archive: &Path,
    format: Unpack,
    target: &Path,
    limit: u64,
) -> Result<(), ArchiveError> {
    let fail = |source: io::Error| match source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Refused>())
    {
        Some(Refused::Outside(entry)) => ArchiveError::Outside {
            entry: entry.clone(),
        },
        Some(Refused::TooLarge) => ArchiveError::TooLarge { limit },
        None => ArchiveError::Io {
            format: format.as_str(),
            source,
        },
    };
    let file = File::open(archive).map_err(fail)?;
    let mut writer = Writer {
        target,
        left: limit,
    };
    match format {
        Unpack::None => Ok(()),
        Unpack::Zip => writer.zip(file),
        Unpack::Tar => writer.tar(BufReader::new(file)),
        Unpack::Tgz => writer.tar(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
    }
    .map_err(fail)
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0} leads outside")]
    Outside(String),
    #[error("too large")]
    TooLarge,
}

struct Writer<'a> {
    target: &'a Path,
    left: u64,
}

impl Writer<'_> {
    fn zip(&mut self, file: File) -> io::Result<()> {
        let mut archive = zip::ZipArchive::new(BufReader::new(file))?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index)?;
            let path = self.inside(Path::new(&*entry.name()?))?;
            let mode = entry.unix_mode().unwrap_or(0o644);
            if entry.is_dir() {
                fs::create_dir_all(&path)?;
            } else if entry.is_symlink() {
                let mut to = String::new();
                entry.by_ref().take(4096).read_to_string(&mut to)?;
                self.link(&path, Path::new(&to))?;
            } else {
                self.file(&path, &mut entry, mode)?;
            }
        }
        Ok(())
    }

    fn tar(&mut self, reader: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = self.inside(&entry.path()?)?;
            let mode = entry.header().mode().unwrap_or(0o644);
            match entry.header().entry_type() {
                tar::EntryType::Directory => fs::create_dir_all(&path)?,
                tar::EntryType::Symlink => {
                    let to = entry.link_name()?.unwrap_or_default().into_owned();
                    self.link(&path, &to)?;
                }
                tar::EntryType::Link => {
                    let to = self.inside(&entry.link_name()?.unwrap_or_default())?;
                    self.no_links_above(&to)?;
                    self.file(
                        &path,
                        &mut File::open(&to)?,
                        fs::metadata(&to)?.permissions().mode(),
                    )?;
                }
                tar::EntryType::Regular
                | tar::EntryType::Continuous
                | tar::EntryType::GNUSparse => {
                    self.file(&path, &mut entry, mode)?;
                }
                // Devices, pipes and headers of extensions: nothing a program package needs.
                _ => {}
            }
        }
        Ok(())
    }

    /// Where an entry goes; refuses names that lead out of the target.
    fn inside(&self, name: &Path) -> io::Result<PathBuf> {
        let outside = || refused(Refused::Outside(name.display().to_string()));
        let mut path = self.target.to_owned();
        for part in name.components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(outside());
                }
            }
        }
        Ok(path)
    }

    /// Writing through a link that an earlier entry made would leave the target.
    fn no_links_above(&self, path: &Path) -> io::Result<()> {
        let mut current = path.parent();
        while let Some(dir) =
            current.filter(|dir| dir.starts_with(self.target) && *dir != self.target)
        {
            if fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_symlink()) {
                return Err(refused(Refused::Outside(path.display().to_string())));
            }
            current = dir.parent();
        }
        Ok(())
    }

    /// A symbolic link is kept when it stays inside.
    fn link(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        let outside = || {
            refused(Refused::Outside(format!(
                "{} -> {}",
                path.display(),
                to.display()
            )))
        };
        let base = path.parent().unwrap_or(self.target);
        let mut depth = base
            .strip_prefix(self.target)
            .map_err(|_| outside())?
            .components()
            .count();
        for part in to.components() {
            match part {
                Component::Normal(_) => depth += 1,
                Component::CurDir => {}
                Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(outside)?,
                Component::RootDir | Component::Prefix(_) => return Err(outside()),
            }
        }
        self.make_room(path)?;
        std::os::unix::fs::symlink(to, path)
    }

    fn file(&mut self, path: &Path, content: &mut impl Read, mode: u32) -> io::Result<()> {
        self.make_room(path)?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o777 | 0o600)
            .open(path)?;
        let written = io::copy(&mut content.take(self.left.saturating_add(1)), &mut file)?;
        self.left = self
            .left
            .checked_sub(written)
            .ok_or_else(|| refused(Refused::TooLarge))?;
        file.sync_all()
    }

    /// Parent directories there, the entry itself not: a repeated entry wins over the earlier one.
    fn make_room(&self, path: &Path) -> io::Result<()> {
        self.no_links_above(path)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Err(refused(Refused::Outside(path.display().to_string()))),
            Ok(_) => fs::remove_file(path),
            Err(_) => Ok(()),
        }
    }
}

fn refused(why: Refused) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
