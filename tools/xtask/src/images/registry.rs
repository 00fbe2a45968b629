//! A client of registries (OCI distribution API 1.1): enough to push images and to pull them back.

mod auth;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::layout::{Built, Content};
use super::oci::{Descriptor, Digest, INDEX, Index, MANIFEST, Manifest};
use auth::{Challenge, Credentials};

/// Largest answer that is read: beyond every image here.
const MAX_ANSWER: usize = 256 << 20;
/// How long a registry may take for one request.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where images go: `registry.example`, `registry.example/team`, `127.0.0.1:5000`, each with `http://` or `https://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    plain: bool,
    host: String,
    path: String,
}

impl Address {
    /// Reads it. Without a scheme it is TLS, but for loopback. Plain HTTP is for addresses that are loopback or
    /// private, unless `insecure`.
    ///
    /// # Errors
    /// When it is none, or plain where that is not allowed.
    pub(crate) fn parse(text: &str, insecure: bool) -> Result<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority: http::uri::Authority = host
            .parse()
            .with_context(|| format!("{text:?} is no address of a registry"))?;
        let near = nearness(authority.host());
        let plain = match scheme {
            None => near == Near::Loopback,
            Some("http") => true,
            Some("https") => false,
            Some(other) => {
                bail!("{other}:// is no scheme of a registry; write http:// or https://")
            }
        };
        if plain && near == Near::Far && !insecure {
            bail!(
                "{host} is neither loopback nor a private address: plain HTTP would let anybody on the way change the \
                 images; use https://, or --insecure if you know better"
            );
        }
        Ok(Self {
            plain,
            host: host.to_owned(),
            path: path.trim_matches('/').to_owned(),
        })
    }

    /// What names of images begin with, slash included.
    pub(crate) fn prefix(&self) -> String {
        match self.path.is_empty() {
            true => format!("{}/", self.host),
            false => format!("{}/{}/", self.host, self.path),
        }
    }

    fn repository(&self, image: &str) -> String {
        match self.path.is_empty() {
            true => image.to_owned(),
            false => format!("{}/{image}", self.path),
        }
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        format!("{scheme}://{}/v2/{path}", self.host)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Near {
    Loopback,
    Private,
    Far,
}

fn nearness(host: &str) -> Near {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<std::net::IpAddr>() {
        _ if host == "localhost" => Near::Loopback,
        Ok(ip) if ip.is_loopback() => Near::Loopback,
        Ok(std::net::IpAddr::V4(ip)) if ip.is_private() || ip.is_link_local() => Near::Private,
        Ok(std::net::IpAddr::V6(ip)) if ip.is_unique_local() || ip.is_unicast_link_local() => {
            Near::Private
        }
        _ => Near::Far,
    }
}

/// A connection to a registry.
#[derive(Debug)]
pub(crate) struct Registry {
    address: Address,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    credentials: Option<Credentials>,
    /// What was accepted the last time, sent with the next request at once.
    authorization: Mutex<Option<String>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Registry {
    /// For this address, with the authorities of the web and those in `authorities` (a PEM file), and the credentials
    /// that `docker login` or `podman login` left.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn new(address: Address, authorities: Option<&Path>) -> Result<Self> {
        let mut roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        if let Some(path) = authorities {
            let told = || format!("cannot read authorities from {}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).with_context(told)? {
                roots
                    .add(certificate.with_context(told)?)
                    .with_context(told)?;
            }
        }
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            credentials: Credentials::find(&address.host)?,
            client: Client::builder(TokioExecutor::new()).build(connector),
            address,
            authorization: Mutex::new(None),
        })
    }

    /// Sends an image: content that is not there, then manifests, then the index under its tag.
    ///
    /// # Errors
    /// When the registry refuses something or cannot be reached.
    pub(crate) async fn push(&self, image: &Built, tag: &str) -> Result<()> {
        let repository = self.address.repository(&image.name);
        let index: Index = serde_json::from_slice(image.content.get(&image.index)?)?;
        for descriptor in &index.manifests {
            let bytes = image.content.get(descriptor)?;
            let manifest: Manifest = serde_json::from_slice(bytes)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                self.put_blob(&repository, blob, image.content.get(blob)?)
                    .await?;
            }
            self.put_manifest(&repository, descriptor.digest.as_str(), MANIFEST, bytes)
                .await?;
        }
        let bytes = image.content.get(&image.index)?;
        self.put_manifest(&repository, tag, INDEX, bytes).await
    }

    /// Fetches an image with everything it is made of; every sum is checked.
    ///
    /// # Errors
    /// When something is missing or is not what is described.
    pub(crate) async fn pull(&self, image: &str, tag: &str) -> Result<(Descriptor, Content)> {
        let repository = self.address.repository(image);
        let mut content = Content::default();
        let top = self.get_manifest(&repository, tag).await?;
        let index: Index = serde_json::from_slice(&top).context("it is no index")?;
        let top = content.put(INDEX, top.to_vec());
        for descriptor in &index.manifests {
            let bytes = self
                .get_manifest(&repository, descriptor.digest.as_str())
                .await?;
            let manifest: Manifest = serde_json::from_slice(&bytes)?;
            content.put(MANIFEST, bytes.to_vec());
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let bytes = self.get_blob(&repository, &blob.digest).await?;
                content.put(&blob.media_type, bytes.to_vec());
                content.get(blob)?;
            }
            content.get(descriptor)?;
        }
        Ok((top, content))
    }

    async fn put_blob(&self, repository: &str, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
        let digest = &blob.digest;
        let there = self.address.url(&format!("{repository}/blobs/{digest}"));
        if self.send(Method::HEAD, &there, &[], b"").await?.status == StatusCode::OK {
            return Ok(());
        }
        let start = self.address.url(&format!("{repository}/blobs/uploads/"));
        let answer = self.send(Method::POST, &start, &[], b"").await?;
        expect(&answer, StatusCode::ACCEPTED, &start)?;
        let location = answer
            .headers
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .context("the registry does not say where an upload goes")?;
        let upload = uploading(&start, location, digest)?;
        let kind = [(CONTENT_TYPE, "application/octet-stream")];
        let answer = self.send(Method::PUT, &upload, &kind, bytes).await?;
        expect(&answer, StatusCode::CREATED, &there)
    }

    async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        kind: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let url = self
            .address
            .url(&format!("{repository}/manifests/{reference}"));
        let answer = self
            .send(Method::PUT, &url, &[(CONTENT_TYPE, kind)], bytes)
            .await?;
        expect(&answer, StatusCode::CREATED, &url)
    }

    async fn get_manifest(&self, repository: &str, reference: &str) -> Result<Bytes> {
        let url = self
            .address
            .url(&format!("{repository}/manifests/{reference}"));
        let kinds = format!("{INDEX}, {MANIFEST}");
        let answer = self
            .send(Method::GET, &url, &[(ACCEPT, &kinds)], b"")
            .await?;
        expect(&answer, StatusCode::OK, &url)?;
        Ok(answer.body)
    }

    async fn get_blob(&self, repository: &str, digest: &Digest) -> Result<Bytes> {
        let url = self.address.url(&format!("{repository}/blobs/{digest}"));
        let answer = self.send(Method::GET, &url, &[], b"").await?;
        if answer.status.is_redirection() {
            bail!("{url} lies elsewhere; pulling is for registries that serve content themselves");
        }
        expect(&answer, StatusCode::OK, &url)?;
        Ok(answer.body)
    }

    /// One request; when the registry wants to know who asks, once more with what it accepts.
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let authorization = self.remembered();
        let answer = self
            .send_once(method.clone(), url, headers, body, authorization.as_deref())
            .await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let authorization = self.authorize(&answer.headers).await?;
        let answer = self
            .send_once(method, url, headers, body, Some(&authorization))
            .await?;
        *self.lock() = Some(authorization);
        Ok(answer)
    }

    async fn send_once(
        &self,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, &str)],
        body: &[u8],
        authorization: Option<&str>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some(value) = authorization {
            let mut value: http::HeaderValue = value.parse()?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body)))?;
        let whole = async {
            let response = self.client.request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(PATIENCE, whole)
            .await
            .context("no answer in five minutes")
            .flatten()
            .with_context(|| format!("cannot reach the registry {}", self.address.host))
    }

    /// What a registry accepts that asked this.
    async fn authorize(&self, headers: &HeaderMap) -> Result<String> {
        let host = &self.address.host;
        let challenge = headers
            .get(WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
            .and_then(Challenge::parse)
            .with_context(|| format!("{host} wants to know who asks and does not say how"))?;
        match challenge {
            Challenge::Basic => {
                let credentials = self.credentials.as_ref().with_context(|| {
                    format!("{host} wants a user and a password; run: docker login {host} (or podman login)")
                })?;
                Ok(credentials.basic())
            }
            Challenge::Bearer { realm, query } => {
                let token_host: Uri = realm
                    .parse()
                    .context("the registry names no place for tokens")?;
                let far = nearness(token_host.host().unwrap_or_default()) == Near::Far;
                if far && token_host.scheme_str() != Some("https") {
                    bail!("{host} wants a token from {realm}, which is not TLS");
                }
                let url = format!("{realm}?{query}");
                let basic = self.credentials.as_ref().map(Credentials::basic);
                let answer = self
                    .send_once(Method::GET, &url, &[], b"", basic.as_deref())
                    .await?;
                expect(&answer, StatusCode::OK, &realm)?;
                auth::token(&answer.body)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn remembered(&self) -> Option<String> {
        self.lock().clone()
    }
}

fn expect(answer: &Answer, status: StatusCode, what: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&answer.body);
    let text: String = text.chars().take(500).collect();
    ensure!(
        answer.status == status,
        "the registry answers {} for {what}: {text}",
        answer.status
    );
    Ok(())
}

/// Where an upload goes: the place the registry named, which may be relative, with the digest.
fn uploading(start: &str, location: &str, digest: &Digest) -> Result<String> {
    let whole = if location.starts_with('/') {
        let start: Uri = start.parse()?;
        let scheme = start.scheme_str().unwrap_or("https");
        let authority = start.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{location}")
    } else {
        location.to_owned()
    };
    let joint = if whole.contains('?') { '&' } else { '?' };
    Ok(format!("{whole}{joint}digest={digest}"))
}

#[cfg(test)]
mod tests;
