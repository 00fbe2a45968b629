//! Packages of Debian for any architecture, fetched by apt without touching what this machine has installed: apt is
//! given directories of its own, and checks signatures as always.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use super::oci::Digest;
use super::run;

/// The release packages are taken from.
const SUITE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// A file as old as the lists.
const UPDATED: &str = "updated";
/// How long lists are good for.
const FRESH: Duration = Duration::from_secs(3600);

/// A package on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its file.
    pub(crate) file: PathBuf,
    /// Sum of the file.
    pub(crate) digest: Digest,
}

impl Package {
    fn read(file: PathBuf) -> Result<Self> {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self {
            digest: Digest::of(&bytes),
            file,
        })
    }

    /// Its files, as an archive.
    ///
    /// # Errors
    /// When dpkg-deb cannot read it.
    pub(crate) fn files(&self) -> Result<Vec<u8>> {
        run::quiet(
            run::command("dpkg-deb")
                .arg("--fsys-tarfile")
                .arg(&self.file),
        )
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When dpkg-deb cannot read it.
    pub(crate) fn control(&self) -> Result<Vec<u8>> {
        run::quiet(run::command("dpkg-deb").arg("--field").arg(&self.file))
    }
}

/// Fetches packages by name into `dir`, which keeps them and the lists of the mirror.
///
/// # Errors
/// When apt is missing, or no mirror can be reached and no lists or packages are there from an earlier time.
pub(crate) fn fetch(arch: Arch, names: &[&str], dir: &Path) -> Result<Vec<Package>> {
    if !run::has("apt-get") || !run::has("dpkg-deb") {
        bail!(
            "apt-get and dpkg-deb are missing: images with Python are put together from packages of Debian, on Debian or Ubuntu"
        );
    }
    ensure!(
        Path::new(KEYRING).exists(),
        "{KEYRING} is missing; install debian-archive-keyring"
    );
    let config = prepare(arch, dir)?;
    if let Err(error) = update(arch, dir, &config) {
        let left = "no mirror of Debian answers, and no lists are left from an earlier time";
        ensure!(dir.join(UPDATED).exists(), "{left}: {error:#}");
        eprintln!("no mirror of Debian answers; the lists of an earlier time are used");
    }
    let debs = dir.join("debs");
    let mut show = run::command("apt-cache");
    show.env("APT_CONFIG", &config)
        .args(["show", "--no-all-versions"])
        .args(names);
    let listed = listed(&String::from_utf8(run::quiet(&mut show)?)?)?;
    ensure!(
        listed.len() == names.len(),
        "the lists have {} of {} packages",
        listed.len(),
        names.len()
    );
    let lacking = |item: &&Listed| {
        Package::read(debs.join(&item.file)).ok().map(|p| p.digest) != Some(item.digest.clone())
    };
    let wanted: Vec<&str> = listed
        .iter()
        .filter(lacking)
        .map(|item| item.name.as_str())
        .collect();
    if !wanted.is_empty() {
        let mut download = run::command("apt-get");
        download
            .env("APT_CONFIG", &config)
            .args(["download", "-q"])
            .args(&wanted)
            .current_dir(&debs);
        run::loud(&mut download)?;
    }
    let mut packages = Vec::new();
    for item in listed {
        let package = Package::read(debs.join(&item.file))?;
        ensure!(
            package.digest == item.digest,
            "{} is not what the lists say",
            item.file
        );
        packages.push(package);
    }
    Ok(packages)
}

/// A package as the lists of a mirror have it.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    /// What apt calls its file.
    file: String,
    digest: Digest,
}

