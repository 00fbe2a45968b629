//! Where a service listens, and who is at the other end of a connection.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::fsio;

/// Longest path the kernel takes for a Unix socket (`sun_path` has 108 bytes with the final zero), less one
/// for the name it is bound under first.
pub const MAX_SOCKET_PATH: usize = 106;

/// A place to listen: `"unix:/run/x.sock"` or `"127.0.0.1:50011"`. Port 0 takes any free port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A TCP port on this address.
    Tcp(SocketAddr),
}

/// The text names no place to listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place to listen; write \"ip:port\" or \"unix:/absolute/path\"")]
pub struct ListenError(String);

impl Listen {
    /// Any free port on the loopback address.
    pub const fn loopback() -> Self {
        Self::Tcp(SocketAddr::new(
            std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            0,
        ))
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text.strip_prefix("unix:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Self::Unix(path.into())),
            Some(_) => Err(ListenError(text.to_owned())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| ListenError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = ListenError;

    fn try_from(text: String) -> Result<Self, ListenError> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => addr.fmt(f),
        }
    }
}

/// Who may connect to a Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnixAccess {
    /// Our own user and root: socket 0600 in a directory 0700, and peer credentials are checked.
    #[default]
    Private,
    /// Everybody on this machine: socket 0666 in a directory 0755. Calls need their own proof.
    Anyone,
}

impl UnixAccess {
    fn permits(self, peer: u32, own: u32) -> bool {
        self == Self::Anyone || peer == own || peer == 0
    }
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path of a Unix socket is too long for the kernel.
    #[error("socket path {0} is longer than {MAX_SOCKET_PATH} bytes; use a shorter --data-dir")]
    PathTooLong(PathBuf),
    /// Another process listens there.
    #[error("another process listens on {0}; stop it or choose another place")]
    InUse(Listen),
    /// The operating system refused.
    #[error("cannot listen on {listen}")]
    Refused {
        /// Where.
        listen: Listen,
        /// Why.
        source: io::Error,
    },
}

/// A bound socket. Dropping it closes it and removes the file of a Unix socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    access: UnixAccess,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Listener {
    /// Binds. A Unix socket nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When the place is taken or the operating system refuses.
    pub async fn bind(listen: &Listen, access: UnixAccess) -> Result<Self, BindError> {
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(listen.clone()),
            _ => BindError::Refused {
                listen: listen.clone(),
                source,
            },
        };
        let socket = match listen {
            Listen::Tcp(addr) => Socket::Tcp(TcpListener::bind(addr).await.map_err(refused)?),
            Listen::Unix(path) if path.as_os_str().len() > MAX_SOCKET_PATH => {
                return Err(BindError::PathTooLong(path.clone()));
            }
            Listen::Unix(path) => bind_unix(path, access).map_err(refused)?,
        };
        Ok(Self { socket, access })
    }

    /// Takes a listener that is already bound, for tests and for sockets that were handed over.
    pub fn from_tcp(listener: TcpListener) -> Self {
        Self {
            socket: Socket::Tcp(listener),
            access: UnixAccess::Anyone,
        }
    }

    /// Where it listens, with the real port.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> io::Result<Listen> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Socket::Unix(_, file) => Ok(Listen::Unix(file.path.clone())),
        }
    }

    /// The next connection that passes the transport check. Cancel-safe.
    ///
    /// # Errors
    /// What the operating system reports; the listener stays usable.
    pub async fn accept(&self) -> io::Result<(Io, PeerAddr)> {
        loop {
            match &self.socket {
                Socket::Tcp(listener) => {
                    let (stream, addr) = listener.accept().await?;
                    // Small messages shall not wait for each other.
                    let _ = stream.set_nodelay(true);
                    return Ok((Io::Tcp(stream), PeerAddr::Tcp(addr)));
                }
                Socket::Unix(listener, _) => {
                    let (stream, _) = listener.accept().await?;
                    let Ok(peer) = stream.peer_cred() else {
                        continue;
                    };
                    let own = rustix::process::geteuid().as_raw();
                    if !self.access.permits(peer.uid(), own) {
                        tracing::warn!(
                            uid = peer.uid(),
                            pid = peer.pid(),
                            "refused a connection of another user to a private socket"
                        );
                        continue;
                    }
                    let addr = PeerAddr::Unix {
                        uid: peer.uid(),
                        gid: peer.gid(),
                        pid: peer.pid(),
                    };
                    return Ok((Io::Unix(stream), addr));
                }
            }
        }
    }
}

/// Binds under another name, sets the mode, and renames: nobody sees the socket with a wrong mode.
fn bind_unix(path: &Path, access: UnixAccess) -> io::Result<Socket> {
    let (dir_mode, mode) = match access {
        UnixAccess::Private => (0o700, 0o600),
        UnixAccess::Anyone => (0o755, 0o666),
    };
    if let Some(parent) = path.parent()
        && !parent.exists()
    {
        // Only the directory itself is private: others lie beside it, for whoever may come to them.
        if let Some(above) = parent.parent()
            && !above.exists()
        {
            fsio::create_dir_mode(above, 0o755)?;
        }
        fsio::create_dir_mode(parent, dir_mode)?;
    }
    refuse_if_served(path)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push("~");
    let temporary = PathBuf::from(temporary);
    remove_socket(&temporary)?;
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
    fs::rename(&temporary, path)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
    };
    Ok(Socket::Unix(listener, file))
}

/// An existing file is fine if it is a socket nobody listens on; it is then removed.
fn refuse_if_served(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove_socket(path),
        Err(error) => Err(error),
    }
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} exists and is no socket", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A successor may have put its own socket there already.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who is at the other end, as the transport knows it. In the extensions of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from.
    pub addr: PeerAddr,
    /// The verified certificate chain of a TLS peer, leaf first; empty without one.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// A process on this machine, as the kernel vouches for it.
    Unix {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Process id.
        pid: Option<i32>,
    },
    /// An address.
    Tcp(SocketAddr),
}

impl Peer {
    /// A peer without a certificate.
    pub fn new(addr: PeerAddr) -> Self {
        Self {
            addr,
            certificates: Arc::new([]),
        }
    }

    /// The user id of a process on this machine.
    pub fn uid(&self) -> Option<u32> {
        match self.addr {
            PeerAddr::Unix { uid, .. } => Some(uid),
            PeerAddr::Tcp(_) => None,
        }
    }

    /// True for our own user and root on a Unix socket.
    pub fn is_same_user(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.uid().is_some_and(|uid| uid == own || uid == 0)
    }

    /// The leaf certificate of a TLS peer.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificates.first()
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, pid, .. } => {
                write!(f, "uid={uid}")?;
                pid.map_or(Ok(()), |pid| write!(f, " pid={pid}"))
            }
            Self::Tcp(addr) => addr.fmt(f),
        }
    }
}

/// A connection, before TLS.
#[derive(Debug)]
pub enum Io {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests;
