//! gRPC border for applications: `LocalService`, with the limits of its contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use baetyl_kit::grpc::details::{self, Violation};
use baetyl_proto::node::local_service_server::LocalService;
use baetyl_proto::node::{
    GetNodeInfoRequest, GetNodeInfoResponse, GetPropertiesRequest, GetPropertiesResponse,
    Properties, PropertyChange, UpdatePropertiesRequest, UpdatePropertiesResponse,
    WatchPropertiesRequest, WatchPropertiesResponse,
};
use baetyl_proto::shadow::Property;
use futures_util::{StreamExt as _, stream};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::api::{Answers, storage};
use crate::report;
use crate::shadow::Shadow;

const MAX_PROPERTIES: usize = 1000;
const MAX_KEY: usize = 253;
const MAX_VALUE: usize = 64 * 1024;

/// The service over the shadow.
#[derive(Clone, Debug)]
pub(crate) struct Local(pub(crate) Arc<Shadow>);

impl Local {
    fn properties(&self) -> Properties {
        let report = self.0.properties.borrow().clone();
        let desire = self
            .0
            .desire
            .borrow()
            .as_ref()
            .map(|held| held.desire.node_properties.clone());
        let property = |(key, value): (&String, &String)| Property {
            key: key.clone(),
            value: value.clone(),
        };
        Properties {
            report: report.iter().map(property).collect(),
            desire: desire.unwrap_or_default(),
        }
    }
}

#[tonic::async_trait]
impl LocalService for Local {
    async fn get_node_info(
        &self,
        _: Request<GetNodeInfoRequest>,
    ) -> Result<Response<GetNodeInfoResponse>, Status> {
        let identity = self.0.identity();
        let report = self.0.report.borrow().clone();
        Ok(Response::new(GetNodeInfoResponse {
            namespace: identity
                .as_ref()
                .map(|identity| identity.namespace.clone())
                .unwrap_or_default(),
            node_name: identity
                .map(|identity| identity.node_name)
                .unwrap_or_default(),
            nodes: self.0.machines(),
            stats: report.stats.as_deref().cloned(),
        }))
    }

    async fn get_properties(
        &self,
        _: Request<GetPropertiesRequest>,
    ) -> Result<Response<GetPropertiesResponse>, Status> {
        Ok(Response::new(GetPropertiesResponse {
            properties: Some(self.properties()),
        }))
    }

    async fn update_properties(
        &self,
        request: Request<UpdatePropertiesRequest>,
    ) -> Result<Response<UpdatePropertiesResponse>, Status> {
        let changes = check(request.into_inner().changes, &self.0.properties.borrow())?;
        let shadow = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || report::accept_properties(&shadow, &changes))
            .await
            .map_err(|error| Status::internal(format!("the write was interrupted: {error}")))?
            .map_err(|error| storage(&error))?;
        Ok(Response::new(UpdatePropertiesResponse {
            properties: Some(self.properties()),
        }))
    }

    type WatchPropertiesStream = Answers<WatchPropertiesResponse>;

    async fn watch_properties(
        &self,
        request: Request<WatchPropertiesRequest>,
    ) -> Result<Response<Self::WatchPropertiesStream>, Status> {
        let token = request.into_inner().resume_token;
        let mut resumed = self.0.watched.properties.resume(&token)?;
        let local = self.clone();
        let report = WatchStream::new(self.0.properties.subscribe()).map(|_| ());
        let desire = WatchStream::from_changes(self.0.desire.subscribe()).map(|_| ());
        let changes = stream::select(report, desire).filter_map(move |()| {
            let properties = local.properties();
            let token = resumed.news(properties.clone());
            std::future::ready(token.map(|resume_token| {
                Ok(WatchPropertiesResponse {
                    properties: Some(properties),
                    resume_token,
                })
            }))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// All mistakes of a change at once.
fn check(
    changes: Vec<PropertyChange>,
    held: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Option<String>>, Status> {
    let mut faults = Vec::new();
    let mut checked = BTreeMap::new();
    for (i, change) in changes.into_iter().enumerate() {
        if change.key.is_empty() || change.key.len() > MAX_KEY {
            faults.push(Violation::new(
                format!("changes[{i}].key"),
                format!("key {:?} must have 1 to {MAX_KEY} bytes", change.key),
            ));
        }
        if change.value.len() > MAX_VALUE {
            let length = change.value.len();
            faults.push(Violation::new(
                format!("changes[{i}].value"),
                format!(
                    "the value of {:?} has {length} bytes, {MAX_VALUE} are allowed",
                    change.key
                ),
            ));
        }
        checked.insert(change.key, (!change.delete).then_some(change.value));
    }
    let added = checked
        .iter()
        .filter(|(key, value)| value.is_some() && !held.contains_key(*key))
        .count();
    if held.len() + added > MAX_PROPERTIES {
        let message = format!("a node has at most {MAX_PROPERTIES} properties");
        faults.push(Violation::new("changes", message));
    }
    if faults.is_empty() {
        Ok(checked)
    } else {
        Err(details::invalid_fields(faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: &str) -> PropertyChange {
        PropertyChange {
            key: key.into(),
            value: value.into(),
            delete: false,
        }
    }

    #[test]
    fn all_mistakes_of_a_property_change_are_told_at_once() {
        let error = check(
            vec![
                change("", "x"),
                change(&"k".repeat(254), "x"),
                change("v", &"x".repeat(MAX_VALUE + 1)),
            ],
            &BTreeMap::new(),
        )
        .unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert_eq!(
            error.message().matches(';').count(),
            2,
            "{}",
            error.message()
        );
        let fields: Vec<String> = details::violations(&error)
            .into_iter()
            .map(|violation| violation.field)
            .collect();
        assert_eq!(
            fields,
            ["changes[0].key", "changes[1].key", "changes[2].value"]
        );
    }

    #[test]
    fn the_number_of_properties_is_bounded_and_replacing_one_does_not_count() {
        let full: BTreeMap<String, String> = (0..MAX_PROPERTIES)
            .map(|i| (format!("k{i}"), String::new()))
            .collect();
        assert!(check(vec![change("k1", "new")], &full).is_ok());
        assert!(check(vec![change("another", "new")], &full).is_err());
    }
}
