//! Making the directory of an instance: volumes, files beside them, and which program is started in it.
//!
//! May be repeated: what is already as it should be is left alone, so a directory that a power cut left half made is
//! completed, and a restart writes nothing to flash.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::paths::Paths;
use crate::spec::{Content, FileSpec, InstanceId, InstanceSpec, Mount, MountSource, RunAs};
use crate::status::Warning;

mod dir;
pub(crate) mod program;
#[cfg(test)]
mod tests;

use dir::Dir;

/// Why an instance directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Something could not be written or read.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path would lead out of the instance.
    #[error(
        "{what} has the path \"{path}\", which leads out of the instance directory: use plain names"
    )]
    Outside {
        /// Volume or file.
        what: String,
        /// The path.
        path: String,
    },
    /// The user of the instance could not come to its directory.
    #[error("user {uid} cannot pass {dir}: give that directory the mode 711, or run the application as our own user", dir = dir.display())]
    Closed {
        /// The user.
        uid: u32,
        /// The first directory that is closed to it.
        dir: PathBuf,
    },
    /// Two volumes want one place.
    #[error("volume {name} is mounted at \"{path}\", {why}: give it another path")]
    Overlap {
        /// The volume.
        name: String,
        /// Its path.
        path: String,
        /// What is wrong with the place.
        why: String,
    },
    /// A part of a volume that it does not hold.
    #[error("volume {name} holds no \"{sub_path}\" (subPath of its mount at \"{path}\")")]
    SubPath {
        /// The volume.
        name: String,
        /// The part.
        sub_path: String,
        /// The path of the mount.
        path: String,
    },
}

/// Makes the directory of one instance. Blocks: call it from a blocking task.
pub(crate) fn materialise(
    paths: &Paths,
    id: &InstanceId,
    spec: &InstanceSpec,
) -> Result<Vec<Warning>, PrepareError> {
    let root = paths.instance(id);
    let mut warnings = Vec::new();
    let mode = if spec.user.is_some() { 0o700 } else { 0o755 };
    let instance = Dir::create(&root, mode, spec.user).map_err(at("make", &root))?;
    if let Some(user) = spec.user {
        open_the_way(&paths.run, &root)?;
        check_the_way(&paths.run, user)?;
    }
    let mounts = Places::check(&spec.mounts)?;
    let mut on_disk = false;
    for (index, (place, mount)) in mounts.0.iter().enumerate() {
        let target = root.join(place);
        match &mount.source {
            MountSource::HostPath(path) => {
                put_host_path(&instance, place, &host_path(paths, path), mount, &target)?
            }
            MountSource::EmptyDir => {
                let dir = if mount.sub_path.is_empty() {
                    place.clone()
                } else {
                    place.join(relative(mount_name(mount), &mount.sub_path)?)
                };
                instance.enter_path(&dir).map_err(at("make", &target))?;
            }
            MountSource::Config(files) => {
                put_files(&instance, place, &selected(mount, files)?, 0o644, &target)?
            }
            MountSource::Secret(files) => {
                let files = selected(mount, files)?;
                match paths.secrets(id) {
                    Some(secrets) => put_secret(
                        &instance, place, &secrets, index, &files, spec.user, &target,
                    )?,
                    None => {
                        on_disk |= !files.is_empty();
                        put_files(&instance, place, &files, 0o600, &target)?;
                    }
                }
            }
        }
    }
    for file in &spec.files {
        let place = relative(|| format!("file {}", file.path), &file.path)?;
        put_file(&instance, &place, file, 0o600, &root.join(&place))?;
    }
    if on_disk {
        warnings.push(Warning {
            kind: "SecretsOnDisk",
            message: "no directory in memory can be used: secret files lie on disk, mode 0600"
                .to_owned(),
        });
    }
    Ok(warnings)
}

/// Puts one file into the directory of an instance, also while it runs; the directory is made when it was lost. Nothing
/// is written when the file is as it should be. Blocks.
///
/// # Errors
/// When it cannot be written, or its path leads out of the directory.
pub fn put_instance_file(
    dir: &Path,
    file: &FileSpec,
    user: Option<RunAs>,
) -> Result<(), PrepareError> {
    let mode = if user.is_some() { 0o700 } else { 0o755 };
    let instance = Dir::create(dir, mode, user).map_err(at("make", dir))?;
    let place = relative(|| format!("file {}", file.path), &file.path)?;
    put_file(&instance, &place, file, 0o600, &dir.join(&place))
}

