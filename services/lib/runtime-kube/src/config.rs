//! Where the API server is, what we may touch there, and how long things may take.

use std::path::PathBuf;
use std::time::Duration;

use crate::names;

/// Everything [`crate::KubeRuntime`] has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeConfig {
    /// A kubeconfig; None: the service account of the Pod this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; None: its current one.
    pub context: Option<String>,
    /// Namespace of user applications.
    pub user_namespace: String,
    /// Namespace of system applications and of the core services.
    pub system_namespace: String,
    /// Owner of the fields we apply.
    pub field_manager: String,
    /// How long things may take.
    pub times: Times,
}

impl Default for KubeConfig {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            user_namespace: names::USER_NAMESPACE.to_owned(),
            system_namespace: names::SYSTEM_NAMESPACE.to_owned(),
            field_manager: names::FIELD_MANAGER.to_owned(),
            times: Times::default(),
        }
    }
}

impl KubeConfig {
    /// The two namespaces of ours.
    pub(crate) fn namespaces(&self) -> [&str; 2] {
        [&self.user_namespace, &self.system_namespace]
    }
}

/// How long things may take. The defaults are for use; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Until the API server has answered a request completely.
    pub answer: Duration,
    /// Between two signs of life asked of the API server, and how long each may take.
    pub ping: Duration,
    /// How long one watch lasts at least; then it is asked for again. With so many watches that they were more than four
    /// requests a minute, each lasts longer.
    pub watch: Duration,
    /// How long a watch may bring nothing. The API server sends a bookmark about every minute.
    pub silence: Duration,
    /// How long a watch may be broken before nobody can tell how applications do.
    pub grace: Duration,
    /// Longest pause between two attempts to reach the API server.
    pub pause: Duration,
    /// How long Kubernetes may refuse to make Pods before that counts as the end: a quota is free again, and a webhook
    /// there again, some seconds after what was in their way has gone.
    pub refusal: Duration,
    /// How long something that is deleted may take to be gone.
    pub gone: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            ping: Duration::from_secs(5),
            watch: Duration::from_secs(300),
            silence: Duration::from_secs(150),
            grace: Duration::from_secs(5),
            pause: Duration::from_secs(10),
            refusal: Duration::from_secs(10),
            gone: Duration::from_secs(120),
        }
    }
}

/// Why there is no way to an API server. Whether one answers is another question.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "this is no Pod with a service account ({0}); run in a Pod with one, or name a kubeconfig"
    )]
    NoServiceAccount(&'static str),
    /// A file cannot be read.
    #[error("{path} cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kubeconfig is not one.
    #[error("{path} is no kubeconfig", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_norway::Error,
    },
    /// The kubeconfig lacks something or wants what this program has not.
    #[error("kubeconfig {path}: {reason}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What, and what to do.
        reason: String,
    },
    /// Certificates or keys that are none.
    #[error("{what} of the way to the API server cannot be used")]
    Tls {
        /// Which.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
