//! Who an application is, for its Pods: the Secret `baetyl-id-<app>` with token, certificate and ticket.
//!
//! It is replaced in place: Pods see a new token or certificate where they saw the old one, and none is restarted for it.

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

#[cfg(test)]
mod tests {
    use super::*;

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
