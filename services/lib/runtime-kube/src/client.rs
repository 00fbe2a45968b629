//! One request at a time: what is asked, how long it may take, and what a refusal says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use crate::config::{KubeConfig, OpenError, Times};
use crate::error::{ApiError, Details, Status};
use crate::seen::{Bare, Meta};

mod access;
mod discovery;
mod kubeconfig;
mod resource;
mod transport;

#[cfg(test)]
mod tests;

pub(crate) use resource::{Resource, encode};
#[cfg(test)]
pub(crate) use transport::BoxError;
pub(crate) use transport::{Body, Network, Transport};

use discovery::Known;

/// Whole objects.
const WHOLE: &str = "application/json";
/// Their metadata alone; an API server that cannot do that sends them whole, which is read as well.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// The same of a list.
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Largest answer that is read: a page of a list with the largest objects etcd takes (1.5 MiB) does not reach it.
const MAX_ANSWER: usize = 64 << 20;
/// How often a request is sent that the API server asks to send later.
const TRIES: u32 = 5;
/// Longest pause the API server can ask for; then the caller is told.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The API server; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    transport: Arc<dyn Transport>,
    times: Times,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// One request.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    method: Method,
    /// Path and query, or a whole URL of a kubelet.
    path: String,
    accept: &'static str,
    body: Option<(&'static str, Bytes)>,
    /// Whose rights it is made with; None: ours.
    user: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            accept: WHOLE,
            body: None,
            user: None,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Asks for the metadata of an object only.
    pub(crate) fn metadata(mut self) -> Self {
        self.accept = METADATA;
        self
    }

    /// Asks for the metadata of a list of objects, or of what is watched.
    pub(crate) fn metadata_list(mut self, watch: bool) -> Self {
        self.accept = if watch { METADATA } else { METADATA_LIST };
        self
    }

    /// Whom it goes to, for messages.
    fn whom(&self, server: &str) -> String {
        let kubelet = self.path.strip_prefix("https://");
        let kubelet = kubelet.and_then(|rest| rest.split('/').next());
        kubelet.map_or_else(
            || format!("the API server at {server}"),
            |address| format!("the kubelet at {address}"),
        )
    }

    pub(crate) fn body(mut self, kind: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = Some((kind, body.into()));
        self
    }

    pub(crate) fn user(mut self, user: Option<&'a str>) -> Self {
        self.user = user;
        self
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, ApiError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(ACCEPT, self.accept);
        if let Some((kind, _)) = &self.body {
            request = request.header(CONTENT_TYPE, *kind);
        }
        if let Some(user) = self.user {
            // The groups of a service account are added by the API server.
            request = request.header("Impersonate-User", user);
        }
        let body = self.body.as_ref().map(|(_, body)| body.clone());
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ApiError::Strange(format!("{}: {error}", self.path)))
    }
}

impl Api {
    /// Finds the way to the API server; whether it answers is seen later.
    pub(crate) async fn open(config: &KubeConfig) -> Result<Self, OpenError> {
        let opened = config.clone();
        // Certificates and tokens are files.
        let network = tokio::task::spawn_blocking(move || Network::open(&opened)).await;
        let network =
            network.map_err(|_| OpenError::NoServiceAccount("the program is stopping"))??;
        Ok(Self::over(Arc::new(network), config.times))
    }

    pub(crate) fn over(transport: Arc<dyn Transport>, times: Times) -> Self {
        Self {
            transport,
            times,
            known: Arc::default(),
        }
    }

    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    /// Whom it reaches, for messages.
    pub(crate) fn server(&self) -> &str {
        self.transport.server()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ApiError> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|error| ApiError::Strange(error.to_string()))
    }

    /// The same where nothing there is an answer, too.
    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
    ) -> Result<Option<T>, ApiError> {
        match self.call(call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Metadata of the object at a path, as somebody with rights of his own or we may see it; None: there is none.
    pub(crate) async fn meta(
        &self,
        path: &str,
        user: Option<&str>,
    ) -> Result<Option<Meta>, ApiError> {
        let found: Option<Bare> = self.find(Call::get(path).metadata().user(user)).await?;
        Ok(found.map(|found| found.metadata))
    }

    /// Sends a request, again when the API server asks for that, and reads the whole answer.
    pub(crate) async fn bytes(&self, call: Call<'_>) -> Result<Bytes, ApiError> {
        let mut tries = 0;
        loop {
            let error = match self.once(&call).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            tries += 1;
            match error.retry_after() {
                Some(pause) if tries < TRIES && pause <= MAX_RETRY_AFTER => sleep(pause).await,
                _ => return Err(error),
            }
        }
    }

    async fn once(&self, call: &Call<'_>) -> Result<Bytes, ApiError> {
        let time = self.times.answer;
        let head = self.head(call);
        let answer = async move { read(head.await?.into_body()).await };
        match timeout(time, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silent(call, time)),
        }
    }

    /// Sends a request and gives the answer as soon as it begins.
    pub(crate) async fn stream(&self, call: Call<'_>) -> Result<Body, ApiError> {
        let time = self.times.answer;
        match timeout(time, self.head(&call)).await {
            Ok(head) => head.map(Response::into_body),
            Err(_) => Err(self.silent(&call, time)),
        }
    }

    fn silent(&self, call: &Call<'_>, time: Duration) -> ApiError {
        ApiError::Silent(format!(
            "{} did not answer within {} s",
            call.whom(self.server()),
            time.as_secs()
        ))
    }

    /// Sends a request; a refusal is read.
    fn head(&self, call: &Call<'_>) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        let sent = call
            .request()
            .map(|request| (self.transport.send(request), call.whom(self.server())));
        async move {
            let (sent, whom) = sent?;
            let response = match sent.await {
                Ok(response) => response,
                Err(error) => {
                    let causes = causes(error.as_ref());
                    return Err(ApiError::Silent(format!(
                        "{whom} cannot be reached: {causes}"
                    )));
                }
            };
            if response.status().is_success() {
                return Ok(response);
            }
            let (head, rest) = response.into_parts();
            let text = read(rest).await.unwrap_or_default();
            Err(refusal(head.status.as_u16(), &head.headers, &text))
        }
        .boxed()
    }
}

/// A whole answer.
async fn read(mut body: Body) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => whole.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(error) => {
                return Err(ApiError::Silent(format!(
                    "the answer of the API server broke off: {}",
                    causes(error.as_ref())
                )));
            }
        }
        if whole.len() > MAX_ANSWER {
            return Err(ApiError::Strange(format!(
                "it has more than {MAX_ANSWER} bytes"
            )));
        }
    }
    Ok(whole.freeze())
}

/// What an answer that is no success says.
fn refusal(code: u16, headers: &HeaderMap, text: &[u8]) -> ApiError {
    let mut status: Status = serde_json::from_slice(text).unwrap_or_else(|_| Status {
        // Something between us and the API server, or a kubelet behind it.
        message: String::from_utf8_lossy(text)
            .trim()
            .chars()
            .take(500)
            .collect(),
        ..Status::default()
    });
    status.code = code;
    let after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if let Some(seconds) = after {
        let details = status.details.get_or_insert_with(Details::default);
        details.retry_after_seconds = seconds;
    }
    ApiError::Status(Box::new(status))
}

/// An error with its causes, each said once.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
