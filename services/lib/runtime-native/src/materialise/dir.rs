//! Writing into a directory that an application can write to as well, perhaps as another user, without being led out of
//! it: every step is relative to an open directory and follows no symbolic link.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path};
use std::time::SystemTime;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, linkat, mkdirat, openat, readlinkat, renameat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::spec::RunAs;

/// Name a file has until it is whole.
const TEMPORARY: &str = ".baetyl-new";

/// An open directory and whom it is for.
pub(super) struct Dir {
    fd: OwnedFd,
    user: Option<RunAs>,
}

/// Permission bits of directories in an instance; the instance directory itself decides who may come in.
const DIR_MODE: u32 = 0o755;

impl Dir {
    /// Opens a directory of ours, creating it and what is above it. Links above it are ours and may be followed.
    pub(super) fn create(path: &Path, mode: u32, user: Option<RunAs>) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let dir = Self::open(path, user)?;
        rustix::fs::fchmod(&dir.fd, Mode::from_raw_mode(mode))?;
        dir.own_self()?;
        Ok(dir)
    }

    /// Opens a directory of ours that is there.
    pub(super) fn open(path: &Path, user: Option<RunAs>) -> io::Result<Self> {
        let fd = openat(
            CWD,
            path,
            OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { fd, user })
    }

    fn own_self(&self) -> io::Result<()> {
        if let Some(RunAs { uid, gid }) = self.user {
            rustix::fs::fchown(&self.fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    /// Makes a directory of the machine. It is there for the same user, who could neither come to nor write to one of
    /// ours, whatever our umask is.
    pub(super) fn make_outside(&self, path: &Path) -> io::Result<()> {
        let above = path.ancestors().skip(1);
        let missing = above.take_while(|above| !above.exists()).count();
        fs::create_dir_all(path)?;
        if self.user.is_none() {
            return Ok(());
        }
        for above in path.ancestors().skip(1).take(missing) {
            fs::set_permissions(above, fs::Permissions::from_mode(DIR_MODE))?;
        }
        let made = Self::open(path, self.user)?;
        // What holds anything, or is not ours, is another directory that was put there meanwhile.
        let ours = rustix::fs::fstat(&made.fd)?.st_uid == rustix::process::geteuid().as_raw();
        if ours && fs::read_dir(path)?.next().is_none() {
            made.own_self()?;
        }
        Ok(())
    }

    fn own(&self, name: &OsStr) -> io::Result<()> {
        if let Some(RunAs { uid, gid }) = self.user {
            chownat(
                &self.fd,
                name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }

    /// The directory of that name in it, created when absent.
    fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let created = match mkdirat(&self.fd, name, Mode::from_raw_mode(DIR_MODE)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = Self {
            fd: openat(&self.fd, name, flags, Mode::empty())?,
            user: self.user,
        };
        if created {
            dir.own_self()?;
        }
        Ok(dir)
    }

    /// The directory at a relative path of plain names beneath it.
    pub(super) fn enter_path(&self, path: &Path) -> io::Result<Self> {
        let mut dir = Self {
            fd: self.fd.try_clone()?,
            user: self.user,
        };
        for component in path.components() {
            match component {
                Component::Normal(name) => dir = dir.enter(name)?,
                Component::CurDir => {}
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(dir)
    }

    /// The directory that a relative path is in, and the path's last name.
    pub(super) fn parent_of<'a>(&self, path: &'a Path) -> io::Result<(Self, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((
            self.enter_path(path.parent().unwrap_or(Path::new("")))?,
            name,
        ))
    }

    /// A regular file of that name, opened to read. `None`: there is none.
    fn existing(&self, name: &OsStr) -> io::Result<Option<(File, Metadata)>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then_some((file, metadata)))
    }

    /// A file with these bytes; not written when it has them already.
    pub(super) fn put_bytes(&self, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<()> {
        if let Some((mut file, metadata)) = self.existing(name)?
            && metadata.len() == bytes.len() as u64
        {
            let mut present = Vec::with_capacity(bytes.len());
            file.read_to_end(&mut present)?;
            if present == bytes {
                return self.permit(name, &file, &metadata, mode);
            }
        }
        self.replace(name, mode, |file| file.write_all(bytes))
    }

    /// A copy of a file; not made when size and time are those of the original.
    pub(super) fn put_copy(&self, name: &OsStr, from: &Path, mode: u32) -> io::Result<()> {
        let mut original = File::open(from)?;
        let wanted = original.metadata()?;
        if let Some((file, metadata)) = self.existing(name)?
            && metadata.len() == wanted.len()
            && same_time(&metadata, &wanted)
        {
            return self.permit(name, &file, &metadata, mode);
        }
        self.replace(name, mode, |file| {
            // copy_file_range: shares the blocks where the file system can.
            io::copy(&mut original, file)?;
            file.set_modified(wanted.modified().unwrap_or(SystemTime::UNIX_EPOCH))
        })
    }

    /// A hard link to a file; a copy when that cannot be.
    pub(super) fn put_link(&self, name: &OsStr, from: &Path, mode: u32) -> io::Result<()> {
        let wanted = fs::metadata(from)?;
        if let Some((_, metadata)) = self.existing(name)?
            && (metadata.dev(), metadata.ino()) == (wanted.dev(), wanted.ino())
        {
            return Ok(());
        }
        self.clear(OsStr::new(TEMPORARY))?;
        match linkat(CWD, from, &self.fd, TEMPORARY, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(renameat(&self.fd, TEMPORARY, &self.fd, name)?),
            Err(_) => self.put_copy(name, from, mode),
        }
    }

    /// A copy of a directory with all it holds. Links in it are copied as links.
    pub(super) fn put_tree(&self, from: &Path, mode: u32) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                self.enter(&name)?.put_tree(&path, mode)?;
            } else if metadata.is_symlink() {
                self.put_symlink(&name, &fs::read_link(&path)?)?;
            } else if metadata.is_file() {
                // What may be executed in a package may be executed in its copy.
                self.put_copy(&name, &path, mode | (metadata.permissions().mode() & 0o111))?;
            }
        }
        Ok(())
    }

    /// A symbolic link to `target`. A directory in its place is an error.
    pub(super) fn put_symlink(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        if let Ok(present) = readlinkat(&self.fd, name, Vec::new())
            && present.as_bytes() == target.as_os_str().as_bytes()
        {
            return Ok(());
        }
        self.clear(OsStr::new(TEMPORARY))?;
        symlinkat(target, &self.fd, TEMPORARY)?;
        self.own(OsStr::new(TEMPORARY))?;
        Ok(renameat(&self.fd, TEMPORARY, &self.fd, name)?)
    }

    /// Adds permission to execute to a regular file in it.
    pub(super) fn make_executable(&self, name: &OsStr) -> io::Result<()> {
        if let Some((file, metadata)) = self.existing(name)? {
            let mode = metadata.permissions().mode();
            // Whoever may read it may execute it.
            let wanted = mode | ((mode & 0o444) >> 2);
            if wanted != mode {
                file.set_permissions(fs::Permissions::from_mode(wanted))?;
            }
        }
        Ok(())
    }

    fn replace(
        &self,
        name: &OsStr,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.clear(OsStr::new(TEMPORARY))?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.fd, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?);
        let filled = fill(&mut file).and_then(|()| {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            self.own(OsStr::new(TEMPORARY))?;
            Ok(renameat(&self.fd, TEMPORARY, &self.fd, name)?)
        });
        if filled.is_err() {
            let _ = self.clear(OsStr::new(TEMPORARY));
        }
        filled
    }

    /// Sets the permissions of a file that is kept. An execute bit it was given stays.
    fn permit(&self, name: &OsStr, file: &File, metadata: &Metadata, mode: u32) -> io::Result<()> {
        if metadata.permissions().mode() & 0o7666 != mode & 0o7666 {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        if self.user.is_some_and(|user| metadata.uid() != user.uid) {
            self.own(name)?;
        }
        Ok(())
    }

    fn clear(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// True when there is anything of that name, or a link to nowhere.
    pub(super) fn holds(&self, name: &OsStr) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

fn same_time(one: &Metadata, other: &Metadata) -> bool {
    (one.mtime(), one.mtime_nsec()) == (other.mtime(), other.mtime_nsec())
}
