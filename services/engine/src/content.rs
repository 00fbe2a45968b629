//! The content port over sync's gRPC service.

use std::io;
use std::path::{Path, PathBuf};

use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::{Client, unary};
use baetyl_kit::tasks::Tasks;
use baetyl_kit::watch_stream::{self, Event};
use baetyl_model::Digest;
use baetyl_model::desire::{ObjectRef, ResourceRef};
use baetyl_proto::sync::link_state::Phase;
use baetyl_proto::sync::open_object_response::Content as Opened;
use baetyl_proto::sync::sync_service_client::SyncServiceClient;
use baetyl_proto::sync::{
    OpenObjectRequest, PutEventRequest, ReadResourceRequest, SetPinsRequest, StageRequest,
    TrustAppKeyRequest, WatchLinkStateRequest, WatchLinkStateResponse,
};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::ports::{CloudEvent, Content, ContentError, ContentEvent, Progress};

/// Who declares pins.
const OWNER: &str = "engine";

/// Sync; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SyncClient(SyncServiceClient<Client>);

impl SyncClient {
    pub(crate) fn new(client: Client) -> Self {
        Self(SyncServiceClient::new(client))
    }
}

/// What sync says no to for good stays so until something else changes; everything else may pass.
fn content_error(status: &Status) -> ContentError {
    let said = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied
        | Code::DataLoss
        | Code::InvalidArgument
        | Code::FailedPrecondition => ContentError::Never(said),
        Code::Unavailable if said.is_empty() => {
            ContentError::Later("sync cannot be reached".to_owned())
        }
        code => ContentError::Later(if said.is_empty() {
            format!("sync answered {code:?}")
        } else {
            said
        }),
    }
}

