//! Which methods are unary, read from the descriptors that reflection serves.

use std::collections::HashSet;

use prost::Message;

/// `FileDescriptorSet` with nothing but what is wanted here: what a type leaves out is skipped, not kept.
#[derive(Clone, PartialEq, Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "5")]
    client_streaming: bool,
    #[prost(bool, tag = "6")]
    server_streaming: bool,
}

/// Paths (`/package.Service/Method`) of the unary methods of `services`, without those in `except`.
pub(super) fn unary(descriptors: &[u8], services: &[&str], except: &[&str]) -> HashSet<String> {
    let set = Set::decode(descriptors).unwrap_or_else(|error| {
        tracing::error!(%error, "the descriptors given for reflection cannot be decoded");
        Set::default()
    });
    let mut paths = HashSet::new();
    for file in set.files {
        for service in file.services {
            let name = format!("{}.{}", file.package, service.name);
            if !services.contains(&name.as_str()) {
                continue;
            }
            let unary = service
                .methods
                .iter()
                .filter(|method| !method.client_streaming && !method.server_streaming)
                .map(|method| format!("/{name}/{}", method.name))
                .filter(|path| !except.contains(&path.as_str()));
            paths.extend(unary);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_other_services_and_exceptions_are_left_out() {
        let descriptors = tonic_health::pb::FILE_DESCRIPTOR_SET;
        let health = ["grpc.health.v1.Health"];
        // Watch streams. Only an older release has no List.
        let mut found: Vec<_> = unary(descriptors, &health, &["/grpc.health.v1.Health/List"])
            .into_iter()
            .collect();
        found.sort();
        assert_eq!(found, ["/grpc.health.v1.Health/Check"]);
        assert!(unary(descriptors, &["another.Service"], &[]).is_empty());
        assert!(unary(b"\xff", &health, &[]).is_empty());
    }
}
