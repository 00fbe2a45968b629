//! Application tokens: who an instance is, signed by engine and checked by node and the function proxy.
//!
//! A token is `v1.<claims>.<signature>`: base64url (no padding) of the claims as JSON, and of an ed25519 signature over
//! the ASCII bytes `v1.<claims>`. It is valid as long as the key.

use serde::{Deserialize, Serialize};

use crate::signed::{self, Signed};

const VERSION: &str = "v1";
/// Longer texts are refused before any work is done with them. Names are short: a real token has about 250 bytes.
const MAX_TOKEN: usize = 4096;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Application.
    pub app: String,
    /// Service of the application.
    pub service: String,
    /// Instance id.
    pub instance: String,
    /// When it was made, in seconds of the Unix epoch by the node's clock; for people only.
    pub iat: i64,
}

/// A text that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form `v1.<claims>.<signature>`.
    #[error(
        "this is no application token; use the content of the file that BAETYL_TOKEN_FILE names"
    )]
    Malformed,
    /// Not signed by the key.
    #[error(
        "the application token is not signed by this node's engine; read BAETYL_TOKEN_FILE again"
    )]
    Forged,
}

/// The claims of a token that was signed with the key.
///
/// # Errors
/// When it is no token, or not signed by this key.
pub fn verify(token: &str, public_key: &[u8]) -> Result<Claims, TokenError> {
    let signed = split(token)?;
    if !signed.is_by(public_key) {
        return Err(TokenError::Forged);
    }
    claims(&signed)
}

/// What a token says about its owner, believed without a check: for the owner itself.
///
/// # Errors
/// When it is no token.
pub fn read(token: &str) -> Result<Claims, TokenError> {
    claims(&split(token)?)
}

/// A token with these claims; `sign` makes the ed25519 signature of the bytes it is given.
pub fn issue(claims: &Claims, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
    // A struct of texts and a number always serialises.
    let json = serde_json::to_vec(claims).unwrap_or_default();
    signed::sign(VERSION, &json, sign)
}

fn split(token: &str) -> Result<Signed<'_>, TokenError> {
    Signed::parse(VERSION, MAX_TOKEN, token).ok_or(TokenError::Malformed)
}

fn claims(signed: &Signed<'_>) -> Result<Claims, TokenError> {
    serde_json::from_slice(&signed.claims).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn token(key: &Ed25519KeyPair) -> String {
        let claims = Claims {
            app: "shop".to_owned(),
            service: "web".to_owned(),
            instance: "baetyl-edge.shop.3.web.1".to_owned(),
            iat: 7,
        };
        issue(&claims, |bytes| {
            key.sign(bytes).as_ref().try_into().unwrap()
        })
    }

    #[test]
    fn a_token_of_the_key_says_who_its_owner_is_also_with_the_newline_of_its_file() {
        let key = key(1);
        let token = token(&key);
        let claims = verify(&format!("{token}\n"), key.public_key().as_ref()).unwrap();
        assert_eq!((claims.app.as_str(), claims.iat), ("shop", 7));
        assert_eq!(read(&token).unwrap(), claims);
    }

    #[test]
    fn altered_tokens_and_those_of_another_key_are_refused() {
        let (own, other) = (key(1), key(2));
        let token = token(&own);
        let public = own.public_key().as_ref();
        let (_, signature) = token.rsplit_once('.').unwrap();
        let claims =
            URL_SAFE_NO_PAD.encode(br#"{"app":"till","service":"web","instance":"i","iat":0}"#);
        let altered = format!("v1.{claims}.{signature}");
        assert_eq!(verify(&altered, public), Err(TokenError::Forged));
        assert_eq!(
            verify(&token, other.public_key().as_ref()),
            Err(TokenError::Forged)
        );
        assert_eq!(verify(&token, b"short key"), Err(TokenError::Forged));
        for text in ["", "v1", "a.b", "v1..", &"x.".repeat(4000)] {
            assert!(verify(text, public).is_err(), "{text}");
        }
    }
}
