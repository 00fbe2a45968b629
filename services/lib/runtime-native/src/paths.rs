//! Where things are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use baetyl_model::{AppName, Namespace, ServiceName, Version};

use crate::config::NativeConfig;
use crate::record::StateDir;
use crate::spec::{InstanceId, Instances as _, WorkloadKey};

/// The directories of the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) run: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) host: PathBuf,
    /// In memory; absent: secrets are in the instance directory.
    pub(crate) secrets: Option<PathBuf>,
}

/// `<ns>/<app>/<version>/<service>`; each part was checked to be one path component when its name was parsed.
fn relative(key: &WorkloadKey) -> PathBuf {
    [
        key.namespace.as_str(),
        key.app.as_str(),
        key.version.as_str(),
        key.service.as_str(),
    ]
    .iter()
    .collect()
}

impl Paths {
    pub(crate) fn new(config: &NativeConfig, secrets: Option<PathBuf>) -> Self {
        Self {
            run: config.run_dir.clone(),
            state: config.state_dir.clone(),
            log: config.log_dir.clone(),
            host: config.host_dir.clone(),
            secrets,
        }
    }

    /// Working directory of an instance.
    pub(crate) fn instance(&self, id: &InstanceId) -> PathBuf {
        self.run
            .join(relative(&id.workload))
            .join(id.index.to_string())
    }

    /// What is recorded about an instance.
    pub(crate) fn state(&self, id: &InstanceId) -> StateDir {
        StateDir(
            self.state
                .join(relative(&id.workload))
                .join(id.index.to_string()),
        )
    }

    /// Secrets of an instance in memory.
    pub(crate) fn secrets(&self, id: &InstanceId) -> Option<PathBuf> {
        let secrets = self.secrets.as_ref()?;
        Some(
            secrets
                .join(relative(&id.workload))
                .join(id.index.to_string()),
        )
    }

    /// Its log.
    pub(crate) fn log(&self, id: &InstanceId) -> PathBuf {
        let key = &id.workload;
        let dir: PathBuf = [
            key.namespace.as_str(),
            key.app.as_str(),
            key.version.as_str(),
        ]
        .iter()
        .collect();
        self.log
            .join(dir)
            .join(format!("{}-{}.log", key.service, id.index))
    }