/// Where each volume goes, outer ones first.
struct Places<'a>(Vec<(PathBuf, &'a Mount)>);

impl<'a> Places<'a> {
    fn check(mounts: &'a [Mount]) -> Result<Self, PrepareError> {
        let mut places = BTreeMap::new();
        for mount in mounts {
            let place = relative(mount_name(mount), &mount.path)?;
            let overlap = |why: String| PrepareError::Overlap {
                name: mount.name.clone(),
                path: mount.path.clone(),
                why,
            };
            if place.as_os_str().is_empty() {
                return Err(overlap("which is the instance directory itself".to_owned()));
            }
            if let Some(other) = places.insert(place, mount) {
                return Err(overlap(format!("where volume {} is already", other.name)));
            }
        }
        for (place, mount) in &places {
            // Writing beneath a host path would write to the machine's own directories.
            let outer = place
                .ancestors()
                .skip(1)
                .filter_map(|outer| places.get(outer))
                .find(|outer| is_link(outer));
            if let Some(outer) = outer {
                let why = format!(
                    "inside volume {}, which is not a directory of the instance",
                    outer.name
                );
                return Err(PrepareError::Overlap {
                    name: mount.name.clone(),
                    path: mount.path.clone(),
                    why,
                });
            }
        }
        // A map in the order of paths has what is outer before what is inner.
        Ok(Self(places.into_iter().collect()))
    }
}

/// True for volumes that appear as a link (secrets do when they are in memory; which may change, so always).
fn is_link(mount: &Mount) -> bool {
    matches!(
        mount.source,
        MountSource::HostPath(_) | MountSource::Secret(_)
    )
}

fn mount_name(mount: &Mount) -> impl Fn() -> String + '_ {
    || format!("volume {}", mount.name)
}

/// A path beneath the instance directory.
fn relative(what: impl Fn() -> String, path: &str) -> Result<PathBuf, PrepareError> {
    let mut place = PathBuf::new();
    for component in Path::new(path.trim_start_matches('/')).components() {
        match component {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            _ => {
                return Err(PrepareError::Outside {
                    what: what(),
                    path: path.to_owned(),
                });
            }
        }
    }
    Ok(place)
}

fn host_path(paths: &Paths, path: &Path) -> PathBuf {
    if path.is_absolute() {
        path.to_owned()
    } else {
        paths.host.join(path)
    }
}

fn put_host_path(
    instance: &Dir,
    place: &Path,
    path: &Path,
    mount: &Mount,
    target: &Path,
) -> Result<(), PrepareError> {
    let path = match mount.sub_path.as_str() {
        "" => path.to_owned(),
        sub_path => path.join(relative(mount_name(mount), sub_path)?),
    };
    if !path.exists() {
        instance
            .make_outside(&path)
            .map_err(at("make the host path", &path))?;
    }
    let (parent, name) = instance.parent_of(place).map_err(at("make", target))?;
    parent.put_symlink(name, &path).map_err(at("link", target))
}

/// A directory in memory, and a link to it.
fn put_secret(
    instance: &Dir,
    place: &Path,
    secrets: &Path,
    index: usize,
    files: &Files<'_>,
    user: Option<RunAs>,
    target: &Path,
) -> Result<(), PrepareError> {
    let home = secrets.join(index.to_string());
    let dir = Dir::create(&home, 0o700, user).map_err(at("make", &home))?;
    if let Some(root) = secrets
        .ancestors()
        .nth(SECRET_DEPTH)
        .filter(|_| user.is_some())
    {
        open_the_way(root, &home)?;
    }
    let to = match files {
        Files::All(files) => {
            for (place, file) in files {
                put_file(&dir, place, file, 0o600, &home.join(place))?;
            }
            home
        }
        Files::One(file) => {
            put_file(&dir, Path::new("file"), file, 0o600, &home.join("file"))?;
            home.join("file")
        }
    };
    let (parent, name) = instance.parent_of(place).map_err(at("make", target))?;
    parent.put_symlink(name, &to).map_err(at("link", target))
}

