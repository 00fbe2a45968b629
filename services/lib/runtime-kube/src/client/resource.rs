//! Kinds and where the API server has them.

use std::borrow::Cow;

/// A kind and where the API server has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    /// e.g. `apps/v1`
    pub(crate) api_version: Cow<'static, str>,
    /// e.g. `Deployment`
    pub(crate) kind: Cow<'static, str>,
    /// e.g. `deployments`
    pub(crate) plural: Cow<'static, str>,
    /// Whether its objects lie in a namespace.
    pub(crate) namespaced: bool,
}

macro_rules! resources {
    ($($name:ident: $api_version:literal, $kind:literal, $plural:literal;)+) => {
        $(
            pub(crate) const $name: Resource = Resource {
                api_version: Cow::Borrowed($api_version),
                kind: Cow::Borrowed($kind),
                plural: Cow::Borrowed($plural),
                namespaced: true,
            };
        )+
        /// Those of a namespace that need no question.
        pub(super) const OF_NAMESPACE: &[Resource] = &[$(Resource::$name),+];
    };
}

impl Resource {
    resources! {
        CONFIG_MAP: "v1", "ConfigMap", "configmaps";
        SECRET: "v1", "Secret", "secrets";
        SERVICE: "v1", "Service", "services";
        POD: "v1", "Pod", "pods";
        EVENT: "v1", "Event", "events";
        DEPLOYMENT: "apps/v1", "Deployment", "deployments";
        STATEFUL_SET: "apps/v1", "StatefulSet", "statefulsets";
        DAEMON_SET: "apps/v1", "DaemonSet", "daemonsets";
        JOB: "batch/v1", "Job", "jobs";
        CRON_JOB: "batch/v1", "CronJob", "cronjobs";
        SCALER: "autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers";
    }

    pub(crate) const NODE: Self = Self {
        api_version: Cow::Borrowed("v1"),
        kind: Cow::Borrowed("Node"),
        plural: Cow::Borrowed("nodes"),
        namespaced: false,
    };

    /// What runs programs, after what would start them again.
    pub(crate) const WORKLOADS: [Self; 6] = [
        Self::SCALER,
        Self::CRON_JOB,
        Self::JOB,
        Self::DEPLOYMENT,
        Self::STATEFUL_SET,
        Self::DAEMON_SET,
    ];

    /// Path of all of them in a namespace (empty: in the cluster).
    pub(crate) fn list(&self, namespace: &str) -> String {
        let root = if self.api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let (version, plural) = (&self.api_version, &self.plural);
        if namespace.is_empty() || !self.namespaced {
            format!("/{root}/{version}/{plural}")
        } else {
            format!(
                "/{root}/{version}/namespaces/{}/{plural}",
                encode(namespace)
            )
        }
    }

    /// Path of one of them.
    pub(crate) fn one(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.list(namespace), encode(name))
    }
}

/// Text as a part of a path or the value of a query.
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_the_core_and_of_groups_have_their_paths() {
        assert_eq!(
            Resource::POD.one("baetyl-edge", "web-1"),
            "/api/v1/namespaces/baetyl-edge/pods/web-1"
        );
        assert_eq!(
            Resource::DEPLOYMENT.list("x"),
            "/apis/apps/v1/namespaces/x/deployments"
        );
        assert_eq!(Resource::NODE.one("", "edge"), "/api/v1/nodes/edge");
        assert_eq!(Resource::POD.list(""), "/api/v1/pods");
    }

    #[test]
    fn names_cannot_leave_their_part_of_the_path() {
        assert_eq!(
            Resource::CONFIG_MAP.one("x", "../secrets/a?b=c"),
            "/api/v1/namespaces/x/configmaps/..%2Fsecrets%2Fa%3Fb%3Dc"
        );
    }
}
