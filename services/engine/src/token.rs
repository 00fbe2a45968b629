//! The key of application tokens. What a token looks like is in [`baetyl_proto::token`]; engine alone makes them.

use std::path::Path;

use baetyl_kit::crypto::{CryptoError, SigningKey};
use baetyl_kit::fsio;
use baetyl_model::Digest;
use baetyl_proto::ticket::{self, TicketError};
use baetyl_proto::token::{self, Claims, TokenError};
use jiff::Timestamp;

/// Makes and checks tokens. Owns the key.
#[derive(Debug)]
pub struct TokenIssuer {
    key: SigningKey,
}

impl TokenIssuer {
    /// Reads the key file, or makes it. A damaged file is put aside and replaced: tokens are cheap to make again, and
    /// instances read theirs from a file that engine keeps current.
    ///
    /// # Errors
    /// When the file can neither be read nor written.
    pub fn open(path: &Path) -> Result<Self, CryptoError> {
        let key = match SigningKey::load_or_create(path) {
            Err(CryptoError::BadKey { .. }) => {
                fsio::quarantine(path).map_err(|source| CryptoError::KeyFile {
                    path: path.to_owned(),
                    source,
                })?;
                SigningKey::load_or_create(path)?
            }
            other => other?,
        };
        Ok(Self { key })
    }

    /// Raw ed25519 public key others verify with.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.public_key()
    }

    /// The token of one instance.
    pub fn issue(&self, app: &str, service: &str, instance: &str, now: Timestamp) -> String {
        let claims = Claims {
            app: app.to_owned(),
            service: service.to_owned(),
            instance: instance.to_owned(),
            iat: now.as_second(),
        };
        token::issue(&claims, |bytes| self.key.sign(bytes))
    }

    /// The ticket with which the Pods of an application fetch these objects from sync.
    ///
    /// # Errors
    /// When they are more than a ticket can name.
    pub fn ticket(
        &self,
        app: &str,
        objects: Vec<Digest>,
        now: Timestamp,
    ) -> Result<String, TicketError> {
        let claims = ticket::Claims {
            app: app.to_owned(),
            digests: objects,
            iat: now.as_second(),
        };
        ticket::issue(&claims, |bytes| self.key.sign(bytes))
    }

    /// The claims of a token made with this key.
    ///
    /// # Errors
    /// When it is no token, or another key's.
    pub fn verify(&self, text: &str) -> Result<Claims, TokenError> {
        token::verify(text, &self.public_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(dir: &Path) -> TokenIssuer {
        TokenIssuer::open(&dir.join("app.key")).unwrap()
    }

    #[test]
    fn a_token_says_who_the_instance_is_and_survives_a_restart_of_engine() {
        let dir = tempfile::tempdir().unwrap();
        let token = issuer(dir.path()).issue(
            "shop",
            "web",
            "baetyl-edge.shop.3.web.1",
            Timestamp::UNIX_EPOCH,
        );
        let claims = issuer(dir.path()).verify(&token).unwrap();
        assert_eq!(
            (claims.app.as_str(), claims.service.as_str()),
            ("shop", "web")
        );
        assert_eq!(claims.instance, "baetyl-edge.shop.3.web.1");
    }

    #[test]
    fn a_ticket_is_by_the_key_of_tokens_and_names_the_objects() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = issuer(dir.path());
        let object = Digest::from_sha256([3; 32]);
        let ticket = issuer.ticket("shop", vec![object], Timestamp::UNIX_EPOCH);
        let claims = ticket::verify(&ticket.unwrap(), &issuer.public_key()).unwrap();
        assert_eq!(
            (claims.app.as_str(), claims.digests),
            ("shop", vec![object])
        );
    }

    #[test]
    fn a_damaged_key_file_is_put_aside_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.key"), b"rubbish").unwrap();
        let issuer = issuer(dir.path());
        assert!(
            issuer
                .verify(&issuer.issue("a", "b", "c", Timestamp::UNIX_EPOCH))
                .is_ok()
        );
        let kept = std::fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .contains("corrupt")
            })
            .count();
        assert_eq!(kept, 1);
    }
}
