//! What engine told: which functions there are, who may call them, and whom to trust.
//!
//! The last table stays while engine is away: functions go on. Without any table nothing is known and nobody is
//! trusted.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use baetyl_proto::engine::WatchEndpointsResponse;
use baetyl_proto::token::{self, Claims, TokenError};

use crate::error::CallError;

/// Verified tokens that are remembered. An application calls with one token, so this is plenty; when it is full all
/// are forgotten and verified again.
const MAX_TOKENS: usize = 1024;

/// One state of engine's table.
#[derive(Debug)]
pub(crate) struct Directory {
    apps: HashMap<String, Entry>,
    tokens: Arc<Tokens>,
}

/// A function application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// In the order of the application; the first is the default.
    pub(crate) functions: Vec<String>,
    pub(crate) access: Access,
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever has an application token.
    Token,
    /// Everybody who reaches the proxy.
    Anonymous,
    /// A word of a later release: nobody.
    Unknown(String),
}

impl Access {
    fn parse(word: &str) -> Self {
        match word {
            "" | "token" => Self::Token,
            "anonymous" => Self::Anonymous,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// The word of the contract.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Token => "token",
            Self::Anonymous => "anonymous",
            Self::Unknown(word) => word,
        }
    }
}

/// Who calls, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// A service of the node, or its administrator, on a core socket.
    Core,
    /// An application that showed its token.
    App(Arc<Claims>),
    /// Nobody in particular.
    Anonymous,
}

impl Directory {
    /// Reads engine's table. Remembered tokens stay valid as long as the key does.
    pub(crate) fn new(table: WatchEndpointsResponse, before: Option<&Self>) -> Self {
        let mut apps: HashMap<String, Entry> = HashMap::new();
        for endpoint in table
            .endpoints
            .into_iter()
            .filter(|endpoint| !endpoint.functions.is_empty())
        {
            let functions: Vec<String> = endpoint
                .functions
                .into_iter()
                .map(|function| function.name)
                .collect();
            let access = Access::parse(&endpoint.access);
            let entry = apps.entry(endpoint.app).or_insert_with(|| Entry {
                functions,
                access: access.clone(),
            });
            // While two versions of an application run, the stricter word counts.
            if entry.access == Access::Anonymous {
                entry.access = access;
            }
        }
        let tokens = match before {
            Some(before) if before.tokens.key == table.app_key => Arc::clone(&before.tokens),
            _ => Arc::new(Tokens {
                key: table.app_key.to_vec(),
                verified: RwLock::default(),
            }),
        };
        Self { apps, tokens }
    }

    /// A function application by its name.
    pub(crate) fn app(&self, name: &str) -> Option<&Entry> {
        self.apps.get(name)
    }

    /// All function applications.
    pub(crate) fn apps(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.apps.iter()
    }

    /// Who an `Authorization` header speaks for; without one, nobody.
    pub(crate) fn caller(&self, authorization: Option<&[u8]>) -> Result<Caller, CallError> {
        let Some(header) = authorization else {
            return Ok(Caller::Anonymous);
        };
        let token = std::str::from_utf8(header)
            .ok()
            .and_then(bearer)
            .ok_or_else(|| {
                CallError::Unauthenticated(
                    "the authorization is not of the form \"Bearer <application token>\""
                        .to_owned(),
                )
            })?;
        self.tokens
            .verify(token)
            .map(Caller::App)
            .map_err(|error| CallError::Unauthenticated(error.to_string()))
    }
}

/// The scheme is case-insensitive (RFC 9110).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether `caller` may call the functions of `service`, whose access is `access`.
pub(crate) fn admit(caller: &Caller, service: &str, access: &Access) -> Result<(), CallError> {
    match (caller, access) {
        (Caller::Core, _) | (_, Access::Anonymous) | (Caller::App(_), Access::Token) => Ok(()),
        (Caller::Anonymous, Access::Token) => Err(CallError::Unauthenticated(format!(
            "service {service} wants an application token: Authorization: Bearer <content of BAETYL_TOKEN_FILE>"
        ))),
        (Caller::App(_) | Caller::Anonymous, Access::Unknown(word)) => {
            Err(CallError::UnknownAccess {
                service: service.to_owned(),
                access: word.clone(),
            })
        }
    }
}

/// Tokens of one key. Verifying one costs more than all the rest of a call, so those that were good are remembered.
#[derive(Debug)]
struct Tokens {
    key: Vec<u8>,
    verified: RwLock<HashMap<Box<str>, Arc<Claims>>>,
}

