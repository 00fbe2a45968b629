//! The shadow port over node's gRPC service.

use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::{Client, unary};
use baetyl_kit::tasks::Tasks;
use baetyl_kit::watch_stream::{self, Event};
use baetyl_model::{NodeStats, NodeStatus};
use baetyl_proto::node::node_service_client::NodeServiceClient;
use baetyl_proto::node::{
    PutReportRequest, TrustAppKeyRequest, WatchDesireRequest, WatchDesireResponse,
};
use tokio::sync::mpsc;
use tonic::Status;

use crate::ports::{Shadow, ShadowError, ShadowEvent};

/// Node; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct NodeClient(NodeServiceClient<Client>);

impl NodeClient {
    pub(crate) fn new(client: Client) -> Self {
        Self(NodeServiceClient::new(client))
    }
}

fn shadow_error(status: &Status) -> ShadowError {
    ShadowError(format!(
        "node answered {:?}: {}",
        status.code(),
        status.message()
    ))
}

impl Shadow for NodeClient {
    fn watch(&self, tasks: &Tasks) -> mpsc::Receiver<ShadowEvent> {
        let client = self.0.clone();
        let open = move |token: Option<String>| {
            let mut client = client.clone();
            let resume_token = token.unwrap_or_default();
            async move {
                Ok(client
                    .watch_desire(WatchDesireRequest { resume_token })
                    .await?
                    .into_inner())
            }
        };
        let mut desires = watch_stream::events(
            tasks,
            "watch-desire",
            Backoff::local(),
            4,
            open,
            |message| watch_stream::token(&message.resume_token),
        );
        let (sender, receiver) = mpsc::channel(4);
        tasks.spawn_until_shutdown("watch-desire-events", async move {
            while let Some(event) = desires.recv().await {
                let Some(event) = shadow_event(event) else {
                    continue;
                };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    async fn put_report(
        &self,
        status: Option<NodeStatus>,
        stats: Option<NodeStats>,
    ) -> Result<(), ShadowError> {
        let request = PutReportRequest {
            status: status.map(Into::into),
            stats: stats.map(Into::into),
        };
        let answer = self.0.clone().put_report(unary(request)).await;
        answer.map(|_| ()).map_err(|status| shadow_error(&status))
    }

    async fn trust_app_key(&self, key: [u8; 32]) -> Result<(), ShadowError> {
        let request = TrustAppKeyRequest {
            public_key: key.to_vec().into(),
        };
        let answer = self.0.clone().trust_app_key(unary(request)).await;
        answer.map(|_| ()).map_err(|status| shadow_error(&status))
    }
}

/// The payload is what node verified and stored; a message without a desire says that there is none.
fn shadow_event(event: Event<WatchDesireResponse>) -> Option<ShadowEvent> {
    match event {
        Event::Opened { .. } => Some(ShadowEvent::Opened),
        Event::Item(item) => Some(ShadowEvent::Desire(
            item.desire.map(|signed| signed.payload.into()),
        )),
        Event::Lost(_) => None,
    }
}
