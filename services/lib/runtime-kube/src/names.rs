//! What objects are called and how they are labelled; `docs/flows/kube-mode.md` lists the same.

use std::collections::BTreeMap;

use baetyl_model::Digest;
use baetyl_model::labels::is_dns_name;

/// Namespace of user applications.
pub const USER_NAMESPACE: &str = "baetyl-edge";
/// Namespace of the core services and of system applications.
pub const SYSTEM_NAMESPACE: &str = "baetyl-edge-system";
/// Owner of the fields we apply.
pub const FIELD_MANAGER: &str = "baetyl-engine";

/// Label on everything we make; its value is [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "baetyl";
/// Label: the application an object belongs to; the selector of its workload.
pub const APP_NAME: &str = "baetyl-app-name";
/// Label: the version of the application.
pub const APP_VERSION: &str = "baetyl-app-version";
/// Label of the ConfigMap or Secret of one version of a configuration or secret: the first [`DIGEST_LABEL_DIGITS`] hex
/// digits of its digest. These may belong to several applications and carry no label of any.
pub const DIGEST: &str = "baetyl.io/digest";
/// Label of the Secret of a Helm application: the namespace its chart is put into.
pub const HELM_NAMESPACE: &str = "baetyl.io/helm-namespace";
/// As many digits as fit into a label with room to spare; nobody makes two contents with equal ones.
pub const DIGEST_LABEL_DIGITS: usize = 40;

/// ServiceAccount whose rights YAML and Helm applications have.
pub const APPLY_ACCOUNT: &str = "baetyl-apply";
/// Init container that puts objects into the machine's object directory.
pub const OBJECTS_CONTAINER: &str = "baetyl-objects";
/// Container of the Job of a Helm application.
pub const HELM_CONTAINER: &str = "baetyl-helm";
/// Init container of that Job, which clears away what a killed Helm left.
pub const RELEASE_CONTAINER: &str = "baetyl-release";
/// The core services. Nothing of an application may be called so in their namespace.
pub const CORE_NAMES: [&str; 5] = [
    "baetyl-node",
    "baetyl-sync",
    "baetyl-engine",
    "baetyl-function",
    "baetyl-init",
];

/// Kubernetes namespace of an application's release.
pub const fn namespace(system: bool) -> &'static str {
    if system {
        SYSTEM_NAMESPACE
    } else {
        USER_NAMESPACE
    }
}

/// Labels of everything that belongs to one version of one application.
pub fn labels(app: &str, version: &str) -> BTreeMap<String, String> {
    [
        (MANAGED_BY, MANAGER),
        (APP_NAME, app),
        (APP_VERSION, version),
    ]
    .map(|(label, value)| (label.to_owned(), value.to_owned()))
    .into()
}

/// Labels of the ConfigMap or Secret of one version of a configuration or secret.
pub fn content_labels(digest: &Digest) -> BTreeMap<String, String> {
    let mut digits = digest.hex();
    digits.truncate(DIGEST_LABEL_DIGITS);
    [(MANAGED_BY, MANAGER.to_owned()), (DIGEST, digits)]
        .map(|(label, value)| (label.to_owned(), value))
        .into()
}

/// Name of the ConfigMap or Secret of one version of a configuration or secret.
pub fn content(name: &str, digest: &Digest) -> String {
    format!("{name}-{}", &digest.hex()[..10])
}

/// Name of the Secret with token, ticket and certificate of an application.
pub fn identity(app: &str) -> String {
    format!("baetyl-id-{app}")
}

/// Name of the ConfigMap with the plan of one version of a configuration with objects.
pub fn plan(app: &str, configuration: &Digest) -> String {
    content(&format!("baetyl-plan-{app}"), configuration)
}

/// Name of the ConfigMap with the functions of one version of an application.
pub fn functions(app: &str, application: &Digest) -> String {
    content(&format!("baetyl-functions-{app}"), application)
}

/// Name of the Service of an application. Applications of the system lose the random end of their name, so that others
/// find them: `baetyl-broker-x7k2` is `baetyl-broker`.
pub fn service(app: &str, system: bool) -> &str {
    match app.rsplit_once('-') {
        Some((stem, _)) if system && stem.starts_with("baetyl-") => stem,
        _ => app,
    }
}

/// Name of the Service with the NodePorts of an application.
pub fn node_port_service(app: &str, system: bool) -> String {
    format!("{}-nodeport", service(app, system))
}

/// True for a part of a DNS name: 1 to 63 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit.
pub fn is_label(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.') && is_dns_name(name)
}

/// True for the name of a Service: a part of a DNS name that begins with a letter.
pub fn is_service(name: &str) -> bool {
    is_label(name) && name.starts_with(|first: char| first.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        format!("sha256:{}", "0123456789abcdef".repeat(4))
            .parse()
            .unwrap()
    }

    #[test]
    fn services_of_the_system_lose_the_random_end_of_their_name() {
        for (app, system, expected) in [
            ("web", false, "web"),
            ("my-web", false, "my-web"),
            ("baetyl-broker-x7k2", false, "baetyl-broker-x7k2"),
            ("baetyl-broker-x7k2", true, "baetyl-broker"),
            ("baetyl-rule-engine-x7k2", true, "baetyl-rule-engine"),
            ("baetyl-broker", true, "baetyl-broker"),
            ("other-x7k2", true, "other-x7k2"),
        ] {
            assert_eq!(service(app, system), expected, "{app} {system}");
        }
        assert_eq!(
            node_port_service("baetyl-broker-x7k2", true),
            "baetyl-broker-nodeport"
        );
    }

    #[test]
    fn content_is_called_and_labelled_by_its_digest() {
        assert_eq!(content("conf", &digest()), "conf-0123456789");
        let labels = content_labels(&digest());
        assert_eq!(labels[DIGEST], "0123456789abcdef0123456789abcdef01234567");
        assert_eq!(labels[MANAGED_BY], "baetyl");
        assert!(!labels.contains_key(APP_NAME));
    }
}
