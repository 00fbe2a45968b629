//! What the core Pods need of engine: their identities, and a memory of the node that outlives its volumes.
//!
//! Engine is the authority of the node. Its key and that of application tokens lie in its own volume; the Secret
//! `baetyl-core-authority` has both for the day that volume is lost. Each service finds its identity in the Secret
//! `baetyl-tls-<service>`, which its Pod mounts and the kubelet keeps current: nobody is restarted for a new one.
//! See `docs/adr/0014-core-pods.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use baetyl_kit::backoff::Backoff;
use baetyl_kit::fsio;
use baetyl_proto::callers::Role;

use super::secrets::{Data, Secrets};
use crate::certificates::{Authority, CertificateError, Certificates};
use crate::ports::RuntimeError;
use crate::release::SYSTEM_NAMESPACE;

/// The Secret with the keys engine alone has.
pub(crate) const AUTHORITY: &str = "baetyl-core-authority";

/// Files of engine's directory that are kept in [`AUTHORITY`].
const AUTHORITY_FILES: [&str; 2] = ["ca.pem", "app.key"];

/// Longest of these files.
const MAX_FILE: u64 = 64 * 1024;

/// Key of a Secret with the seconds its certificate was in use while engine ran.
const USED: &str = "used-seconds";

/// Services that get an identity: name in the Secret, role, name of the Kubernetes Service.
const SERVICES: [(&str, Role, &str); 4] = [
    ("node", Role::Node, "baetyl-node"),
    ("sync", Role::Sync, "baetyl-sync"),
    ("function-proxy", Role::Proxy, "baetyl-function"),
    ("init", Role::Init, "baetyl-init"),
];

/// How often the time certificates are in use is written down.
const LOOK: Duration = Duration::from_secs(24 * 3600);

/// How long a certificate is used, counted while engine runs: what the clock says is no measure.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Labels of what belongs to the node itself.
pub(crate) fn labels() -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/managed-by", "baetyl"),
        ("app.kubernetes.io/part-of", "baetyl"),
    ];
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Before engine makes keys: those of a volume that was lost are taken from the cluster. Waits until the cluster can say
/// whether it has them, because with other keys nobody of the node would trust anybody.
pub(crate) async fn bring_back_authority<S: Secrets>(
    secrets: &S,
    dir: &Path,
) -> std::io::Result<()> {
    if AUTHORITY_FILES.iter().all(|file| dir.join(file).exists()) {
        return Ok(());
    }
    let kept = until_told(|| secrets.get(SYSTEM_NAMESPACE, AUTHORITY)).await;
    for (file, content) in kept.unwrap_or_default() {
        let path = dir.join(&file);
        if AUTHORITY_FILES.contains(&file.as_str()) && !path.exists() {
            tracing::warn!(
                file,
                "taken from the cluster: the volume of engine lacked it"
            );
            fsio::atomic_write(&path, &content, 0o600)?;
        }
    }
    Ok(())
}

