//! What sync knows of the node service, and what it hands to it: the held desire, the report, new desires, who we are.

use std::collections::HashSet;
use std::sync::Arc;

use baetyl_kit::Tasks;
use baetyl_kit::backoff::Backoff;
use baetyl_kit::grpc::{self, Client};
use baetyl_kit::watch_stream::{self, Event};
use baetyl_model::desire::{DesiredApp, Header};
use baetyl_model::{Desire, Digest};
use baetyl_proto::node::node_service_client::NodeServiceClient;
use baetyl_proto::node::{
    AcceptDesireRequest, AcceptDesireResponse, SetIdentityRequest, WatchDesireRequest,
    WatchDesireResponse, WatchReportRequest, WatchReportResponse,
};
use baetyl_proto::shadow::{NodeStats, NodeStatus, SignedDesire};
use baetyl_proto::sign;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};

use crate::identity::Identity;

/// What the node service holds.
#[derive(Clone, Debug, Default)]
pub(crate) enum Held {
    /// It was not asked yet.
    #[default]
    Unknown,
    /// No desire. Not the same as an empty one.
    Nothing,
    /// This one.
    Desire(Arc<HeldDesire>),
}

/// An accepted desire.
#[derive(Debug)]
pub(crate) struct HeldDesire {
    pub(crate) signed: SignedDesire,
    pub(crate) header: Header,
}

impl Held {
    fn of(message: WatchDesireResponse) -> Self {
        let Some(signed) = message.desire else {
            return Self::Nothing;
        };
        match sign::read_desire(&signed) {
            Ok(desire) => Self::Desire(Arc::new(HeldDesire {
                header: desire.header(),
                signed,
            })),
            Err(error) => {
                // Node accepted it, so a newer release wrote it; nothing may be removed meanwhile.
                tracing::error!(%error, "the desire that node holds cannot be read");
                Self::Unknown
            }
        }
    }

    /// Its header, if there is one.
    pub(crate) fn header(&self) -> Option<&Header> {
        match self {
            Self::Desire(held) => Some(&held.header),
            Self::Unknown | Self::Nothing => None,
        }
    }

    /// Everything it references; None when no desire is known.
    pub(crate) fn digests(&self) -> Option<HashSet<Digest>> {
        let Self::Desire(held) = self else {
            return None;
        };
        let desire: Desire = sign::read_desire(&held.signed).ok()?;
        Some(desire.apps.iter().flat_map(DesiredApp::digests).collect())
    }
}

/// The report as node joins it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// With its digest; absent until engine reported once.
    pub(crate) status: Option<(Digest, Arc<NodeStatus>)>,
    /// The latest figures.
    pub(crate) stats: Option<Arc<NodeStats>>,
}

impl Report {
    /// Takes in a message; what it leaves out is unchanged.
    fn merge(&mut self, message: WatchReportResponse) {
        if let Some(status) = message.status {
            match message.status_digest.parse() {
                Ok(digest) => self.status = Some((digest, Arc::new(status))),
                Err(error) => tracing::warn!(%error, "node gave a status without a digest"),
            }
        }
        if let Some(stats) = message.stats {
            self.stats = Some(Arc::new(stats));
        }
    }
}

/// The node service, seen from here. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Node {
    client: NodeServiceClient<Client>,
    held: watch::Receiver<Held>,
    report: watch::Receiver<Report>,
}

impl Node {
    /// Follows the node service behind `client`, and tells it who we are whenever it answers again: it may have lost
    /// its own memory.
    pub(crate) fn follow(
        tasks: &Tasks,
        client: Client,
        identity: watch::Receiver<Option<Arc<Identity>>>,
    ) -> Self {
        let client =
            NodeServiceClient::new(client).max_decoding_message_size(2 * grpc::MAX_MESSAGE);
        let (held, held_receiver) = watch::channel(Held::default());
        let (report, report_receiver) = watch::channel(Report::default());
        let (answers, answering) = watch::channel(0);

        let asked = client.clone();
        let desires = watch_stream::events(
            tasks,
            "watch-desire",
            Backoff::local(),
            1,
            move |token: Option<String>| {
                let mut client = asked.clone();
                let resume_token = token.unwrap_or_default();
                async move {
                    Ok(client
                        .watch_desire(WatchDesireRequest { resume_token })
                        .await?
                        .into_inner())
                }
            },
            |message| watch_stream::token(&message.resume_token),
        );
        tasks.spawn_until_shutdown("held-desire", follow_desires(desires, held, answers));

        let asked = client.clone();
        let reports = watch_stream::events(
            tasks,
            "watch-report",
            Backoff::local(),
            1,
            move |token: Option<String>| {
                let mut client = asked.clone();
                let resume_token = token.unwrap_or_default();
                async move {
                    Ok(client
                        .watch_report(WatchReportRequest { resume_token })
                        .await?
                        .into_inner())
                }
            },
            |message| watch_stream::token(&message.resume_token),
        );
        tasks.spawn_until_shutdown("report", follow_reports(reports, report));
        tasks.spawn_until_shutdown(
            "tell-identity",
            tell_identity(client.clone(), identity, answering),
        );
        Self {
            client,
            held: held_receiver,
            report: report_receiver,
        }
    }

    /// What it holds, and every change.
    pub(crate) fn held(&self) -> watch::Receiver<Held> {
        self.held.clone()
    }

    /// What it reports, and every change.
    pub(crate) fn report(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }

    /// Offers a desire whose signature was verified.
    ///
    /// # Errors
    /// What node answers.
    pub(crate) async fn accept_desire(
        &self,
        signed: SignedDesire,
    ) -> Result<AcceptDesireResponse, Status> {
        let request = grpc::unary(AcceptDesireRequest {
            desire: Some(signed),
        });
        let answer = self.client.clone().accept_desire(request).await?;
        Ok(answer.into_inner())
    }
}

async fn follow_desires(
    mut events: mpsc::Receiver<Event<WatchDesireResponse>>,
    held: watch::Sender<Held>,
    answers: watch::Sender<u64>,
) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Opened { .. } => answers.send_modify(|count| *count += 1),
            Event::Item(message) => {
                held.send_replace(Held::of(message));
            }
            // What is held does not change while node is away.
            Event::Lost(_) => {}
        }
    }
}

async fn follow_reports(
    mut events: mpsc::Receiver<Event<WatchReportResponse>>,
    report: watch::Sender<Report>,
) {
    while let Some(event) = events.recv().await {
        if let Event::Item(message) = event {
            report.send_modify(|report| report.merge(message));
        }
    }
}

/// Once for each (identity, time node came back).
async fn tell_identity(
    mut client: NodeServiceClient<Client>,
    mut identity: watch::Receiver<Option<Arc<Identity>>>,
    mut answering: watch::Receiver<u64>,
) {
    let mut backoff = Backoff::local();
    loop {
        let current = identity.borrow_and_update().clone();
        let answers = *answering.borrow_and_update() > 0;
        if let (Some(current), true) = (current, answers) {
            let request = grpc::unary(SetIdentityRequest {
                namespace: current.namespace.to_string(),
                node_name: current.node_name.to_string(),
                node_uid: current.node_uid.to_string(),
            });
            match client.set_identity(request).await {
                Ok(_) => backoff.reset(),
                Err(status) if status.code() == Code::InvalidArgument => {
                    tracing::error!(
                        reason = status.message(),
                        "node does not take this identity"
                    );
                }
                Err(_) => {
                    backoff.wait().await;
                    continue;
                }
            }
        }
        tokio::select! {
            Ok(()) = identity.changed() => {}
            Ok(()) = answering.changed() => {}
            else => return,
        }
    }
}
