//! Where the bytes of an object come from: the link, or a web server.

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::grpc::MAX_MESSAGE;
use baetyl_model::Digest;
use baetyl_proto::link::link_service_client::LinkServiceClient;
use baetyl_proto::link::{FetchObjectRequest, FetchObjectResponse};
use bytes::Bytes;
use http::header::{CONTENT_RANGE, ETAG, IF_RANGE, LOCATION, RANGE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

use super::error::StageError;
use crate::store::partial::Origin;

/// Object stores redirect once or twice.
const REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an object, from somewhere in it.
pub(crate) struct Source {
    body: Body,
    digest: Digest,
    patience: Duration,
    /// Where in the object the first byte belongs.
    pub(crate) from: u64,
    /// Size of the whole object, if the sender says.
    pub(crate) total: Option<u64>,
    /// What to remember about the sender while only a part is here.
    pub(crate) origin: Option<Origin>,
}

enum Body {
    /// The first message was read to learn the size.
    Link(Option<Bytes>, Box<Streaming<FetchObjectResponse>>),
    Web(Incoming),
}

impl Source {
    /// The next bytes; None at the end.
    ///
    /// # Errors
    /// When the sender breaks off or is silent.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, StageError> {
        let digest = self.digest;
        let silent = |_| StageError::silent(&digest, self.patience);
        match &mut self.body {
            Body::Link(first, stream) => {
                if let Some(first) = first.take() {
                    return Ok(Some(first));
                }
                let message = timeout(self.patience, stream.message())
                    .await
                    .map_err(silent)?;
                message
                    .map(|message| message.map(|message| message.chunk))
                    .map_err(|status| StageError::from_cloud(&digest, &status))
            }
            Body::Web(incoming) => loop {
                let frame = timeout(self.patience, incoming.frame())
                    .await
                    .map_err(silent)?;
                match frame {
                    None => return Ok(None),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                    Some(Err(error)) => {
                        return Err(StageError::unreachable(&digest, error.to_string()));
                    }
                }
            },
        }
    }
}

/// Asks the cloud for an object from `offset`.
///
/// # Errors
/// When it does not answer with one.
pub(crate) async fn from_link(
    channel: Channel,
    digest: &Digest,
    offset: u64,
    patience: Duration,
) -> Result<Source, StageError> {
    let mut client = LinkServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let request = FetchObjectRequest {
        digest: digest.to_string(),
        offset,
    };
    let refused = |status| StageError::from_cloud(digest, &status);
    let opened = async {
        let mut stream = client.fetch_object(request).await?.into_inner();
        let first = stream.message().await?;
        Ok((stream, first))
    };
    let (stream, first) = timeout(patience, opened)
        .await
        .map_err(|_| StageError::silent(digest, patience))?
        .map_err(refused)?;
    Ok(Source {
        total: first.as_ref().map(|message| message.total_size),
        body: Body::Link(first.map(|message| message.chunk), Box::new(stream)),
        digest: *digest,
        patience,
        from: offset,
        origin: None,
    })
}

/// A client for objects on web servers.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    patience: Duration,
}

impl Http {
    /// Trusts servers as `tls` says.
    pub(crate) fn new(tls: &Arc<ClientConfig>, patience: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        // Objects are rare: an idle connection is not worth its memory.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self { client, patience }
    }

    /// Asks for `url` from `offset`, but from the start when it is not what `origin` was.
    ///
    /// # Errors
    /// When it does not answer with the object.
    pub(crate) async fn open(
        &self,
        digest: &Digest,
        url: &str,
        offset: u64,
        origin: Option<&Origin>,
    ) -> Result<Source, StageError> {
        let answer = self.follow(digest, url, offset, origin).await?;
        let status = answer.status();
        let (from, total) = match status {
            StatusCode::OK => (0, answer.body().size_hint().exact()),
            StatusCode::PARTIAL_CONTENT => content_range(answer.headers()).ok_or_else(|| {
                StageError::unreachable(digest, "the server sent a part without saying which")
            })?,
            _ => return Err(refusal(digest, url, status)),
        };
        let etag = strong_etag(answer.headers());
        Ok(Source {
            origin: etag.map(|etag| Origin {
                url: url.to_owned(),
                etag,
            }),
            body: Body::Web(answer.into_body()),
            digest: *digest,
            patience: self.patience,
            from,
            total,
        })
    }

