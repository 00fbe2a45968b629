//! Tickets: which objects the init container of a Pod may fetch, signed by engine and checked by sync.
//!
//! A ticket is `t1.<claims>.<signature>`, of the form and by the key of application tokens (see [`crate::token`]), and
//! takes the place of one: `authorization: Bearer <ticket>`. It is valid as long as the key.

use baetyl_model::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::signed::{self, Signed};

const VERSION: &str = "t1";

/// Digests one ticket can name. With as many it has less than 12 KiB, which a header (16 KiB in all) can carry.
pub const MAX_DIGESTS: usize = 200;

/// Longer texts are refused before any work is done with them.
const MAX_TICKET: usize = 12 * 1024;

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Application.
    pub app: String,
    /// Objects its Pods may fetch.
    pub digests: Vec<Digest>,
    /// When it was made, in seconds of the Unix epoch by the node's clock; for people only.
    pub iat: i64,
}

impl Claims {
    /// Whether this object may be fetched.
    pub fn names(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }
}

/// The claims as they are signed.
#[derive(Serialize, Deserialize)]
struct Written {
    app: String,
    /// base64url of the raw digests, one after the other: hex would need half as much again.
    digests: String,
    iat: i64,
}

/// A text that proves nothing, or a ticket that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not of the form `t1.<claims>.<signature>`.
    #[error(
        "this is no ticket for objects; give the file `ticket` of the Secret of the application"
    )]
    Malformed,
    /// Not signed by the key.
    #[error("the ticket is not signed by this node's engine; read its file again")]
    Forged,
    /// More than a ticket can name.
    #[error(
        "the application has more than {MAX_DIGESTS} objects, which no ticket can name; put them into archives"
    )]
    TooMany,
}

/// The claims of a ticket that was signed with the key.
///
/// # Errors
/// When it is no ticket, or not signed by this key.
pub fn verify(ticket: &str, public_key: &[u8]) -> Result<Claims, TicketError> {
    let signed = Signed::parse(VERSION, MAX_TICKET, ticket).ok_or(TicketError::Malformed)?;
    if !signed.is_by(public_key) {
        return Err(TicketError::Forged);
    }
    let written: Written =
        serde_json::from_slice(&signed.claims).map_err(|_| TicketError::Malformed)?;
    let raw = URL_SAFE_NO_PAD
        .decode(&written.digests)
        .map_err(|_| TicketError::Malformed)?;
    let (digests, rest) = raw.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(TicketError::Malformed);
    }
    Ok(Claims {
        app: written.app,
        digests: digests.iter().copied().map(Digest::from_sha256).collect(),
        iat: written.iat,
    })
}

/// A ticket with these claims; `sign` makes the ed25519 signature of the bytes it is given. Digests are sorted and named
/// once, so that the same objects at the same time are the same ticket.
///
/// # Errors
/// [`TicketError::TooMany`].
pub fn issue(claims: &Claims, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<String, TicketError> {
    let mut digests = claims.digests.clone();
    digests.sort_unstable();
    digests.dedup();
    if digests.len() > MAX_DIGESTS {
        return Err(TicketError::TooMany);
    }
    let raw: Vec<u8> = digests.iter().flat_map(Digest::as_bytes).copied().collect();
    let written = Written {
        app: claims.app.clone(),
        digests: URL_SAFE_NO_PAD.encode(raw),
        iat: claims.iat,
    };
    // A struct of texts and a number always serialises.
    let json = serde_json::to_vec(&written).unwrap_or_default();
    Ok(signed::sign(VERSION, &json, sign))
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::token;

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn signer(key: &Ed25519KeyPair) -> impl FnOnce(&[u8]) -> [u8; 64] {
        |bytes| key.sign(bytes).as_ref().try_into().unwrap()
    }

    fn claims(count: usize) -> Claims {
        let mut digests: Vec<Digest> = (0..count)
            .map(|n| Digest::from_sha256(std::array::from_fn(|i| (n >> (i % 8)) as u8)))
            .collect();
        digests.sort_unstable();
        Claims {
            app: "a".repeat(55),
            digests,
            iat: i64::MIN,
        }
    }

    #[test]
    fn a_ticket_of_the_key_names_its_objects_and_nothing_else() {
        let key = key(1);
        let claims = claims(3);
        let ticket = issue(&claims, signer(&key)).unwrap();
        let read = verify(&format!("{ticket}\n"), key.public_key().as_ref()).unwrap();
        assert_eq!(read, claims);
        assert!(claims.digests.iter().all(|digest| read.names(digest)));
        assert!(!read.names(&Digest::from_sha256([0xee; 32])));
    }

    #[test]
    fn the_longest_ticket_can_be_read_and_a_longer_one_is_not_made() {
        let key = key(1);
        let longest = issue(&claims(MAX_DIGESTS), signer(&key)).unwrap();
        assert_eq!(
            verify(&longest, key.public_key().as_ref()).unwrap(),
            claims(MAX_DIGESTS)
        );
        assert_eq!(
            issue(&claims(MAX_DIGESTS + 1), signer(&key)),
            Err(TicketError::TooMany)
        );
        let mut twice = claims(MAX_DIGESTS);
        twice.digests.extend(claims(MAX_DIGESTS).digests);
        assert_eq!(issue(&twice, signer(&key)).unwrap(), longest);
    }

    #[test]
    fn tokens_altered_tickets_and_those_of_another_key_are_refused() {
        let (own, other) = (key(1), key(2));
        let public = own.public_key().as_ref();
        let ticket = issue(&claims(1), signer(&own)).unwrap();
        assert_eq!(
            verify(&ticket, other.public_key().as_ref()),
            Err(TicketError::Forged)
        );
        let more = issue(&claims(2), signer(&other)).unwrap();
        let (signed, _) = more.rsplit_once('.').unwrap();
        let (_, signature) = ticket.rsplit_once('.').unwrap();
        assert_eq!(
            verify(&format!("{signed}.{signature}"), public),
            Err(TicketError::Forged)
        );
        let token = token::Claims {
            app: "shop".to_owned(),
            service: "web".to_owned(),
            instance: "i".to_owned(),
            iat: 0,
        };
        let token = token::issue(&token, signer(&own));
        assert_eq!(verify(&token, public), Err(TicketError::Malformed));
        assert!(token::verify(&ticket, public).is_err());
        for text in ["", "t1", "t1.b", "t1..", &"x.".repeat(8000)] {
            assert!(verify(text, public).is_err(), "{text}");
        }
    }
}
