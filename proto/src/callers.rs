//! Who may call what: one table, compiled into every server.
//!
//! A method that is not in the table may be called by nobody; a test walks all methods of all contracts.

use std::fmt;
use std::str::FromStr;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `baetyl-init`.
    Init,
    /// `baetyl-node`.
    Node,
    /// `baetyl-sync`.
    Sync,
    /// `baetyl-engine`.
    Engine,
    /// `baetyl-function-proxy`.
    Proxy,
    /// An application with its token.
    App,
    /// A person on the machine: `baetylctl`, grpcurl.
    Admin,
    /// An edge node, by its certificate (cloud only).
    Device,
    /// Nobody in particular (cloud's activation only).
    Anyone,
}

impl Role {
    /// All roles, for tests that walk methods × roles.
    pub const ALL: [Self; 9] = [
        Self::Init,
        Self::Node,
        Self::Sync,
        Self::Engine,
        Self::Proxy,
        Self::App,
        Self::Admin,
        Self::Device,
        Self::Anyone,
    ];

    /// The word used in metadata and certificates.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Node => "node",
            Self::Sync => "sync",
            Self::Engine => "engine",
            Self::Proxy => "proxy",
            Self::App => "app",
            Self::Admin => "admin",
            Self::Device => "device",
            Self::Anyone => "anyone",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no role.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a role; use init, node, sync, engine, proxy, app or admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| UnknownRole(word.to_owned()))
    }
}

use Role::{Admin, Anyone, App, Device, Engine, Init, Proxy, Sync};

/// `(path of the method, roles that may call it)`, sorted by path.
pub const TABLE: &[(&str, &[Role])] = &[
    (
        "/baetyl.activation.v1.ActivationService/Activate",
        &[Anyone],
    ),
    ("/baetyl.engine.v1.EngineService/Describe", &[Sync, Admin]),
    (
        "/baetyl.engine.v1.EngineService/EnsureRunning",
        &[Proxy, Admin],
    ),
    (
        "/baetyl.engine.v1.EngineService/GetApp",
        &[Sync, Proxy, Admin],
    ),
    ("/baetyl.engine.v1.EngineService/ListApps", &[Sync, Admin]),
    ("/baetyl.engine.v1.EngineService/RestartApp", &[Sync, Admin]),
    (
        "/baetyl.engine.v1.EngineService/WatchEndpoints",
        &[Proxy, Admin],
    ),
    ("/baetyl.engine.v1.EngineService/WatchLogs", &[Sync, Admin]),
    (
        "/baetyl.function.v1.FunctionService/Invoke",
        &[App, Sync, Admin],
    ),
    (
        "/baetyl.function.v1.FunctionService/InvokeStream",
        &[App, Sync, Admin],
    ),
    (
        "/baetyl.function.v1.FunctionService/ListFunctions",
        &[App, Sync, Admin],
    ),
    ("/baetyl.function.v1.RuntimeService/Register", &[App]),
    ("/baetyl.link.v1.LinkService/Connect", &[Device]),
    ("/baetyl.link.v1.LinkService/FetchObject", &[Device]),
    ("/baetyl.link.v1.LinkService/FetchResources", &[Device]),
    ("/baetyl.link.v1.LinkService/RenewCertificate", &[Device]),
    ("/baetyl.link.v1.LinkService/Tunnel", &[Device]),
    ("/baetyl.node.v1.LocalService/GetNodeInfo", &[App, Admin]),
    ("/baetyl.node.v1.LocalService/GetProperties", &[App, Admin]),
    (
        "/baetyl.node.v1.LocalService/UpdateProperties",
        &[App, Admin],
    ),
    (
        "/baetyl.node.v1.LocalService/WatchProperties",
        &[App, Admin],
    ),
    ("/baetyl.node.v1.NodeService/AcceptDesire", &[Sync]),
    (
        "/baetyl.node.v1.NodeService/GetShadow",
        &[Init, Sync, Engine, Admin],
    ),
    ("/baetyl.node.v1.NodeService/PutReport", &[Engine]),
    ("/baetyl.node.v1.NodeService/SetIdentity", &[Sync]),
    ("/baetyl.node.v1.NodeService/TrustAppKey", &[Engine]),
    (
        "/baetyl.node.v1.NodeService/WatchDesire",
        &[Sync, Engine, Admin],
    ),
    ("/baetyl.node.v1.NodeService/WatchReport", &[Sync, Admin]),
    ("/baetyl.sync.v1.ObjectService/FetchObject", &[App]),
    ("/baetyl.sync.v1.ObjectService/SelectNeeded", &[App]),
    (
        "/baetyl.sync.v1.SyncService/ExportIdentity",
        &[Init, Engine],
    ),
    (
        "/baetyl.sync.v1.SyncService/GetIdentity",
        &[Init, Engine, Admin],
    ),
    (
        "/baetyl.sync.v1.SyncService/GetLinkState",
        &[Init, Engine, Admin],
    ),
    ("/baetyl.sync.v1.SyncService/InstallIdentity", &[Init]),
    ("/baetyl.sync.v1.SyncService/OpenObject", &[Engine]),
    ("/baetyl.sync.v1.SyncService/PutEvent", &[Init, Engine]),
    ("/baetyl.sync.v1.SyncService/ReadResource", &[Engine]),
    ("/baetyl.sync.v1.SyncService/SetPins", &[Engine]),
    ("/baetyl.sync.v1.SyncService/Stage", &[Init, Engine]),
    ("/baetyl.sync.v1.SyncService/TrustAppKey", &[Engine]),
    (
        "/baetyl.sync.v1.SyncService/WatchLinkState",
        &[Init, Engine, Admin],
    ),
    ("/faas.Function/Call", &[App, Admin]),
];

/// Whether `role` may call the method at `path`. Methods outside the table may be called by nobody.
#[must_use]
pub fn may_call(role: Role, path: &str) -> bool {
    TABLE
        .binary_search_by(|(method, _)| (*method).cmp(path))
        .is_ok_and(|i| TABLE.get(i).is_some_and(|(_, roles)| roles.contains(&role)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    fn all_methods() -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let mut methods = BTreeSet::new();
        for file in set.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!(
                        "/{}.{}/{}",
                        file.package(),
                        service.name(),
                        method.name()
                    ));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_of_every_contract_declares_its_callers() {
        let declared: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(declared, all_methods());
    }

    #[test]
    fn the_table_is_sorted_so_that_lookups_find_every_row() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_role_may_call_exactly_what_its_row_says() {
        for (path, allowed) in TABLE {
            for role in Role::ALL {
                assert_eq!(
                    may_call(role, path),
                    allowed.contains(&role),
                    "{role} {path}"
                );
            }
        }
        for role in Role::ALL {
            assert!(!may_call(role, "/baetyl.node.v1.NodeService/Unheard"));
        }
    }
}