/// Reads what `apt-cache show` says, sorted by name.
fn listed(text: &str) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for paragraph in text.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let field = |name: &str| {
            paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .with_context(|| format!("a package has no field {name}"))
        };
        let version = field("Version")?.replace(':', "%3a");
        let name = field("Package")?;
        all.push(Listed {
            name: name.to_owned(),
            file: format!("{name}_{version}_{}.deb", field("Architecture")?),
            digest: format!("sha256:{}", field("SHA256")?).try_into()?,
        });
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// Makes apt's directories; gives the path of its configuration.
fn prepare(arch: Arch, dir: &Path) -> Result<PathBuf> {
    for sub in ["lists/partial", "cache/archives/partial", "parts", "debs"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::write(dir.join("status"), "")?;
    let arch = arch.debian();
    let at = dir.display();
    let config = format!(
        "Dir::State \"{at}\";\nDir::State::lists \"{at}/lists\";\nDir::State::status \"{at}/status\";\n\
         Dir::Cache \"{at}/cache\";\nDir::Etc::SourceList \"{at}/sources.list\";\nDir::Etc::SourceParts \"{at}/parts\";\n\
         APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\nAPT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n"
    );
    let path = dir.join("apt.conf");
    fs::write(&path, config)?;
    Ok(path)
}

/// Reads the lists of the mirror, unless they are fresh. Where only those of the security archive are broken, it goes on without them and says so.
fn update(arch: Arch, dir: &Path, config: &Path) -> Result<()> {
    let age = fs::metadata(dir.join(UPDATED)).and_then(|file| file.modified());
    if age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH)) {
        return Ok(());
    }
    let (main, security) = mirrors();
    let line = |site: &str, suite: &str| format!("deb [signed-by={KEYRING}] {site} {suite} main\n");
    let released = line(&main, SUITE) + &line(&main, &format!("{SUITE}-updates"));
    let secured = released.clone() + &line(&security, &format!("{SUITE}-security"));
    let list = dir.join("sources.list");
    let update = || {
        let mut command = run::command("apt-get");
        // Only the lists of packages: no descriptions of applications, no contents.
        command.env("APT_CONFIG", config).args([
            "update",
            "-q",
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "-o",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
        ]);
        run::loud(&mut command)
    };
    fs::write(&list, &secured)?;
    if let Err(error) = update() {
        fs::write(&list, &released)?;
        update()?;
        eprintln!(
            "warning: the packages for {arch} are without security updates: {security} has broken lists for it ({error:#})"
        );
    }
    fs::write(dir.join(UPDATED), "")?;
    Ok(())
}

/// The mirrors this machine is configured with: of releases and of security updates.
fn mirrors() -> (String, String) {
    let format = "$(ORIGIN) $(CODENAME) $(SITE) $(LABEL)";
    let output = run::quiet(run::command("apt-get").args(["indextargets", "--format", format]));
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    let site = |is_security: bool| {
        text.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (origin, codename, site) = (words.next()?, words.next()?, words.next()?);
            let fits = origin == "Debian" && codename.ends_with("-security") == is_security;
            fits.then(|| site.to_owned())
        })
    };
    (
        site(false).unwrap_or_else(|| "http://deb.debian.org/debian".to_owned()),
        site(true).unwrap_or_else(|| "http://deb.debian.org/debian-security".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lists_say_becomes_files_and_sums() {
        let sum = "a".repeat(64);
        let text = format!(
            "Package: zlib1g\nSource: zlib\nVersion: 1:1.2\nArchitecture: armhf\nSHA256: {sum}\nDescription: z\n\n\
             Package: tzdata\nArchitecture: all\nVersion: 2026f\nSHA256: {sum}\n\n"
        );
        let listed = listed(&text).unwrap();
        let files: Vec<_> = listed.iter().map(|item| item.file.as_str()).collect();
        assert_eq!(files, ["tzdata_2026f_all.deb", "zlib1g_1%3a1.2_armhf.deb"]);
        assert_eq!(listed[0].digest.hex(), sum);
    }

    #[test]
    fn a_package_without_a_sum_is_refused() {
        let error = listed("Package: a\nVersion: 1\nArchitecture: all\n").unwrap_err();
        assert!(error.to_string().contains("SHA256"), "{error}");
    }
}
