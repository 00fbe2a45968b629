//! Ids of invocations whose caller gave none.

/// A random UUID.
pub(crate) fn invocation() -> String {
    uuid::Uuid::new_v4().to_string()
}
