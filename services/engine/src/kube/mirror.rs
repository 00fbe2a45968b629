//! The memory of a node outside of its volumes: what sync and node hold is kept in Secrets that their Pods mount. With an
//! empty volume they begin from there, before anybody activates anything. See `docs/adr/0014-core-pods.md`.

use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::{Client, unary};
use baetyl_kit::tasks::Tasks;
use baetyl_kit::watch_stream;
use baetyl_proto::mirror;
use baetyl_proto::node::node_service_client::NodeServiceClient;
use baetyl_proto::node::{WatchDesireRequest, WatchDesireResponse};
use baetyl_proto::sync::sync_service_client::SyncServiceClient;
use baetyl_proto::sync::{ExportIdentityRequest, WatchLinkStateRequest, WatchLinkStateResponse};
use tokio::sync::watch;

use super::core::labels;
use super::secrets::{Data, Secrets};
use crate::release::SYSTEM_NAMESPACE;

/// The Secret with the identity of the node.
pub(crate) const IDENTITY: &str = "baetyl-core-identity";
/// The Secret with the desire node accepted last.
pub(crate) const DESIRE: &str = "baetyl-core-desire";

/// Keeps both, for ever.
pub(crate) fn spawn<S: Secrets>(tasks: &Tasks, secrets: S, node: Client, sync: Client) {
    let desires = watch_desire(tasks, NodeServiceClient::new(node));
    tasks.spawn_until_shutdown("mirror-desire", keep_desire(secrets.clone(), desires));
    let sync = SyncServiceClient::new(sync);
    let links = watch_link(tasks, sync.clone());
    tasks.spawn_until_shutdown("mirror-identity", keep_identity(secrets, sync, links));
}

fn watch_desire(
    tasks: &Tasks,
    client: NodeServiceClient<Client>,
) -> watch::Receiver<Option<WatchDesireResponse>> {
    let open = move |token: Option<String>| {
        let mut client = client.clone();
        let resume_token = token.unwrap_or_default();
        async move {
            let request = WatchDesireRequest { resume_token };
            Ok(client.watch_desire(request).await?.into_inner())
        }
    };
    watch_stream::latest(
        tasks,
        "mirror-watch-desire",
        Backoff::local(),
        open,
        |item| watch_stream::token(&item.resume_token),
    )
}

fn watch_link(
    tasks: &Tasks,
    client: SyncServiceClient<Client>,
) -> watch::Receiver<Option<WatchLinkStateResponse>> {
    let open = move |token: Option<String>| {
        let mut client = client.clone();
        let resume_token = token.unwrap_or_default();
        async move {
            let request = WatchLinkStateRequest { resume_token };
            Ok(client.watch_link_state(request).await?.into_inner())
        }
    };
    watch_stream::latest(tasks, "mirror-watch-link", Backoff::local(), open, |item| {
        watch_stream::token(&item.resume_token)
    })
}

/// A node that holds no desire has lost it, or never had one: what is kept stays.
async fn keep_desire<S: Secrets>(
    secrets: S,
    mut desires: watch::Receiver<Option<WatchDesireResponse>>,
) {
    while desires.changed().await.is_ok() {
        let held = desires.borrow_and_update().clone();
        let Some(signed) = held.and_then(|held| held.desire) else {
            continue;
        };
        let data = Data::from([(mirror::DESIRE.to_owned(), mirror::write_desire(&signed))]);
        keep(&secrets, DESIRE, &data).await;
    }
}

/// A certificate is renewed in a link that is up: its state changes then.
async fn keep_identity<S: Secrets>(
    secrets: S,
    sync: SyncServiceClient<Client>,
    mut links: watch::Receiver<Option<WatchLinkStateResponse>>,
) {
    while links.changed().await.is_ok() {
        links.mark_unchanged();
        let asked = sync
            .clone()
            .export_identity(unary(ExportIdentityRequest {}))
            .await;
        match asked.map(tonic::Response::into_inner) {
            Ok(answer) => {
                let Some(identity) = answer.identity else {
                    continue;
                };
                let content = mirror::write_identity(&identity);
                let data = Data::from([(mirror::IDENTITY.to_owned(), content)]);
                keep(&secrets, IDENTITY, &data).await;
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), "the identity of this node could not be asked for");
            }
        }
    }
}

/// Writes what is not there yet, as often as it takes.
async fn keep<S: Secrets>(secrets: &S, name: &str, data: &Data) {
    let mut backoff = Backoff::local();
    loop {
        let kept = async {
            if secrets.get(SYSTEM_NAMESPACE, name).await?.as_ref() == Some(data) {
                return Ok(false);
            }
            secrets
                .put(SYSTEM_NAMESPACE, name, &labels(), data)
                .await
                .map(|()| true)
        };
        match kept.await {
            Ok(written) => {
                if written {
                    tracing::info!(
                        secret = name,
                        "the memory of this node is kept in the cluster"
                    );
                }
                return;
            }
            Err(error) => {
                let error: crate::ports::RuntimeError = error;
                tracing::warn!(secret = name, %error, "the memory of this node could not be kept");
                backoff.wait().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use baetyl_proto::shadow::SignedDesire;

    use super::*;
    use crate::kube::testing::FakeSecrets;

    fn holding(payload: Option<&'static [u8]>) -> Option<WatchDesireResponse> {
        Some(WatchDesireResponse {
            desire: payload.map(|payload| SignedDesire {
                payload: payload.into(),
                ..SignedDesire::default()
            }),
            ..WatchDesireResponse::default()
        })
    }

    #[tokio::test]
    async fn the_last_desire_is_kept_and_an_empty_node_takes_nothing_away() {
        let secrets = FakeSecrets::default();
        let (sender, desires) = watch::channel(None);
        let keeping = tokio::spawn(keep_desire(secrets.clone(), desires));
        let kept = || {
            let data = secrets.held(DESIRE)?;
            let signed = mirror::read_desire(&data[mirror::DESIRE]).ok()?;
            Some(signed.payload.to_vec())
        };
        secrets.fail(2);
        sender.send_replace(holding(Some(b"one")));
        baetyl_testkit::eventually!(kept().as_deref() == Some(&b"one"[..]));
        sender.send_replace(holding(None));
        sender.send_replace(holding(Some(b"two")));
        baetyl_testkit::eventually!(kept().as_deref() == Some(&b"two"[..]));
        let writes = secrets.writes();
        sender.send_replace(holding(None));
        sender.send_replace(holding(Some(b"two")));
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(
            (secrets.writes(), writes),
            (2, 2),
            "equal is not written again"
        );
    }
}
