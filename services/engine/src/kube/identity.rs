//! Who an application is, for its Pods: the Secret `baetyl-id-<app>` with token, certificate and ticket.
//!
//! It is replaced in place: Pods see a new token or certificate where they saw the old one, and none is restarted for it.

use std::collections::BTreeSet;

use baetyl_model::Digest;
use baetyl_proto::ticket::MAX_DIGESTS;

use crate::certificates::Certificates;

use super::secrets::Data;

/// What an application shows to the core services.
#[derive(Clone)]
pub(crate) struct AppIdentity {
    /// Proves who it is on the listeners for applications.
    pub(crate) token: String,
    /// Names the objects its Pods may fetch.
    pub(crate) ticket: String,
    /// A certificate it gets when it has none of this authority.
    pub(crate) certificates: Certificates,
}

impl std::fmt::Debug for AppIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppIdentity").finish_non_exhaustive()
    }
}

impl AppIdentity {
    /// What the Secret shall hold; None: what it holds. A certificate of this authority stays.
    pub(crate) fn next(&self, held: Option<&Data>) -> Option<Data> {
        let mut data = Data::from([
            ("token".to_owned(), self.token.clone().into_bytes()),
            ("ticket".to_owned(), self.ticket.clone().into_bytes()),
            ("ca.pem".to_owned(), self.certificates.ca.to_vec()),
            ("crt.pem".to_owned(), self.certificates.certificate.to_vec()),
            ("key.pem".to_owned(), self.certificates.key.to_vec()),
        ]);
        if let Some(held) = held
            && held.get("ca.pem") == data.get("ca.pem")
            && let (Some(certificate), Some(key)) = (held.get("crt.pem"), held.get("key.pem"))
        {
            data.insert("crt.pem".to_owned(), certificate.clone());
            data.insert("key.pem".to_owned(), key.clone());
        }
        (held != Some(&data)).then_some(data)
    }
}

/// The objects a ticket names: those of the version that is started, and, as far as there is room, those of all others
/// that may run. A Pod of the version before that is made anew meanwhile, on another machine perhaps, needs its own.
pub(crate) fn objects_of_ticket(own: BTreeSet<Digest>, reachable: &[Digest]) -> Vec<Digest> {
    let others: BTreeSet<Digest> = reachable
        .iter()
        .copied()
        .filter(|digest| !own.contains(digest))
        .collect();
    let room = MAX_DIGESTS.saturating_sub(own.len());
    if others.len() > room {
        tracing::warn!(
            objects = others.len() - room,
            "a ticket names no more: Pods of the version before cannot fetch these again"
        );
    }
    own.into_iter()
        .chain(others.into_iter().take(room))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_names_its_own_objects_first_and_those_of_other_versions_while_there_is_room() {
        let digest = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            Digest::from_sha256(bytes)
        };
        let own: BTreeSet<Digest> = (0..3).map(digest).collect();
        let reachable: Vec<Digest> = (1..5).map(digest).collect();
        let named = objects_of_ticket(own.clone(), &reachable);
        assert_eq!(named, (0..5).map(digest).collect::<Vec<_>>());
        let many: Vec<Digest> = (0..500).rev().map(digest).collect();
        let named = objects_of_ticket(own.clone(), &many);
        assert_eq!(named.len(), MAX_DIGESTS);
        assert!(own.iter().all(|digest| named.contains(digest)));
        // What is too much by itself is refused by whoever makes the ticket.
        let all: BTreeSet<Digest> = many.iter().copied().collect();
        assert_eq!(objects_of_ticket(all, &[]).len(), 500);
    }

    fn identity(key: &'static str) -> AppIdentity {
        AppIdentity {
            token: "token".to_owned(),
            ticket: "ticket".to_owned(),
            certificates: Certificates {
                ca: "ca".into(),
                certificate: "certificate".into(),
                key: key.into(),
            },
        }
    }

    #[test]
    fn a_certificate_stays_while_its_authority_does_and_the_rest_follows() {
        let first = identity("one").next(None).unwrap();
        // Another life of engine makes other keys.
        assert_eq!(identity("two").next(Some(&first)), None);
        let mut other = identity("two");
        other.ticket = "for more".to_owned();
        let second = other.next(Some(&first)).unwrap();
        assert_eq!(second["key.pem"], b"one");
        assert_eq!(second["ticket"], b"for more");
        other.certificates.ca = "another".into();
        assert_eq!(other.next(Some(&second)).unwrap()["key.pem"], b"two");
        assert!(!format!("{other:?}").contains("two"));
    }
}
