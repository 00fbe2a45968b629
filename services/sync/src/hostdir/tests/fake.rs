//! Sync's border for Pods, in memory.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use baetyl_kit::Kit;
use baetyl_kit::crypto::SigningKey;
use baetyl_kit::grpc::Server;
use baetyl_kit::listen::Listen;
use baetyl_kit::tls::{self, ClientAuth};
use baetyl_model::Digest;
use baetyl_proto::sync::object_service_server::{ObjectService, ObjectServiceServer};
use baetyl_proto::sync::{
    FetchObjectRequest, FetchObjectResponse, SelectNeededRequest, SelectNeededResponse,
};
use baetyl_proto::{digest, ticket};
use baetyl_testkit::TestIdentity;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// A sync that has what it was given; cheap to clone, clones are one.
#[derive(Clone)]
pub(super) struct FakeSync {
    key: Arc<SigningKey>,
    state: Arc<Mutex<State>>,
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    objects: HashMap<Digest, Bytes>,
    offsets: Vec<(Digest, u64)>,
    /// Breaks the next object off after so many bytes.
    cut: Option<usize>,
    /// What comes after the one that is broken off waits.
    hold_next: bool,
    refuse: Option<Status>,
    /// None: not known.
    needed: Option<HashSet<Digest>>,
}

impl FakeSync {
    pub(super) fn new() -> Self {
        Self {
            key: Arc::new(SigningKey::generate().unwrap()),
            state: Arc::default(),
            held: watch::Sender::new(false),
        }
    }

    /// Serves it until `kit` stops.
    pub(super) async fn serve(
        &self,
        kit: &Kit,
        listen: &Listen,
        identity: Option<TestIdentity>,
    ) -> Listen {
        let public = self.key.public_key().to_vec();
        let mut server = Server::new(kit, "sync-apps")
            .add_service(ObjectServiceServer::new(self.clone()))
            .authorize(baetyl_callers::tickets(move || Some(public.clone())))
            .open_to_apps();
        if let Some(identity) = identity {
            let tls = tls::server_config(identity.identity(), &ClientAuth::None, None);
            server = server.tls(tls.unwrap());
        }
        server.serve(listen).await.unwrap()
    }

    /// A ticket that this sync lets in.
    pub(super) fn ticket(&self) -> String {
        let claims = ticket::Claims {
            app: "shop".to_owned(),
            digests: Vec::new(),
            iat: 0,
        };
        ticket::issue(&claims, |bytes| self.key.sign(bytes)).unwrap() + "\n"
    }

    pub(super) fn put(&self, bytes: &[u8]) {
        self.put_as(digest::of(bytes), bytes);
    }

    /// Other bytes than the digest says.
    pub(super) fn put_as(&self, digest: Digest, bytes: &[u8]) {
        self.lock()
            .objects
            .insert(digest, Bytes::copy_from_slice(bytes));
    }

    /// Offsets at which this object was asked for, answered or not.
    pub(super) fn offsets(&self, bytes: &[u8]) -> Vec<u64> {
        let wanted = digest::of(bytes);
        self.lock()
            .offsets
            .iter()
            .filter(|(digest, _)| *digest == wanted)
            .map(|(_, offset)| *offset)
            .collect()
    }

    pub(super) fn cut_after(&self, bytes: usize) {
        self.lock().cut = Some(bytes);
    }

    /// Answers wait before their first byte, or go on.
    pub(super) fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// Answers wait after the one that is cut.
    pub(super) fn hold_next(&self) {
        self.lock().hold_next = true;
    }

    pub(super) fn refuse(&self, refusal: Option<Status>) {
        self.lock().refuse = refusal;
    }

    pub(super) fn need(&self, needed: &[Digest]) {
        self.lock().needed = Some(needed.iter().copied().collect());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

#[tonic::async_trait]
impl ObjectService for FakeSync {
    type FetchObjectStream =
        Pin<Box<dyn Stream<Item = Result<FetchObjectResponse, Status>> + Send>>;

    async fn fetch_object(
        &self,
        request: Request<FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        let FetchObjectRequest { digest, offset } = request.into_inner();
        let digest: Digest = digest.parse().unwrap();
        let (rest, cut) = {
            let mut state = self.lock();
            state.offsets.push((digest, offset));
            if let Some(refusal) = &state.refuse {
                return Err(refusal.clone());
            }
            let object = state.objects.get(&digest).cloned();
            let object = object.ok_or_else(|| Status::not_found("not staged on this node"))?;
            let offset = usize::try_from(offset).unwrap();
            if offset > object.len() {
                return Err(Status::out_of_range("it is shorter"));
            }
            let cut = state.cut.take();
            (object.slice(offset..), cut)
        };
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        if cut.is_some() && std::mem::take(&mut self.lock().hold_next) {
            self.hold(true);
        }
        let sent = rest.slice(..cut.unwrap_or(rest.len()).min(rest.len()));
        let chunks: Vec<_> = sent
            .chunks(64 * 1024)
            .map(|chunk| {
                Ok(FetchObjectResponse {
                    chunk: Bytes::copy_from_slice(chunk),
                })
            })
            .collect();
        let end = cut.map(|_| Err(Status::unavailable("cut")));
        let answer = stream::iter(chunks).chain(stream::iter(end));
        Ok(Response::new(Box::pin(answer)))
    }

    async fn select_needed(
        &self,
        request: Request<SelectNeededRequest>,
    ) -> Result<Response<SelectNeededResponse>, Status> {
        let state = self.lock();
        let needed = state
            .needed
            .as_ref()
            .ok_or_else(|| Status::unavailable("not known"))?;
        let mut digests = request.into_inner().digests;
        digests.retain(|digest| needed.contains(&digest.parse().unwrap()));
        Ok(Response::new(SelectNeededResponse { needed: digests }))
    }
}
