//! Values of the configuration that are more than a text or a number. Each says what is wanted, so that a mistake is
//! reported with its key, together with all others.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use serde::{Deserialize, Deserializer, Serialize, de};

/// A number between `MIN` and `MAX`, both included.
pub(crate) fn within<'de, D, const MIN: u32, const MAX: u32>(
    deserializer: D,
) -> Result<u32, D::Error>
where
    D: Deserializer<'de>,
{
    let number = u32::deserialize(deserializer)?;
    if (MIN..=MAX).contains(&number) {
        Ok(number)
    } else {
        Err(de::Error::custom(format!(
            "{number} is not between {MIN} and {MAX}"
        )))
    }
}

/// A text that is no value of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Neither a host name nor an address.
    #[error(
        "{0:?} is no host name or address; write it without scheme and port, e.g. \"cloud.example.com\""
    )]
    Host(String),
    /// Not the address of a server.
    #[error("{0:?} is no address nodes can use; write \"https://host\" or \"https://host:port\"")]
    Url(String),
    /// Not a trust domain.
    #[error(
        "{0:?} is no trust domain; 1 to 255 characters of a-z, 0-9, '.', '-' and '_' are wanted"
    )]
    TrustDomain(String),
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $error:ident, $is_valid:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = CheckError;

            fn try_from(text: String) -> Result<Self, CheckError> {
                if $is_valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(CheckError::$error(text))
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = CheckError;

            fn from_str(text: &str) -> Result<Self, CheckError> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked_text! {
    /// A host name or an IP address.
    Host, Host, is_host
}

checked_text! {
    /// `https://host` or `https://host:port`.
    ServerUrl, Url, is_server_url
}

checked_text! {
    /// The authority part of a SPIFFE id.
    TrustDomain, TrustDomain, is_trust_domain
}

impl Host {
    /// The loopback address.
    pub fn loopback() -> Self {
        Self("127.0.0.1".to_owned())
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("baetyl.local".to_owned())
    }
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.parse::<IpAddr>().is_ok() || text.len() <= 253 && text.split('.').all(is_label)
}

fn is_server_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let Some(authority) = uri.authority() else {
        return false;
    };
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    // A port that is no number is not seen by the parser of URIs.
    let end = &authority.as_str()[host.len().min(authority.as_str().len())..];
    let has_good_end = end.is_empty() || authority.port_u16().is_some_and(|port| port != 0);
    uri.scheme_str() == Some("https")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && !text.contains('#')
        && !authority.as_str().contains('@')
        && is_host(bare)
        && has_good_end
}

fn is_trust_domain(text: &str) -> bool {
    let is_legal = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    (1..=255).contains(&text.len()) && text.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_addresses_of_servers_are_told_from_other_texts() {
        for (text, good) in [
            ("cloud.example.com", true),
            ("localhost", true),
            ("10.0.0.1", true),
            ("::1", true),
            ("", false),
            ("cloud.example.com:9005", false),
            ("https://cloud", false),
            ("-x.com", false),
            ("a b", false),
        ] {
            assert_eq!(text.parse::<Host>().is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("https://cloud.example.com", true),
            ("https://cloud.example.com:9003/", true),
            ("https://[::1]:9003", true),
            ("http://cloud.example.com", false),
            ("cloud.example.com:9003", false),
            ("https://cloud.example.com/path", false),
            ("https://user@cloud.example.com", false),
            ("https://cloud.example.com:0", false),
            ("https://cloud.example.com:99999", false),
            ("https://", false),
        ] {
            assert_eq!(text.parse::<ServerUrl>().is_ok(), good, "{text}");
        }
    }
}
