//! Packages of Debian for any architecture, fetched by apt without touching what this machine has installed: apt is
//! given directories of its own, and checks signatures as always.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use super::oci::Digest;
use super::run;

/// The release packages are taken from.
const SUITE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What was fetched the last time, for when no mirror can be reached.
const FETCHED: &str = "fetched";

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
/// When apt is missing, or no mirror can be reached and the packages are not there from an earlier time.
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
        let fetched = earlier(names, dir).with_context(|| format!("{error:#}"))?;
        eprintln!("no mirror of Debian answers; packages of an earlier time are taken");
        return Ok(fetched);
    }
    let debs = dir.join("debs");
    let apt = || {
        let mut command = run::command("apt-get");
        command
            .env("APT_CONFIG", &config)
            .arg("download")
            .current_dir(&debs);
        command
    };
    let uris = run::quiet(apt().arg("--print-uris").arg("-qq").args(names))?;
    run::loud(apt().arg("-q").args(names))?;
    let files: Vec<String> = String::from_utf8(uris)?
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .collect();
    ensure!(
        files.len() == names.len(),
        "apt names {} files for {} packages",
        files.len(),
        names.len()
    );
    fs::write(dir.join(FETCHED), listing(names, &files))?;
    files
        .iter()
        .map(|file| Package::read(debs.join(file)))
        .collect()
}

/// The first line says for which names the files are.
fn listing(names: &[&str], files: &[String]) -> String {
    format!("{}\n{}\n", names.join(" "), files.join("\n"))
}

fn earlier(names: &[&str], dir: &Path) -> Result<Vec<Package>> {
    let text = fs::read_to_string(dir.join(FETCHED)).unwrap_or_default();
    let mut lines = text.lines();
    ensure!(
        lines.next() == Some(&*names.join(" ")),
        "no packages are left from an earlier time in {}",
        dir.display()
    );
    lines
        .map(|file| Package::read(dir.join("debs").join(file)))
        .collect()
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

/// Reads the lists of the mirror. Where only those of the security archive are broken, it goes on without them and says so.
fn update(arch: Arch, dir: &Path, config: &Path) -> Result<()> {
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
    let Err(error) = update() else {
        return Ok(());
    };
    fs::write(&list, &released)?;
    update()?;
    eprintln!(
        "warning: the packages for {arch} are without security updates: {security} has broken lists for it ({error:#})"
    );
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
    fn packages_of_an_earlier_time_are_found_again_only_for_the_same_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("debs")).unwrap();
        fs::write(dir.path().join("debs/a_1.deb"), "a").unwrap();
        fs::write(
            dir.path().join(FETCHED),
            listing(&["a"], &["a_1.deb".to_owned()]),
        )
        .unwrap();
        let found = earlier(&["a"], dir.path()).unwrap();
        assert_eq!(found.first().unwrap().digest, Digest::of(b"a"));
        assert!(earlier(&["a", "b"], dir.path()).is_err());
    }
}
