//! Reading a kubeconfig: one context of it, as the address of an API server and what proves who we are.

use std::fs;
use std::path::{Path, PathBuf};

use baetyl_model::base64;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::access::{Access, Token};
use crate::config::OpenError;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    value: T,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
}

/// Reads one context of a kubeconfig.
pub(super) fn read(path: &Path, context: Option<&str>) -> Result<Access, OpenError> {
    let text = fs::read_to_string(path).map_err(|source| OpenError::Read {
        path: path.to_owned(),
        source,
    })?;
    let file: File = serde_norway::from_str(&text).map_err(|source| OpenError::Syntax {
        path: path.to_owned(),
        source,
    })?;
    let source = Source { path };
    let name = context.unwrap_or(&file.current_context);
    if name.is_empty() {
        return Err(source.wrong("it has no current-context; name a context"));
    }
    let context = source.find(&file.contexts, "context", name)?;
    let cluster = source.find(&file.clusters, "cluster", &context.cluster)?;
    let none = User::default();
    let user = if context.user.is_empty() {
        &none
    } else {
        source.find(&file.users, "user", &context.user)?
    };
    source.check(cluster, user)?;
    let authority = source.pem(
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
        "certificate-authority-data",
    )?;
    let authority = authority.ok_or_else(|| {
        source.wrong("the cluster names no authority; give certificate-authority-data")
    })?;
    let certificate = source.pem(
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
        "client-certificate-data",
    )?;
    let key = source.pem(
        user.client_key_data.as_deref(),
        user.client_key.as_deref(),
        "client-key-data",
    )?;
    let token = match (&user.token, &user.token_file) {
        (_, Some(file)) => Token::File(source.beside(file)),
        (Some(token), None) => Token::Fixed(token.clone()),
        (None, None) => Token::None,
    };
    Ok(Access {
        server: cluster.server.trim_end_matches('/').to_owned(),
        server_name: cluster.tls_server_name.clone(),
        authority,
        authority_file: None,
        certificate,
        key,
        token,
    })
}

/// The file, for messages and for paths that are relative to it.
struct Source<'a> {
    path: &'a Path,
}

impl Source<'_> {
    fn wrong(&self, reason: impl Into<String>) -> OpenError {
        OpenError::Kubeconfig {
            path: self.path.to_owned(),
            reason: reason.into(),
        }
    }

    fn find<'t, T>(&self, all: &'t [Named<T>], what: &str, name: &str) -> Result<&'t T, OpenError> {
        all.iter()
            .find(|entry| entry.name == name)
            .map(|entry| &entry.value)
            .ok_or_else(|| {
                let names: Vec<&str> = all.iter().map(|entry| entry.name.as_str()).collect();
                self.wrong(format!(
                    "it has no {what} \"{name}\"; there are: {}",
                    names.join(", ")
                ))
            })
    }

    /// Names what this program does not do, rather than doing something else.
    fn check(&self, cluster: &Cluster, user: &User) -> Result<(), OpenError> {
        if !cluster.server.starts_with("https://") {
            return Err(self.wrong(format!(
                "server \"{}\" is no https URL; name one",
                cluster.server
            )));
        }
        if cluster.insecure_skip_tls_verify {
            return Err(self.wrong(
                "insecure-skip-tls-verify is not done here; give certificate-authority-data",
            ));
        }
        if cluster.proxy_url.is_some() {
            return Err(self.wrong("proxy-url is not supported; name a server that can be reached"));
        }
        if user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some() {
            return Err(self.wrong(
                "the user is neither a client certificate nor a token; make a kubeconfig of a ServiceAccount's token",
            ));
        }
        Ok(())
    }

    fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// PEM text that is given as base64 or as the path of a file.
    fn pem(
        &self,
        data: Option<&str>,
        file: Option<&Path>,
        what: &str,
    ) -> Result<Option<Vec<u8>>, OpenError> {
        if let Some(data) = data {
            return base64::decode(data.trim())
                .map(Some)
                .map_err(|error| self.wrong(format!("{what}: {error}")));
        }
        let Some(file) = file else {
            return Ok(None);
        };
        let path = self.beside(file);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(source) => Err(OpenError::Read { path, source }),
        }
    }
}