impl Content for SyncClient {
    async fn stage(
        &self,
        resources: Vec<ResourceRef>,
        objects: Vec<ObjectRef>,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<(), ContentError> {
        let request = StageRequest {
            resources: resources.into_iter().map(Into::into).collect(),
            objects: objects.into_iter().map(Into::into).collect(),
        };
        let answer = self
            .0
            .clone()
            .stage(request)
            .await
            .map_err(|status| content_error(&status))?;
        let mut stream = answer.into_inner();
        while let Some(step) = stream
            .message()
            .await
            .map_err(|status| content_error(&status))?
        {
            progress(Progress {
                items_done: step.items_done,
                items_total: step.items_total,
                bytes_done: step.bytes_done,
                bytes_total: step.bytes_total,
            });
        }
        Ok(())
    }

    async fn set_pins(&self, digests: Vec<Digest>) -> Result<(), ContentError> {
        let request = SetPinsRequest {
            owner: OWNER.to_owned(),
            digests: digests.iter().map(ToString::to_string).collect(),
        };
        let answer = self.0.clone().set_pins(unary(request)).await;
        answer.map(|_| ()).map_err(|status| content_error(&status))
    }

    async fn read_resource(&self, digest: &Digest) -> Result<Vec<u8>, ContentError> {
        let digest = digest.to_string();
        let answer = self
            .0
            .clone()
            .read_resource(unary(ReadResourceRequest { digest }))
            .await;
        answer
            .map(|answer| answer.into_inner().body.into())
            .map_err(|status| content_error(&status))
    }

    async fn open_object(&self, digest: &Digest, spool: &Path) -> Result<PathBuf, ContentError> {
        let request = OpenObjectRequest {
            digest: digest.to_string(),
            want_path: true,
        };
        let answer = self
            .0
            .clone()
            .open_object(request)
            .await
            .map_err(|status| content_error(&status))?;
        let mut stream = answer.into_inner();
        let mut file = None;
        while let Some(message) = stream
            .message()
            .await
            .map_err(|status| content_error(&status))?
        {
            match message.content {
                Some(Opened::Path(path)) => return Ok(path.into()),
                Some(Opened::Chunk(chunk)) => spool_chunk(&mut file, spool, &chunk)
                    .await
                    .map_err(spool_error)?,
                None => {}
            }
        }
        // An empty object has no chunk.
        spool_chunk(&mut file, spool, &[])
            .await
            .map_err(spool_error)?;
        if let Some(mut file) = file {
            file.flush().await.map_err(spool_error)?;
        }
        Ok(spool.to_owned())
    }

    async fn trust_app_key(&self, key: [u8; 32]) -> Result<(), ContentError> {
        let request = TrustAppKeyRequest {
            public_key: key.to_vec().into(),
        };
        match self.0.clone().trust_app_key(unary(request)).await {
            // A sync of the first release knows no tickets.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            Err(status) => Err(content_error(&status)),
            Ok(_) => Ok(()),
        }
    }

    async fn put_event(&self, event: &CloudEvent) -> Result<(), ContentError> {
        let request = PutEventRequest {
            reason: event.reason.to_owned(),
            message: event.message.clone(),
            about: event.about.clone(),
            r#type: if event.warning { "Warning" } else { "Normal" }.to_owned(),
        };
        let answer = self.0.clone().put_event(unary(request)).await;
        answer.map(|_| ()).map_err(|status| content_error(&status))
    }

    fn watch(&self, tasks: &Tasks) -> mpsc::Receiver<ContentEvent> {
        let client = self.0.clone();
        let open = move |token: Option<String>| {
            let mut client = client.clone();
            let resume_token = token.unwrap_or_default();
            async move {
                Ok(client
                    .watch_link_state(WatchLinkStateRequest { resume_token })
                    .await?
                    .into_inner())
            }
        };
        let mut states =
            watch_stream::events(tasks, "watch-link", Backoff::local(), 4, open, |message| {
                watch_stream::token(&message.resume_token)
            });
        let (sender, receiver) = mpsc::channel(4);
        tasks.spawn_until_shutdown("watch-link-events", async move {
            let mut online = false;
            while let Some(event) = states.recv().await {
                for event in content_events(&event, &mut online) {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
        receiver
    }
}

/// `online` is what sync told last: a stream that is resumed says it again only after a change, and while the stream is
/// broken the cloud counts as away.
fn content_events(event: &Event<WatchLinkStateResponse>, online: &mut bool) -> Vec<ContentEvent> {
    match event {
        Event::Opened { resumed: true } => {
            vec![ContentEvent::Opened, ContentEvent::Online(*online)]
        }
        Event::Opened { resumed: false } => vec![ContentEvent::Opened],
        Event::Item(item) => {
            let phase = item
                .state
                .as_ref()
                .map_or(Phase::Unspecified, |state| state.phase());
            *online = phase == Phase::Online;
            vec![ContentEvent::Online(*online)]
        }
        Event::Lost(_) => vec![ContentEvent::Online(false)],
    }
}

async fn spool_chunk(
    file: &mut Option<tokio::fs::File>,
    spool: &Path,
    chunk: &[u8],
) -> io::Result<()> {
    let open = match file {
        Some(file) => file,
        None => file.insert(tokio::fs::File::create(spool).await?),
    };
    open.write_all(chunk).await
}

fn spool_error(error: io::Error) -> ContentError {
    ContentError::Later(format!("an object cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_change_by_itself_is_given_up() {
        let cases = [
            (Code::PermissionDenied, true),
            (Code::DataLoss, true),
            (Code::Unavailable, false),
            (Code::ResourceExhausted, false),
            (Code::DeadlineExceeded, false),
            (Code::NotFound, false),
            (Code::Internal, false),
        ];
        for (code, permanent) in cases {
            let error = content_error(&Status::new(code, "why"));
            assert_eq!(
                (error.is_permanent(), error.to_string().as_str()),
                (permanent, "why"),
                "{code:?}"
            );
        }
    }

    #[test]
    fn the_cloud_counts_as_reached_only_when_the_link_is_online() {
        use baetyl_proto::sync::LinkState;
        let item = |phase: Phase| {
            let state = Some(LinkState {
                phase: phase.into(),
                ..LinkState::default()
            });
            Event::Item(WatchLinkStateResponse {
                state,
                ..WatchLinkStateResponse::default()
            })
        };
        let mut online = false;
        let mut told = |event: &Event<_>| content_events(event, &mut online).pop();
        let resumed = Event::Opened { resumed: true };
        let lost = Event::Lost(Status::unavailable(""));
        let (reached, away) = (
            Some(ContentEvent::Online(true)),
            Some(ContentEvent::Online(false)),
        );
        assert_eq!(told(&item(Phase::Online)), reached);
        assert_eq!(told(&lost), away);
        // Sync tells an unchanged state no second time.
        assert_eq!(told(&resumed), reached);
        for phase in [
            Phase::Unspecified,
            Phase::WaitingForIdentity,
            Phase::Connecting,
            Phase::Removed,
        ] {
            assert_eq!(told(&item(phase)), away);
        }
        assert_eq!(told(&resumed), away);
    }
}