/// Asks until the cluster answers.
async fn until_told<T, F>(mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, RuntimeError>>,
{
    let mut backoff = Backoff::local();
    loop {
        match ask().await {
            Ok(told) => return told,
            Err(error) => {
                tracing::warn!(%error, "the cluster cannot be asked yet");
                backoff.wait().await;
            }
        }
    }
}

/// Keeps the keys of engine and the identities of the services in the cluster, for ever.
pub(crate) async fn keep_identities<S: Secrets>(secrets: S, authority: &Authority, dir: &Path) {
    let mut used = Duration::ZERO;
    loop {
        until_told(|| mirror_authority(&secrets, dir)).await;
        for (service, role, host) in SERVICES {
            until_told(|| keep_identity(&secrets, authority, (service, role, host), used)).await;
        }
        tokio::time::sleep(LOOK).await;
        used = LOOK;
    }
}

async fn mirror_authority<S: Secrets>(secrets: &S, dir: &Path) -> Result<(), RuntimeError> {
    let mut data = Data::new();
    for file in AUTHORITY_FILES {
        let content = fsio::read_limited(&dir.join(file), MAX_FILE)
            .map_err(|error| RuntimeError::Failed(format!("{file} cannot be read: {error}")))?;
        data.insert(file.to_owned(), content);
    }
    if secrets.get(SYSTEM_NAMESPACE, AUTHORITY).await?.as_ref() == Some(&data) {
        return Ok(());
    }
    secrets
        .put(SYSTEM_NAMESPACE, AUTHORITY, &labels(), &data)
        .await
}

/// `used`: how long it was in use since the last look.
async fn keep_identity<S: Secrets>(
    secrets: &S,
    authority: &Authority,
    (service, role, host): (&str, Role, &str),
    used: Duration,
) -> Result<(), RuntimeError> {
    let name = format!("baetyl-tls-{service}");
    let held = secrets.get(SYSTEM_NAMESPACE, &name).await?;
    let issue = || {
        authority
            .issue_core(role, &host_names(host))
            .map_err(|error: CertificateError| {
                RuntimeError::Failed(baetyl_kit::error::chain(&error))
            })
    };
    let Some(data) = next_identity(held.as_ref(), authority.certificate(), used, issue)? else {
        return Ok(());
    };
    tracing::info!(service, "the identity of a service was written");
    secrets.put(SYSTEM_NAMESPACE, &name, &labels(), &data).await
}

/// What a Secret with an identity shall hold; None: what it holds.
fn next_identity<E>(
    held: Option<&Data>,
    ca: &[u8],
    used: Duration,
    issue: impl FnOnce() -> Result<Certificates, E>,
) -> Result<Option<Data>, E> {
    let before = held.and_then(|data| {
        let seconds = std::str::from_utf8(data.get(USED)?).ok()?.parse().ok()?;
        let whole = data.get("ca.crt").is_some_and(|held| held == ca)
            && data.contains_key("tls.crt")
            && data.contains_key("tls.key");
        whole.then(|| Duration::from_secs(seconds) + used)
    });
    if let (Some(held), Some(total)) = (held, before.filter(|total| *total < LIFE)) {
        let mut data = held.clone();
        data.insert(USED.to_owned(), total.as_secs().to_string().into_bytes());
        return Ok((data != *held).then_some(data));
    }
    let made = issue()?;
    Ok(Some(Data::from([
        ("ca.crt".to_owned(), made.ca.to_vec()),
        ("tls.crt".to_owned(), made.certificate.to_vec()),
        ("tls.key".to_owned(), made.key.to_vec()),
        (USED.to_owned(), b"0".to_vec()),
    ])))
}

/// The names a Service is reached by within the cluster.
pub(crate) fn host_names(service: &str) -> Vec<String> {
    let mut names = vec![service.to_owned(), "localhost".to_owned()];
    let whole = format!("{service}.{SYSTEM_NAMESPACE}");
    for end in ["", ".svc", ".svc.cluster.local"] {
        names.push(format!("{whole}{end}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::testing::FakeSecrets;

    fn authority(dir: &Path) -> Authority {
        Authority::open(&dir.join("ca.pem")).unwrap()
    }

    #[tokio::test]
    async fn each_service_gets_one_identity_that_stays_until_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let (secrets, authority) = (FakeSecrets::default(), authority(dir.path()));
        let keep = |used| keep_identity(&secrets, &authority, SERVICES[0], used);
        keep(Duration::ZERO).await.unwrap();
        let first = secrets.held("baetyl-tls-node").unwrap();
        let writes = secrets.writes();
        keep(Duration::ZERO).await.unwrap();
        assert_eq!(secrets.writes(), writes, "nothing changed");
        for _ in 1..30 {
            keep(LOOK).await.unwrap();
        }
        assert_eq!(
            secrets.held("baetyl-tls-node").unwrap()["tls.key"],
            first["tls.key"]
        );
        keep(LOOK).await.unwrap();
        let second = secrets.held("baetyl-tls-node").unwrap();
        assert_ne!(second["tls.key"], first["tls.key"]);
        assert_eq!(second["ca.crt"], first["ca.crt"]);
    }

    #[tokio::test]
    async fn an_identity_of_another_authority_or_a_part_of_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (secrets, authority) = (FakeSecrets::default(), authority(dir.path()));
        keep_identity(&secrets, &authority, SERVICES[1], Duration::ZERO)
            .await
            .unwrap();
        for (key, value) in [("ca.crt", &b"other"[..]), (USED, b"long")] {
            let mut data = secrets.held("baetyl-tls-sync").unwrap();
            data.insert(key.to_owned(), value.to_vec());
            secrets.hold("baetyl-tls-sync", data);
            keep_identity(&secrets, &authority, SERVICES[1], Duration::ZERO)
                .await
                .unwrap();
            let data = secrets.held("baetyl-tls-sync").unwrap();
            assert_eq!(data["ca.crt"], authority.certificate());
            assert_eq!(data[USED], b"0");
        }
    }

    #[tokio::test]
    async fn lost_keys_come_back_from_the_cluster_and_present_ones_stay() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secrets = FakeSecrets::default();
        bring_back_authority(&secrets, first.path()).await.unwrap();
        let before = authority(first.path());
        std::fs::write(first.path().join("app.key"), "key").unwrap();
        mirror_authority(&secrets, first.path()).await.unwrap();
        std::fs::write(second.path().join("app.key"), "own").unwrap();
        // The cluster does not answer at first.
        secrets.fail(3);
        bring_back_authority(&secrets, second.path()).await.unwrap();
        assert_eq!(authority(second.path()).certificate(), before.certificate());
        let own = std::fs::read_to_string(second.path().join("app.key")).unwrap();
        assert_eq!(own, "own");
    }
}
