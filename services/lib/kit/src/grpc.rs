//! gRPC servers and clients as every service has them.
//!
//! [`Server`] adds health, reflection, authorisation, deadlines, trace context, metrics and a graceful end
//! to generated services; [`connect_lazy`] and [`Connect`] give channels that reconnect by themselves.
//! What kit does not know is who may call what: that is an [`Authorize`] function a service passes in.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tonic::{Request, Status};

use crate::listen::Peer;

mod call;
mod client;
pub mod details;
pub(crate) mod health;
mod methods;
mod reflection;
mod server;

pub use call::deadline_of;
pub use client::{
    Client, ClientTls, Connect, ConnectError, Endpoint, EndpointError, Outgoing, connect_lazy,
};
pub use server::Server;

/// Longest message in either direction, 4 MiB; larger things travel as streams. tonic's generated code
/// enforces the same number for what it decodes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// The metadata key in which a caller on a core socket names its role.
pub const ROLE: &str = "baetyl-role";

/// Deadline of a unary call that sets none of its own.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a server works on a unary call whose caller sets no deadline: three times what our own clients ask for, and
/// short enough that work for a caller who left without a word ends.
pub const UNANSWERED_DEADLINE: Duration = Duration::from_secs(30);

/// Decides whether `peer` may call the gRPC path (`/package.Service/Method`), and says who it is.
pub type Authorize =
    Arc<dyn Fn(&Peer, &str, &HeaderMap) -> Result<CallerInfo, Status> + Send + Sync>;

/// Who calls, as the authorisation function found out. In the extensions of every request
/// (`request.extensions().get::<CallerInfo>()`).
#[derive(Clone)]
pub struct CallerInfo {
    /// The role the call was allowed for.
    pub role: Cow<'static, str>,
    /// Who in that role: an application, a node.
    pub subject: Option<String>,
    detail: Option<Arc<dyn Any + Send + Sync>>,
}

impl CallerInfo {
    /// A caller in this role.
    pub fn new(role: impl Into<Cow<'static, str>>) -> Self {
        Self {
            role: role.into(),
            subject: None,
            detail: None,
        }
    }

    /// Names who it is.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Carries a value of the domain, such as the parsed token.
    #[must_use]
    pub fn with_detail<T: Any + Send + Sync>(mut self, detail: T) -> Self {
        self.detail = Some(Arc::new(detail));
        self
    }

    /// The value of the domain, if it is a `T`.
    pub fn detail<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.detail.as_ref()?.downcast_ref()
    }

    /// The caller of a request that came through [`Server`].
    ///
    /// # Errors
    /// `INTERNAL` when the request did not come through it.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, Status> {
        request
            .extensions()
            .get()
            .ok_or_else(|| Status::internal("the request did not pass the authorisation layer"))
    }
}

impl fmt::Debug for CallerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerInfo")
            .field("role", &self.role)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// The role named in the metadata; `admin` when there is none.
pub fn role_of(headers: &HeaderMap) -> &str {
    headers
        .get(ROLE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("admin")
}

/// Allows every call of our own user and root on a Unix socket, in the role it names; refuses all others.
pub fn same_user() -> Authorize {
    Arc::new(|peer, _, headers| {
        if peer.is_same_user() {
            Ok(CallerInfo::new(role_of(headers).to_owned()))
        } else {
            Err(Status::permission_denied(format!(
                "{} is not the user of this service",
                peer.addr
            )))
        }
    })
}

/// The request with the usual deadline ([`CALL_DEADLINE`]).
pub fn unary<T>(message: T) -> Request<T> {
    unary_within(CALL_DEADLINE, message)
}

/// The request with this deadline.
pub fn unary_within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
