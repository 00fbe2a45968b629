//! What objects are called and how they are labelled; `docs/flows/kube-mode.md` lists the same.

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
/// As many digits as fit into a label with room to spare; nobody makes two contents with equal ones.
pub const DIGEST_LABEL_DIGITS: usize = 40;

/// ServiceAccount whose rights YAML and Helm applications have.
pub const APPLY_ACCOUNT: &str = "baetyl-apply";
/// Init container that puts objects into the machine's object directory.
pub const OBJECTS_CONTAINER: &str = "baetyl-objects";
/// Container of the Job of a Helm application.
pub const HELM_CONTAINER: &str = "baetyl-helm";