impl Tokens {
    fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let known = self
            .verified
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(token)
            .cloned();
        if let Some(claims) = known {
            return Ok(claims);
        }
        let claims = Arc::new(token::verify(token, &self.key)?);
        let mut verified = self
            .verified
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= MAX_TOKENS {
            verified.clear();
        }
        verified.insert(token.into(), Arc::clone(&claims));
        Ok(claims)
    }
}

/// The newest table; cheap to read on every call.
#[derive(Debug, Default)]
pub(crate) struct Known(RwLock<Option<Arc<Directory>>>);

impl Known {
    /// The newest table.
    ///
    /// # Errors
    /// While engine has not told any.
    pub(crate) fn get(&self) -> Result<Arc<Directory>, CallError> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(CallError::NoEngine)
    }

    /// Takes in a new table.
    pub(crate) fn set(&self, table: WatchEndpointsResponse) -> Arc<Directory> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let directory = Arc::new(Directory::new(table, known.as_deref()));
        *known = Some(Arc::clone(&directory));
        directory
    }
}

#[cfg(test)]
mod tests {
    use baetyl_kit::crypto::SigningKey;
    use baetyl_proto::engine::{Endpoint, FunctionInfo};

    use super::*;

    fn endpoint(app: &str, functions: &[&str], access: &str) -> Endpoint {
        let info = |name: &&str| FunctionInfo {
            name: (*name).to_owned(),
            handler: "index.handler".to_owned(),
        };
        Endpoint {
            app: app.to_owned(),
            functions: functions.iter().map(info).collect(),
            access: access.to_owned(),
            ..Endpoint::default()
        }
    }

    fn directory(
        endpoints: Vec<Endpoint>,
        key: &SigningKey,
        before: Option<&Directory>,
    ) -> Directory {
        let app_key = key.public_key().to_vec().into();
        let table = WatchEndpointsResponse {
            endpoints,
            app_key,
            ..WatchEndpointsResponse::default()
        };
        Directory::new(table, before)
    }

    fn token(key: &SigningKey) -> String {
        let claims = Claims {
            app: "shop".into(),
            service: "web".into(),
            instance: "i".into(),
            iat: 0,
        };
        token::issue(&claims, |bytes| key.sign(bytes))
    }

    #[test]
    fn only_applications_with_functions_are_listed_and_the_stricter_access_counts() {
        let key = SigningKey::generate().unwrap();
        let table = vec![
            endpoint("web", &[], "anonymous"),
            endpoint("greet", &["hello", "bye"], "anonymous"),
            endpoint("greet", &["hello"], "token"),
            endpoint("open", &["f"], "anonymous"),
            endpoint("new", &["f"], "mutual"),
        ];
        let directory = directory(table, &key, None);
        assert_eq!(directory.app("web"), None);
        let greet = directory.app("greet").unwrap();
        assert_eq!((greet.functions.len(), &greet.access), (2, &Access::Token));
        assert_eq!(directory.app("open").unwrap().access, Access::Anonymous);
        assert_eq!(
            directory.app("new").unwrap().access,
            Access::Unknown("mutual".to_owned())
        );
    }

    #[test]
    fn a_token_is_forgotten_with_its_key() {
        let (old, new) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let header = format!("bearer {}", token(&old));
        let first = directory(Vec::new(), &old, None);
        for _ in 0..2 {
            assert!(
                matches!(first.caller(Some(header.as_bytes())), Ok(Caller::App(claims)) if claims.app == "shop")
            );
        }
        let second = directory(vec![endpoint("a", &["f"], "")], &old, Some(&first));
        assert!(Arc::ptr_eq(&first.tokens, &second.tokens));
        let third = directory(Vec::new(), &new, Some(&second));
        assert!(matches!(
            third.caller(Some(header.as_bytes())),
            Err(CallError::Unauthenticated(_))
        ));
    }

    #[test]
    fn who_may_call_what() {
        let app = || {
            let claims = Claims {
                app: "a".into(),
                service: "s".into(),
                instance: "i".into(),
                iat: 0,
            };
            Caller::App(Arc::new(claims))
        };
        let unknown = Access::Unknown("mutual".to_owned());
        let cases = [
            (Caller::Core, &Access::Token, true),
            (Caller::Core, &unknown, true),
            (app(), &Access::Token, true),
            (app(), &Access::Anonymous, true),
            (app(), &unknown, false),
            (Caller::Anonymous, &Access::Anonymous, true),
            (Caller::Anonymous, &Access::Token, false),
            (Caller::Anonymous, &unknown, false),
        ];
        for (caller, access, allowed) in cases {
            assert_eq!(
                admit(&caller, "s", access).is_ok(),
                allowed,
                "{caller:?} {access:?}"
            );
        }
    }
}
