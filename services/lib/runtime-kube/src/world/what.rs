//! What is watched: kinds, and which of their objects.

use crate::client::Resource;
use crate::names;
use crate::seen::INVENTORY;

/// One watch: what, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watch {
    pub(crate) what: What,
    /// Empty: of the cluster.
    pub(crate) namespace: String,
}

/// What is watched in a namespace, and the machines of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// All of them: those of charts and of YAML applications carry no label of ours.
    Pods,
    Deployments,
    StatefulSets,
    DaemonSets,
    Jobs,
    CronJobs,
    /// Events of type Warning.
    Warnings,
    /// What YAML applications consist of.
    Inventories,
    /// Releases of Helm applications.
    Releases,
    /// All of ours: whether they are still there.
    Services,
    ConfigMaps,
    Secrets,
    Scalers,
    Machines,
}

impl What {
    /// All of a namespace.
    pub(crate) const OF_NAMESPACE: [Self; 13] = [
        Self::Pods,
        Self::Deployments,
        Self::StatefulSets,
        Self::DaemonSets,
        Self::Jobs,
        Self::CronJobs,
        Self::Warnings,
        Self::Inventories,
        Self::Releases,
        Self::Services,
        Self::ConfigMaps,
        Self::Secrets,
        Self::Scalers,
    ];

    /// What watches all objects of ours of a kind, in whichever version of its group.
    pub(crate) fn of_kind(api_version: &str, kind: &str) -> Option<Self> {
        const WHOLE_KINDS: [What; 10] = [
            What::Pods,
            What::Deployments,
            What::StatefulSets,
            What::DaemonSets,
            What::Jobs,
            What::CronJobs,
            What::Services,
            What::ConfigMaps,
            What::Secrets,
            What::Scalers,
        ];
        let group = |api_version: &str| {
            let group = api_version.split_once('/');
            group.map_or_else(String::new, |(group, _)| group.to_owned())
        };
        WHOLE_KINDS.into_iter().find(|what| {
            let resource = what.resource();
            resource.kind == kind && group(&resource.api_version) == group(api_version)
        })
    }

    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::Pods => Resource::POD,
            Self::Deployments => Resource::DEPLOYMENT,
            Self::StatefulSets => Resource::STATEFUL_SET,
            Self::DaemonSets => Resource::DAEMON_SET,
            Self::Jobs => Resource::JOB,
            Self::CronJobs => Resource::CRON_JOB,
            Self::Warnings => Resource::EVENT,
            Self::Inventories | Self::ConfigMaps => Resource::CONFIG_MAP,
            Self::Releases | Self::Secrets => Resource::SECRET,
            Self::Services => Resource::SERVICE,
            Self::Scalers => Resource::SCALER,
            Self::Machines => Resource::NODE,
        }
    }

    /// What of the kind is asked for, as a query.
    pub(crate) fn selector(self) -> String {
        match self {
            Self::Pods | Self::Machines => String::new(),
            Self::Warnings => "&fieldSelector=type%3DWarning".to_owned(),
            Self::Inventories => format!("&labelSelector={}%3Dtrue", INVENTORY.replace('/', "%2F")),
            Self::Releases => format!("&labelSelector=owner%3Dhelm,{}", names::APP_NAME),
            _ => format!(
                "&labelSelector={}%3D{}",
                names::MANAGED_BY.replace('/', "%2F"),
                names::MANAGER
            ),
        }
    }

    /// Whether its objects make Pods.
    pub(crate) fn is_controller(self) -> bool {
        matches!(
            self,
            Self::Deployments | Self::StatefulSets | Self::DaemonSets | Self::Jobs | Self::CronJobs
        )
    }

    /// Whether only metadata is asked for: nobody here reads what Helm wrote, nor what Secrets hold.
    pub(crate) fn is_metadata(self) -> bool {
        self == Self::Releases || self.is_thing()
    }

    /// Whether nothing matters but that its objects are there.
    fn is_thing(self) -> bool {
        matches!(
            self,
            Self::Services | Self::ConfigMaps | Self::Secrets | Self::Scalers
        )
    }

    /// Whether nobody can tell how applications do as long as this cannot be seen.
    pub(crate) fn is_needed(self) -> bool {
        !matches!(self, Self::Warnings | Self::Machines) && !self.is_thing()
    }
}
