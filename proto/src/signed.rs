//! The text form that tokens and tickets share: `<version>.<claims>.<signature>`, base64url without padding, the
//! ed25519 signature over the ASCII bytes before the last dot. The version keeps one kind from passing for the other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};

/// A text of that form, not checked yet.
pub(crate) struct Signed<'a> {
    /// The bytes of the claims.
    pub(crate) claims: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Signed<'a> {
    /// Takes it apart; None when it is not of the form, of another version or longer than `max`. White space around it
    /// does not count: it comes from files.
    pub(crate) fn parse(version: &str, max: usize, text: &'a str) -> Option<Self> {
        if text.len() > max {
            return None;
        }
        let (signed, signature) = text.trim().rsplit_once('.')?;
        let claims = signed.strip_prefix(version)?.strip_prefix('.')?;
        Some(Self {
            claims: URL_SAFE_NO_PAD.decode(claims).ok()?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Whether the owner of this public key signed it.
    pub(crate) fn is_by(&self, public_key: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(self.signed.as_bytes(), &self.signature)
            .is_ok()
    }
}

/// A signed text with these claims.
pub(crate) fn sign(version: &str, claims: &[u8], sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
    let signed = format!("{version}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}