    async fn follow(
        &self,
        digest: &Digest,
        url: &str,
        offset: u64,
        origin: Option<&Origin>,
    ) -> Result<Response<Incoming>, StageError> {
        let unreachable = |reason: String| StageError::unreachable(digest, reason);
        let mut uri: Uri = url
            .parse()
            .map_err(|_| unreachable(format!("{url:?} is no URL")))?;
        for _ in 0..=REDIRECTS {
            let mut request = Request::get(uri.clone());
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
                if let Some(origin) = origin.filter(|origin| origin.url == url) {
                    request = request.header(IF_RANGE, &origin.etag);
                }
            }
            let request = request
                .body(Empty::new())
                .map_err(|error| unreachable(error.to_string()))?;
            let answer = timeout(self.patience, self.client.request(request))
                .await
                .map_err(|_| StageError::silent(digest, self.patience))?
                .map_err(|error| unreachable(baetyl_kit::error::chain(&error)))?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            uri = redirected(&uri, answer.headers())
                .ok_or_else(|| unreachable(format!("{uri} redirects to nowhere usable")))?;
        }
        Err(unreachable(format!("{url} redirects too often")))
    }
}

/// Where a redirect leads; never from https to http.
fn redirected(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let to: Uri = headers.get(LOCATION)?.to_str().ok()?.parse().ok()?;
    if to.scheme().is_none() {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(to.path_and_query()?.clone());
        return Uri::from_parts(parts).ok();
    }
    let downgrade = from.scheme_str() == Some("https") && to.scheme_str() != Some("https");
    (!downgrade).then_some(to)
}

/// `bytes 5-9/10` as (5, Some(10)).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.parse().ok()?, total.parse().ok()))
}

/// The entity tag when it stands for exactly these bytes.
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    (etag.starts_with('"') && etag.len() <= 256).then(|| etag.to_owned())
}

fn refusal(digest: &Digest, url: &str, status: StatusCode) -> StageError {
    // Without the query: it may carry a signature that opens the object.
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    let (digest, reason) = (*digest, format!("{shown} answers {status}"));
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => StageError::Gone { digest, reason },
        StatusCode::RANGE_NOT_SATISFIABLE => StageError::OutOfRange { digest, reason },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StageError::Refused { digest, reason },
        _ => StageError::Unreachable { digest, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_content_range_tells_the_start_and_the_size() {
        let range = |text| content_range(&headers(CONTENT_RANGE, text));
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("bytes */10"), None);
        assert_eq!(range("lines 5-9/10"), None);
    }

    #[test]
    fn only_a_strong_entity_tag_is_remembered() {
        assert_eq!(
            strong_etag(&headers(ETAG, "\"a\"")),
            Some("\"a\"".to_owned())
        );
        assert_eq!(strong_etag(&headers(ETAG, "W/\"a\"")), None);
        assert_eq!(strong_etag(&HeaderMap::new()), None);
    }

    #[test]
    fn a_redirect_may_be_relative_and_never_leaves_https() {
        let from: Uri = "https://a.example/x?y".parse().unwrap();
        let to =
            |location| redirected(&from, &headers(LOCATION, location)).map(|uri| uri.to_string());
        assert_eq!(to("/z"), Some("https://a.example/z".to_owned()));
        assert_eq!(
            to("https://b.example/z"),
            Some("https://b.example/z".to_owned())
        );
        assert_eq!(to("http://a.example/z"), None);
    }

    #[test]
    fn what_a_server_answers_has_the_code_of_the_contract() {
        let digest = Digest::from_sha256([0; 32]);
        for (status, code) in [
            (404, tonic::Code::NotFound),
            (403, tonic::Code::PermissionDenied),
            (503, tonic::Code::Unavailable),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = refusal(&digest, "https://a.example/x?secret=1", status);
            assert_eq!(error.code(), code);
            assert!(!error.to_string().contains("secret"));
        }
    }
}
