//! An identity in a directory: `tls.crt`, `tls.key` and `ca.crt`, as Kubernetes mounts a Secret.
//!
//! The files are read every [`CHECK`] and taken when their content is another one than before. That sees what a watch of
//! the directory would miss: Kubernetes swaps all files at once by replacing the link `..data` they lead through, others
//! write them one after the other. A set that does not fit together is not taken: the one before stays in use, and the
//! files are looked at again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Credentials, IdentitySender, MAX_PEM, ServiceIdentity, TlsError};
use crate::crypto::Sha256;
use crate::error::chain;
use crate::fsio::read_limited;
use crate::kit::Kit;
use crate::readiness::ReadinessHandle;

/// How often the files are read. They are small and mostly lie in memory; new ones may take this long to be noticed.
const CHECK: Duration = Duration::from_secs(15);

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

impl ServiceIdentity {
    /// The identity in `dir`, followed by a task of `kit`. Files that are not there yet, or not usable yet, keep the
    /// service from being ready (latch `tls`), and nothing else.
    pub fn mounted(kit: &Kit, dir: &Path) -> Self {
        Self::mounted_checking(kit, dir, CHECK)
    }

    /// As [`mounted`](Self::mounted), with another period between two looks.
    pub fn mounted_checking(kit: &Kit, dir: &Path, period: Duration) -> Self {
        let waiting = format!("waiting for identity files in {}", dir.display());
        let latch = kit.readiness().register("tls");
        let (sender, identity) = Self::channel(&waiting);
        let mut follower = Follower {
            dir: dir.to_owned(),
            waiting,
            sender,
            latch,
            taken: None,
            told: None,
        };
        // At once: a service whose files are there begins with them.
        follower.take(read(dir));
        kit.tasks().spawn_until_shutdown("tls", async move {
            loop {
                tokio::time::sleep(period).await;
                let dir = follower.dir.clone();
                // Fails only when the process ends.
                if let Ok(files) = tokio::task::spawn_blocking(move || read(&dir)).await {
                    follower.take(files);
                }
            }
        });
        identity
    }
}

/// What lies in the directory, whether or not it fits together.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

impl Files {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in [&self.certificate, &self.key, &self.authorities] {
            digest.update(&bytes.len().to_le_bytes());
            digest.update(bytes);
        }
        digest.finish()
    }
}

/// All files of one set: the links into the present one are followed once. A set that was swapped meanwhile may be gone.
fn read(dir: &Path) -> Result<Files, TlsError> {
    let set = present(dir);
    match read_set(&set) {
        Err(error) if is_missing(&error) && present(dir) != set => read_set(&present(dir)),
        read => read,
    }
}

/// Where the files really are.
fn present(dir: &Path) -> PathBuf {
    let linked = dir.join("..data").canonicalize();
    linked.unwrap_or_else(|_| dir.to_owned())
}

fn read_set(dir: &Path) -> Result<Files, TlsError> {
    let file = |name: &str| {
        let path = dir.join(name);
        read_limited(&path, MAX_PEM).map_err(|source| TlsError::Read { path, source })
    };
    Ok(Files {
        certificate: file(CERTIFICATE)?,
        key: file(KEY)?,
        authorities: file(AUTHORITIES)?,
    })
}

struct Follower {
    dir: PathBuf,
    waiting: String,
    sender: IdentitySender,
    latch: ReadinessHandle,
    /// Digest of the files in use.
    taken: Option<[u8; 32]>,
    /// The trouble that was told last: the same is not told every period.
    told: Option<String>,
}

impl Follower {
    fn take(&mut self, files: Result<Files, TlsError>) {
        let taken = files.and_then(|files| {
            let digest = files.digest();
            if self.taken != Some(digest) {
                let Files {
                    certificate,
                    key,
                    authorities,
                } = files;
                let credentials = Credentials::from_pem(&certificate, &key, &authorities)?;
                let certificate = self.sender.replace(credentials)?;
                tracing::info!(dir = %self.dir.display(), certificate, replaced = self.taken.is_some(), "the identity of this service is in use");
            }
            Ok(digest)
        });
        match taken {
            Ok(digest) => {
                self.taken = Some(digest);
                self.told = None;
                self.latch.ready();
            }
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&mut self, error: &TlsError) {
        let trouble = chain(error);
        if self.told.as_ref() == Some(&trouble) {
            return;
        }
        let dir = self.dir.display();
        if self.taken.is_some() {
            tracing::warn!(%dir, error = trouble, "the identity files cannot be used; those before stay in use");
        } else if is_missing(error) {
            self.latch.not_ready(&self.waiting);
        } else {
            tracing::warn!(%dir, error = trouble, "the identity files cannot be used");
            self.latch.not_ready(format!("{}: {trouble}", self.waiting));
        }
        self.told = Some(trouble);
    }
}

fn is_missing(error: &TlsError) -> bool {
    matches!(error, TlsError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
