//! Who asks a registry: credentials that a login left, and what the registry wants.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A user and a password. Never shown.
pub(super) struct Credentials(String);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// The names of a registry in a file of logins: some tools write more than the host.
fn names(host: &str) -> [String; 4] {
    [
        host.to_owned(),
        format!("https://{host}"),
        format!("https://{host}/v1/"),
        format!("http://{host}"),
    ]
}

impl Credentials {
    /// What `docker login` or `podman login` wrote for this host, if anything.
    ///
    /// # Errors
    /// When a file of logins cannot be read or understood.
    pub(super) fn find(host: &str) -> Result<Option<Self>> {
        for path in files() {
            let Ok(text) = std::fs::read(&path) else {
                continue;
            };
            let found = Self::read(&text, host);
            if let Some(found) = found.with_context(|| format!("{} is damaged", path.display()))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn read(text: &[u8], host: &str) -> Result<Option<Self>> {
        let logins: Value = serde_json::from_slice(text)?;
        let auth = names(host).into_iter().find_map(|name| {
            let auth = logins.get("auths")?.get(name)?.get("auth")?.as_str()?;
            (!auth.is_empty()).then(|| auth.to_owned())
        });
        let Some(auth) = auth else {
            return Ok(None);
        };
        STANDARD.decode(&auth).context("a login is not in base64")?;
        Ok(Some(Self(auth)))
    }

    /// User and password as they travel, for tests.
    #[cfg(test)]
    pub(super) fn made(encoded: &str) -> Self {
        Self(encoded.to_owned())
    }

    /// As the value of a header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", self.0)
    }
}

/// Where logins may lie, the likeliest first.
fn files() -> Vec<PathBuf> {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    [
        var("REGISTRY_AUTH_FILE"),
        var("DOCKER_CONFIG").map(|dir| dir.join("config.json")),
        var("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        var("HOME").map(|dir| dir.join(".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a registry wants of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password.
    Basic,
    /// A token from `realm`, asked for with this query.
    Bearer { realm: String, query: String },
}

impl Challenge {
    /// Reads the header `WWW-Authenticate`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut realm = None;
        let mut query = Vec::new();
        for (name, value) in parameters(rest) {
            match name {
                "realm" => realm = Some(value.to_owned()),
                "service" | "scope" => query.push(format!("{name}={}", encode(value))),
                _ => {}
            }
        }
        Some(Self::Bearer {
            realm: realm?,
            query: query.join("&"),
        })
    }
}

/// `a="b",c="d,e"` in parts.
fn parameters(mut text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let Some((value, rest)) = rest.split_once('"') else {
            break;
        };
        found.push((name.trim_matches([' ', ',']), value));
        text = rest;
    }
    found
}

/// Percent-encoding of everything that means something in a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// The value of a header from a place for tokens.
///
/// # Errors
/// When it gave none.
pub(super) fn token(answer: &[u8]) -> Result<String> {
    let answer: Value =
        serde_json::from_slice(answer).context("the place for tokens gives no JSON")?;
    ["token", "access_token"]
        .iter()
        .find_map(|name| answer.get(name)?.as_str())
        .map(|token| format!("Bearer {token}"))
        .context("the place for tokens gives none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_wants_is_understood() {
        assert_eq!(
            Challenge::parse("Basic realm=\"x\""),
            Some(Challenge::Basic)
        );
        let text = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:team/a b:pull,push""#;
        let wanted = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            query: "service=registry.example&scope=repository:team/a%20b:pull,push".to_owned(),
        };
        assert_eq!(Challenge::parse(text), Some(wanted));
        assert_eq!(Challenge::parse("Bearer service=\"x\""), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
    }

    #[test]
    fn a_login_is_found_by_host_and_never_shown() {
        let text = br#"{"auths":{"https://a.example":{"auth":"dTpwdw=="},"b.example":{}}}"#;
        let found = Credentials::read(text, "a.example").unwrap().unwrap();
        assert_eq!(found.basic(), "Basic dTpwdw==");
        assert!(!format!("{found:?}").contains("dTpwdw"));
        assert!(Credentials::read(text, "b.example").unwrap().is_none());
        assert!(Credentials::read(text, "c.example").unwrap().is_none());
        assert!(Credentials::read(br#"{"auths":{"a":{"auth":"?"}}}"#, "a").is_err());
    }
}
