//! What lies in the directory of a configuration: its plain items, then its objects in the order of the plan, as files or
//! unpacked. Every user of the machine may read it: containers run as users of their own. All functions block.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use baetyl_model::desire::Unpack;
use baetyl_model::objects::{StagePlan, StagedObject};

use super::StageError;
use super::place::remove;
use crate::store::Store;

/// Puts the directory together in `work`, durable, and gives where it is.
///
/// # Errors
/// When the disk refuses, an archive cannot be unpacked, or two things want one place.
pub(super) fn assemble(
    items: Option<&Path>,
    plan: &StagePlan,
    store: &Store,
    work: &Path,
) -> Result<PathBuf, StageError> {
    let (tree, unpacked) = (work.join("tree"), work.join("unpacked"));
    for dir in [&tree, &unpacked] {
        remove(dir).map_err(StageError::io("remove", dir))?;
    }
    fs::create_dir(&tree).map_err(StageError::io("create", &tree))?;
    if let Some(items) = items {
        copy_items(items, &tree)?;
    }
    let mut linked = HashSet::new();
    for object in &plan.objects {
        let gone = || StageError::io("find an object in", work)(io::ErrorKind::NotFound.into());
        let file = store.object(&object.digest)?.ok_or_else(gone)?;
        if object.unpack == Unpack::None {
            let place = tree.join(object.file_name.as_str());
            // Two names of one object are two files: nobody expects that writing to one changes the other.
            put_file(object, &file, &place, linked.insert(object.digest))?;
            continue;
        }
        fs::create_dir(&unpacked).map_err(StageError::io("create", &unpacked))?;
        baetyl_archive::unpack(&file, object.unpack, &unpacked, plan.max_unpacked).map_err(
            |source| StageError::Archive {
                file: object.file_name.to_string(),
                source,
            },
        )?;
        merge(object, &unpacked, &tree)?;
        remove(&unpacked).map_err(StageError::io("remove", &unpacked))?;
    }
    settle(&tree).map_err(StageError::io("write", &tree))?;
    Ok(tree)
}

/// The files of a mounted ConfigMap; names that begin with two dots are the kubelet's.
fn copy_items(items: &Path, tree: &Path) -> Result<(), StageError> {
    let reading = |error| StageError::io("read", items)(error);
    for entry in fs::read_dir(items).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let (name, path) = (entry.file_name(), entry.path());
        if name.to_string_lossy().starts_with("..") || !path.is_file() {
            continue;
        }
        let place = tree.join(&name);
        fs::copy(&path, &place).map_err(StageError::io("write", &place))?;
    }
    Ok(())
}

fn put_file(
    object: &StagedObject,
    file: &Path,
    place: &Path,
    may_link: bool,
) -> Result<(), StageError> {
    clear(object, place)?;
    if may_link && fs::hard_link(file, place).is_ok() {
        return Ok(());
    }
    fs::copy(file, place)
        .map(drop)
        .map_err(StageError::io("write", place))
}

/// Moves everything from one directory into another; what comes later wins, as for two volumes at one path.
fn merge(object: &StagedObject, from: &Path, to: &Path) -> Result<(), StageError> {
    for entry in fs::read_dir(from).map_err(StageError::io("read", from))? {
        let path = entry.map_err(StageError::io("read", from))?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        let is_dir = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.is_dir());
        match (is_dir(&path), is_dir(&place)) {
            (Ok(true), Ok(true)) => {
                merge(object, &path, &place)?;
                continue;
            }
            (Ok(true), Ok(false)) => {
                return Err(StageError::Conflict {
                    file: object.file_name.to_string(),
                    place,
                });
            }
            _ => clear(object, &place)?,
        }
        fs::rename(&path, &place).map_err(StageError::io("write", &place))?;
    }
    Ok(())
}

/// Makes a place free for a file.
fn clear(object: &StagedObject, place: &Path) -> Result<(), StageError> {
    match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() => Err(StageError::Conflict {
            file: object.file_name.to_string(),
            place: place.to_owned(),
        }),
        Ok(_) => fs::remove_file(place).map_err(StageError::io("replace", place)),
        Err(_) => Ok(()),
    }
}

/// Gives everything the permissions it shall have, whatever the umask and the archive say, and flushes it.
fn settle(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            settle(&path)?;
        } else if metadata.is_file() {
            let execute = if metadata.permissions().mode() & 0o111 == 0 {
                0
            } else {
                0o111
            };
            fs::set_permissions(&path, Permissions::from_mode(0o644 | execute))?;
            File::open(&path)?.sync_all()?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    File::open(dir)?.sync_all()
}