    /// Instances of a workload that have left something on disk.
    pub(crate) fn instances_on_disk(&self, key: &WorkloadKey) -> io::Result<Vec<InstanceId>> {
        let mut found = Vec::new();
        for root in [&self.state, &self.run] {
            for name in names(&root.join(relative(key)))? {
                if let Ok(index) = name.parse::<u32>() {
                    found.push(key.instance(index));
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Workloads that have left something on disk. Names that are none of ours are skipped.
    pub(crate) fn workloads_on_disk(&self) -> io::Result<Vec<WorkloadKey>> {
        let mut found = Vec::new();
        for root in [&self.state, &self.run] {
            for namespace in names(root)? {
                for app in names(&root.join(&namespace))? {
                    let dir = root.join(&namespace).join(&app);
                    for version in names(&dir)? {
                        for service in names(&dir.join(&version))? {
                            found.extend(parse(&namespace, &app, &version, &service));
                        }
                    }
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The logs of all instances that have left something on disk.
    pub(crate) fn logs_on_disk(&self) -> io::Result<Vec<PathBuf>> {
        let mut logs = Vec::new();
        for key in self.workloads_on_disk()? {
            logs.extend(self.instances_on_disk(&key)?.iter().map(|id| self.log(id)));
        }
        Ok(logs)
    }

    /// Everything of one instance, and the directories above it that are then empty.
    pub(crate) fn remove_instance(&self, id: &InstanceId) -> io::Result<()> {
        let mut trees = vec![
            (self.instance(id), &self.run),
            (self.state(id).0, &self.state),
        ];
        if let (Some(secrets), Some(root)) = (self.secrets(id), &self.secrets) {
            trees.push((secrets, root));
        }
        for (dir, root) in trees {
            remove_tree(&dir)?;
            prune_upwards(&dir, root);
        }
        let log = self.log(id);
        let (Some(dir), Some(name)) =
            (log.parent(), log.file_name().and_then(|name| name.to_str()))
        else {
            return Ok(());
        };
        for entry in names(dir)? {
            // `svc-1.log`, `svc-1.log.1`, … and not `svc-1.logger`.
            if entry
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            {
                crate::record::remove_if_there(&dir.join(entry))?;
            }
        }
        prune_upwards(&log, &self.log);
        Ok(())
    }
}

fn parse(namespace: &str, app: &str, version: &str, service: &str) -> Option<WorkloadKey> {
    Some(WorkloadKey {
        namespace: Namespace::new(namespace).ok()?,
        app: AppName::new(app).ok()?,
        version: Version::new(version).ok()?,
        service: ServiceName::new(service).ok()?,
    })
}

/// Names in a directory that may be absent.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// Removes a tree; never follows a symbolic link out of it.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(dir),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the empty directories between `below` and `root`.
fn prune_upwards(below: &Path, root: &Path) {
    for dir in below
        .ancestors()
        .skip(1)
        .take_while(|dir| *dir != root && dir.starts_with(root))
    {
        if fs::remove_dir(dir).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(app: &str, version: &str) -> WorkloadKey {
        parse("baetyl-edge", app, version, "main").unwrap()
    }

    fn paths(root: &Path) -> Paths {
        let mut config = NativeConfig::beneath(root, PathBuf::from("shim"));
        config.state_dir = root.join("state");
        Paths::new(&config, Some(root.join("secrets")))
    }

    #[test]
    fn places_follow_the_names() {
        let paths = paths(Path::new("/d"));
        let id = key("app.x", "7").instance(2);
        assert_eq!(
            paths.instance(&id),
            Path::new("/d/engine/run/baetyl-edge/app.x/7/main/2")
        );
        assert_eq!(
            paths.log(&id),
            Path::new("/d/log/baetyl-edge/app.x/7/main-2.log")
        );
        assert_eq!(id.to_string(), "baetyl-edge.app.x.7.main.2");
    }

    #[test]
    fn what_is_on_disk_is_found_and_foreign_names_are_not() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        assert_eq!(paths.workloads_on_disk().unwrap(), []);
        fs::create_dir_all(paths.state(&key("one", "1").instance(1)).0).unwrap();
        fs::create_dir_all(paths.instance(&key("one", "1").instance(3))).unwrap();
        fs::create_dir_all(paths.instance(&key("two", "2").instance(1))).unwrap();
        fs::create_dir_all(paths.run.join("baetyl-edge/UPPER/1/main")).unwrap();
        fs::write(paths.run.join("file"), "").unwrap();
        assert_eq!(
            paths.workloads_on_disk().unwrap(),
            [key("one", "1"), key("two", "2")]
        );
        let of_one = paths.instances_on_disk(&key("one", "1")).unwrap();
        assert_eq!(of_one.iter().map(|id| id.index).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn removing_an_instance_leaves_its_neighbours_and_no_empty_directories() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let (gone, stays) = (key("one", "1").instance(1), key("one", "1").instance(10));
        for id in [&gone, &stays] {
            fs::create_dir_all(paths.instance(id)).unwrap();
            fs::create_dir_all(paths.state(id).0).unwrap();
            fs::create_dir_all(paths.log(id).parent().unwrap()).unwrap();
            fs::write(paths.log(id), "x").unwrap();
            fs::write(paths.log(id).with_extension("log.1"), "x").unwrap();
        }
        paths.remove_instance(&gone).unwrap();
        assert!(!paths.instance(&gone).exists() && !paths.log(&gone).exists());
        assert!(
            paths.instance(&stays).exists() && paths.log(&stays).with_extension("log.1").exists()
        );
        paths.remove_instance(&stays).unwrap();
        assert_eq!(
            names(&paths.run).unwrap().len() + names(&paths.log).unwrap().len(),
            0
        );
    }

    #[test]
    fn removing_does_not_follow_links_out_of_the_instance() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let id = key("one", "1").instance(1);
        let precious = root.path().join("precious");
        fs::create_dir_all(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        fs::create_dir_all(paths.instance(&id)).unwrap();
        std::os::unix::fs::symlink(&precious, paths.instance(&id).join("link")).unwrap();
        paths.remove_instance(&id).unwrap();
        assert!(precious.join("file").exists());
    }
}