/// `<ns>/<app>/<version>/<service>/<i>` beneath the directory of all secrets.
const SECRET_DEPTH: usize = 5;

/// What is above the directories of the runtime is not ours to open.
fn check_the_way(run_dir: &Path, user: RunAs) -> Result<(), PrepareError> {
    match closed_above(run_dir, user) {
        Some(dir) => Err(PrepareError::Closed { uid: user.uid, dir }),
        None => Ok(()),
    }
}

/// The nearest directory above a place that the user cannot pass.
fn closed_above(place: &Path, user: RunAs) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let is_closed = |dir: &&Path| {
        let Ok(metadata) = fs::metadata(dir) else {
            return false;
        };
        let (owner, group) = (metadata.uid() == user.uid, metadata.gid() == user.gid);
        let bit = if owner {
            0o100
        } else if group {
            0o010
        } else {
            0o001
        };
        metadata.mode() & bit == 0
    };
    let mut above = place.ancestors().skip(1);
    above.find(is_closed).map(Path::to_owned)
}

/// Lets another user pass (not list) the directories between `root` and `leaf`.
fn open_the_way(root: &Path, leaf: &Path) -> Result<(), PrepareError> {
    use std::os::unix::fs::PermissionsExt;
    for dir in leaf
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(root))
    {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).map_err(at("open", dir))?;
    }
    Ok(())
}

/// What of a volume appears.
enum Files<'a> {
    /// All of it, or one directory of it: as a directory.
    All(Vec<(PathBuf, &'a FileSpec)>),
    /// One file: as that file.
    One(&'a FileSpec),
}

impl Files<'_> {
    fn is_empty(&self) -> bool {
        matches!(self, Self::All(files) if files.is_empty())
    }
}

fn selected<'a>(mount: &Mount, files: &'a [FileSpec]) -> Result<Files<'a>, PrepareError> {
    let sub_path = relative(mount_name(mount), &mount.sub_path)?;
    let mut all = Vec::new();
    for file in files {
        let place = relative(|| format!("a file of volume {}", mount.name), &file.path)?;
        match place.strip_prefix(&sub_path) {
            Ok(rest)
                if rest.as_os_str().is_empty()
                    && !mount.sub_path.is_empty()
                    && !matches!(file.content, Content::Tree(_)) =>
            {
                return Ok(Files::One(file));
            }
            Ok(rest) => all.push((rest.to_owned(), file)),
            Err(_) => {}
        }
    }
    if all.is_empty() && !mount.sub_path.is_empty() {
        let (name, sub_path, path) = (
            mount.name.clone(),
            mount.sub_path.clone(),
            mount.path.clone(),
        );
        return Err(PrepareError::SubPath {
            name,
            sub_path,
            path,
        });
    }
    Ok(Files::All(all))
}

fn put_files(
    instance: &Dir,
    place: &Path,
    files: &Files<'_>,
    mode: u32,
    target: &Path,
) -> Result<(), PrepareError> {
    match files {
        Files::One(file) => put_file(instance, place, file, mode, target),
        Files::All(files) => {
            let dir = instance.enter_path(place).map_err(at("make", target))?;
            for (place, file) in files {
                put_file(&dir, place, file, mode, &target.join(place))?;
            }
            Ok(())
        }
    }
}

fn put_file(
    dir: &Dir,
    place: &Path,
    file: &FileSpec,
    mode: u32,
    target: &Path,
) -> Result<(), PrepareError> {
    let mode = file.mode.unwrap_or(mode);
    let put = || match &file.content {
        Content::Tree(from) => dir.enter_path(place)?.put_tree(from, mode),
        content => {
            let (parent, name) = dir.parent_of(place)?;
            match content {
                Content::Bytes(bytes) => parent.put_bytes(name, bytes, mode),
                Content::Link(from) => parent.put_link(name, from, mode),
                Content::Copy(from) | Content::Tree(from) => parent.put_copy(name, from, mode),
            }
        }
    };
    put().map_err(at("write", target))
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PrepareError + 'a {
    move |source| PrepareError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
