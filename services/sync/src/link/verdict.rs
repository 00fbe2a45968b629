//! Whether the cloud refused the certificate it was shown.
//!
//! In TLS 1.3 the server judges it after the handshake is over for the client: the refusal comes as an alert instead of
//! its first byte or, when our first bytes cross that alert, as the end of the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a server said to our certificate.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    heard: AtomicBool,
    refused: AtomicBool,
}

impl Verdict {
    /// True when the server ended the connection instead of saying anything. One that is not heard of is no refusal.
    pub(crate) fn is_refusal(&self) -> bool {
        self.refused.load(Relaxed)
    }

    fn hear(&self) {
        self.heard.store(true, Relaxed);
    }

    fn end(&self, ended_by_server: bool) {
        if ended_by_server && !self.heard.load(Relaxed) {
            self.refused.store(true, Relaxed);
        }
    }

    fn fail(&self, error: &io::Error) {
        self.end(
            is_tls_refusal(error)
                || matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::UnexpectedEof
                ),
        );
    }
}

/// True when TLS ended because one side does not accept the other, not because the connection broke.
pub(crate) fn is_tls_refusal(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

/// A stream that tells a [`Verdict`] what is heard.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    verdict: Arc<Verdict>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, verdict: Arc<Verdict>) -> Self {
        Self { stream, verdict }
    }

    fn noted<T>(&self, done: io::Result<T>) -> Poll<io::Result<T>> {
        if let Err(error) = &done {
            self.verdict.fail(error);
        }
        Poll::Ready(done)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        let done = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if done.is_ok() && room > 0 {
            if buf.remaining() < room {
                self.verdict.hear();
            } else {
                self.verdict.end(true);
            }
        }
        self.noted(done)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.noted(done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.noted(done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_server_that_ends_the_connection_instead_of_speaking_refuses() {
        let (ours, theirs) = tokio::io::duplex(64);
        let verdict = Arc::new(Verdict::default());
        let mut ours = Watched::new(ours, Arc::clone(&verdict));
        assert!(!verdict.is_refusal());
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(verdict.is_refusal());
    }

    #[tokio::test]
    async fn once_a_server_spoke_its_silence_and_its_end_are_no_refusal() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let verdict = Arc::new(Verdict::default());
        let mut ours = Watched::new(ours, Arc::clone(&verdict));
        theirs.write_all(b"settings").await.unwrap();
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 8);
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(!verdict.is_refusal());
    }
}
