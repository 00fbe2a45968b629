//! The server shell.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use http::Request;
use tonic::Status;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::Service;

use super::call::{CallMetrics, Calls, around, register_codes};
use super::health::ReadinessHealth;
use super::{Authorize, methods, reflection};
use crate::kit::Kit;
use crate::listen::{Listen, Listener, UnixAccess};
use crate::serve::{self, ServeError, ServerTls};
use crate::tls::Clients;

/// Collects services and then serves them as a required task.
///
/// Without [`authorize`](Self::authorize) every call except health and reflection is refused.
pub struct Server {
    kit: Kit,
    name: String,
    routes: Routes,
    services: Vec<&'static str>,
    authorize: Authorize,
    descriptors: Option<&'static [u8]>,
    own_deadlines: &'static [&'static str],
    access: UnixAccess,
    tls: Option<ServerTls>,
    in_node: Option<Clients>,
    http: Option<Router>,
}

impl Server {
    /// A server without services. Its name is that of its task, of its address file
    /// (`<data-dir>/run/<name>.addr`) and of the label `server` in metrics.
    pub fn new(kit: &Kit, name: &str) -> Self {
        Self {
            kit: kit.clone(),
            name: name.to_owned(),
            routes: Routes::default(),
            services: Vec::new(),
            authorize: Arc::new(|_, _, _| {
                Err(Status::permission_denied("nobody may call this server yet"))
            }),
            descriptors: None,
            own_deadlines: &[],
            access: UnixAccess::Private,
            tls: None,
            in_node: None,
            http: None,
        }
    }

    /// Adds a generated service.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Who may call what.
    #[must_use]
    pub fn authorize(mut self, authorize: Authorize) -> Self {
        self.authorize = authorize;
        self
    }

    /// Serves reflection for this encoded `FileDescriptorSet`, and ends each unary call of these contracts after
    /// [`UNANSWERED_DEADLINE`](super::UNANSWERED_DEADLINE) when its caller sets no deadline.
    #[must_use]
    pub fn reflection(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// Paths of unary methods that may take longer without a caller's deadline, because they set one themselves.
    #[must_use]
    pub fn own_deadlines(mut self, paths: &'static [&'static str]) -> Self {
        self.own_deadlines = paths;
        self
    }

    /// Opens a Unix socket to every user of this machine (mode 0666), for applications.
    #[must_use]
    pub fn open_to_apps(mut self) -> Self {
        self.access = UnixAccess::Anyone;
        self
    }

    /// Speaks TLS, fixed (`Arc<ServerConfig>`) or replaceable (`watch::Receiver<Arc<ServerConfig>>`).
    #[must_use]
    pub fn tls(mut self, tls: impl Into<ServerTls>) -> Self {
        self.tls = Some(tls.into());
        self
    }

    /// Over TCP: speaks TLS with the identity of this service ([`Kit::identity`]) and looks at `clients`' certificates;
    /// without an identity it listens on loopback only. Unix sockets stay as they are.
    #[must_use]
    pub fn in_node(mut self, clients: Clients) -> Self {
        self.in_node = Some(clients);
        self
    }

    /// Answers what is not a path of one of the gRPC services with `router`, on the same port. The
    /// authorisation function is not asked for these.
    #[must_use]
    pub fn http(mut self, router: Router) -> Self {
        self.http = Some(router);
        self
    }

    /// Binds and serves until shutdown. Returns where, with the real port.
    ///
    /// # Errors
    /// When it cannot bind, or would speak plaintext beyond loopback [inside a node](Self::in_node).
    pub async fn serve(mut self, listen: &Listen) -> Result<Listen, ServeError> {
        self.secure(listen)?;
        let listener = serve::bind(&self.name, listen, self.access).await?;
        self.serve_on(listener)
    }

    /// As [`serve`](Self::serve), on a listener that is already bound.
    ///
    /// # Errors
    /// When the address cannot be recorded, or as [`serve`](Self::serve).
    pub fn serve_on(mut self, listener: Listener) -> Result<Listen, ServeError> {
        let addr = listener.local_addr();
        self.secure(&addr.map_err(|source| ServeError::Address {
            server: self.name.clone(),
            source,
        })?)?;
        let (kit, name, tls) = (self.kit.clone(), self.name.clone(), self.tls.take());
        serve::http_on(&kit, &name, listener, tls, self.into_router())
    }

    fn secure(&mut self, listen: &Listen) -> Result<(), ServeError> {
        if let Some(clients) = self.in_node {
            self.tls = ServerTls::in_node(&self.kit, &self.name, listen, clients)?;
        }
        Ok(())
    }

    /// The services with everything around them, for tests without a socket. Requests need a
    /// [`Peer`](crate::listen::Peer) in their extensions.
    pub fn into_router(self) -> Router {
        let health = ReadinessHealth {
            readiness: self.kit.readiness().clone(),
            stopping: self.kit.shutdown().clone(),
            services: self.services.clone(),
        };
        let metrics = CallMetrics::new(self.kit.metrics(), &self.name);
        register_codes(&metrics);
        let capped = self.descriptors.map_or_else(HashSet::new, |descriptors| {
            methods::unary(descriptors, &self.services, self.own_deadlines)
        });
        let calls = Calls {
            authorize: self.authorize,
            token: self.kit.shutdown().clone(),
            metrics,
            capped: Arc::new(capped),
        };
        let mut router = self
            .routes
            .add_service(HealthServer::new(health))
            .into_axum_router();
        if let Some(descriptors) = self.descriptors {
            router = reflection::add(router, descriptors, self.services);
        }
        let layer = from_fn_with_state(calls, around);
        match self.http {
            None => router.layer(layer),
            // Without the fallback, whose place the HTTP router takes.
            Some(http) => router
                .reset_fallback()
                .route_layer(layer)
                .fallback_service(http),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}
