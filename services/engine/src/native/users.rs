//! Which user an application runs as: its own, out of a range, where this machine lets engine do that.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use baetyl_model::AppName;
use baetyl_runtime_native::spec::RunAs;
use baetyl_runtime_native::{UidPool, UidsExhausted};

use crate::config::Native;

/// Users of applications.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// None: applications run as engine's own user.
    pool: Option<UidPool>,
    /// Why they do although engine is root and was not told so.
    shared: Option<String>,
}

impl Users {
    /// As the configuration and this machine have it. The data directory must be there.
    pub(crate) fn open(config: &Native, data_dir: &Path) -> Self {
        let range = config.uid_min..=config.uid_max;
        if range.is_empty() || !rustix::process::geteuid().is_root() {
            return Self::default();
        }
        match obstacle(data_dir, config) {
            None => {
                let users = Self::of_range(range);
                for (app, uid) in running(data_dir) {
                    // A range that ends: whoever comes later is told.
                    let _ = users.assign(&app, Some(uid));
                }
                users
            }
            Some(why) => {
                tracing::warn!(why, "applications run as the user of engine");
                Self {
                    pool: None,
                    shared: Some(why),
                }
            }
        }
    }

    /// Users of this range.
    pub(crate) fn of_range(range: std::ops::RangeInclusive<u32>) -> Self {
        Self {
            pool: Some(UidPool::new(range)),
            shared: None,
        }
    }

    /// True when applications have users of their own.
    pub(crate) fn are_own(&self) -> bool {
        self.pool.is_some()
    }

    /// Why applications share engine's user although each should have its own, as a sentence.
    pub(crate) fn shared(&self) -> Option<&str> {
        self.shared.as_deref()
    }

    /// The user of an application, the previous one while it is free; None: engine's own.
    ///
    /// # Errors
    /// When the range is used up.
    pub(crate) fn assign(
        &self,
        app: &AppName,
        previous: Option<u32>,
    ) -> Result<Option<RunAs>, UidsExhausted> {
        let pool = self.pool.as_ref();
        pool.map(|pool| pool.assign(app, previous)).transpose()
    }

    /// The application is gone with all its files.
    pub(crate) fn release(&self, app: &AppName) {
        if let Some(pool) = &self.pool {
            pool.release(app);
        }
    }
}

/// What keeps applications from users of their own on this machine, as a sentence.
fn obstacle(data_dir: &Path, config: &Native) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(missing) = missing_capability(&status) {
        return Some(format!("engine is root without the capability {missing}"));
    }
    for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let mapped = fs::read_to_string(map).unwrap_or_default();
        if !covers(&mapped, config.uid_min, config.uid_max) {
            return Some(format!(
                "the user ids {}-{} do not exist in this container: set native.uid_min and native.uid_max to ids of {map}",
                config.uid_min, config.uid_max
            ));
        }
    }
    closed(data_dir).map(|dir| {
        format!(
            "{} is closed to other users: give it the mode 711 so that each application can run as its own user",
            dir.display()
        )
    })
}

/// What is needed to own, start and end what belongs to others.
const CAPABILITIES: [(&str, u32); 6] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
];

fn missing_capability(status: &str) -> Option<&'static str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let held = u64::from_str_radix(line.trim(), 16).ok()?;
    CAPABILITIES
        .into_iter()
        .find(|(_, bit)| held & (1 << bit) == 0)
        .map(|(name, _)| name)
}

/// Whether one line `<inside> <outside> <count>` of a map has the whole range.
fn covers(map: &str, first: u32, last: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => {
                inside <= u64::from(first) && u64::from(last) < inside + count
            }
            _ => false,
        }
    })
}

/// The first directory on the way to `path`, itself included, that other users cannot pass.
pub(crate) fn closed(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_closed =
        |place: &&Path| fs::metadata(place).is_ok_and(|metadata| metadata.mode() & 0o001 == 0);
    path.ancestors().find(is_closed).map(Path::to_owned)
}

/// Users of what runs on this node: engine's record of them may be lost, and nobody else may be given them.
fn running(data_dir: &Path) -> BTreeMap<AppName, u32> {
    let home = format!("BAETYL_HOST_PATH_LIB={}", data_dir.display());
    let mut users = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environ = fs::read(process.path().join("environ")).unwrap_or_default();
        let words = || environ.split(|byte| *byte == 0);
        if !words().any(|word| word == home.as_bytes()) {
            continue;
        }
        let app = words().find_map(|word| word.strip_prefix(b"BAETYL_APP_NAME="));
        let app = app.and_then(|app| AppName::new(std::str::from_utf8(app).ok()?).ok());
        if let (Some(app), Ok(metadata)) = (app, process.metadata())
            && metadata.uid() != 0
        {
            users.insert(app, metadata.uid());
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_root_without_the_needed_capabilities_and_ids_that_do_not_exist_are_told() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert_eq!(missing_capability(all), None);
        assert_eq!(
            missing_capability("CapEff:\t000000000000002b\n"),
            Some("CAP_SETGID")
        );
        assert!(covers("         0          0 4294967295\n", 70_000, 79_999));
        assert!(!covers("0 100000 65536\n", 70_000, 79_999));
        assert!(covers("0 1000 1\n1 100000 65536\n", 60_000, 60_010));
        assert!(!covers("", 1, 2));
    }

    #[test]
    fn a_directory_that_others_cannot_pass_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let private = fs::canonicalize(dir.path()).unwrap();
        assert_eq!(closed(&data), Some(private.clone()));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        // What is above the temporary directory may be closed, too.
        assert_ne!(closed(&data), Some(private));
    }

    #[test]
    fn each_application_keeps_its_user_and_nobody_else_gets_it() {
        let users = Users::of_range(70_000..=70_001);
        let (shop, till) = (AppName::new("shop").unwrap(), AppName::new("till").unwrap());
        assert_eq!(
            users.assign(&shop, Some(70_001)).unwrap().unwrap().uid,
            70_001
        );
        assert_eq!(
            users.assign(&till, Some(70_001)).unwrap().unwrap().uid,
            70_000
        );
        users.release(&shop);
        assert!(
            Users::default()
                .assign(&shop, Some(70_001))
                .unwrap()
                .is_none()
        );
    }
}
