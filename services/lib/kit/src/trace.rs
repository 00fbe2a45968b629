//! W3C trace context (`traceparent`) through gRPC metadata.
//!
//! The server shell takes the context from each request (or makes a new one), puts `trace_id` into the
//! request's span and makes it the *current* one while the request is handled; the client shell sends the
//! current one along. Nothing else has to be done by a service, except [`TraceContext::scope`] around work
//! that begins without a request and shall be traceable.

use std::fmt;
use std::future::Future;

use http::HeaderMap;

/// The header and metadata key.
pub const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Which trace something belongs to, and which span caused it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

impl TraceContext {
    /// Begins a new trace.
    pub fn root() -> Self {
        Self {
            // Without randomness traces mix, which is no reason to fail a request.
            trace_id: crate::crypto::random_bytes().unwrap_or([1; 16]),
            span_id: crate::crypto::random_bytes().unwrap_or([1; 8]),
            sampled: true,
        }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: crate::crypto::random_bytes().unwrap_or([1; 8]),
            ..*self
        }
    }

    /// Reads the text form; None for anything the standard calls invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        // Version 00 has exactly four parts; later versions may add some.
        if version.len() != 2
            || version == "ff"
            || (version == "00" && parts.next().is_some())
            || !lower
        {
            return None;
        }
        crate::crypto::unhex(version)?;
        let trace_id: [u8; 16] = crate::crypto::unhex(trace)?.try_into().ok()?;
        let span_id: [u8; 8] = crate::crypto::unhex(span)?.try_into().ok()?;
        let flags: [u8; 1] = crate::crypto::unhex(flags)?.try_into().ok()?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            sampled: flags[0] & 1 == 1,
        })
    }

    /// From request headers, if they hold a valid one.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// The one the running task handles now.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// Runs `future` with this as the current one.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// The trace id as 32 hex digits, as it is logged.
    pub fn trace_id(&self) -> String {
        crate::crypto::hex(&self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (self.trace_id(), crate::crypto::hex(&self.span_id));
        write!(f, "00-{trace}-{span}-0{}", u8::from(self.sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_standard_survives() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.to_string(), EXAMPLE);
    }

    #[test]
    fn invalid_forms_are_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let text = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-new";
        let context = TraceContext::parse(text).unwrap();
        assert!(context.to_string().ends_with("-00"));
    }

    #[tokio::test]
    async fn the_current_context_is_that_of_the_scope() {
        assert_eq!(TraceContext::current(), None);
        let context = TraceContext::root();
        let seen = context.scope(async { TraceContext::current() }).await;
        assert_eq!(seen, Some(context));
        assert_eq!(context.child().trace_id(), context.trace_id());
        assert_ne!(context.child(), context);
    }
}
