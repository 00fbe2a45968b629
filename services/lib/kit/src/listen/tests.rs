use super::*;
use std::os::unix::net::UnixListener as StdUnixListener;

#[test]
fn a_place_to_listen_is_an_address_or_an_absolute_path() {
    let unix: Listen = "unix:/run/x.sock".parse().unwrap();
    assert_eq!(unix, Listen::Unix("/run/x.sock".into()));
    let tcp: Listen = "127.0.0.1:0".parse().unwrap();
    assert_eq!(tcp, Listen::loopback());
    for text in ["localhost:80", "unix:run/x.sock", "8080", ""] {
        assert!(text.parse::<Listen>().is_err(), "{text}");
    }
    assert_eq!(unix.to_string(), "unix:/run/x.sock");
}

#[test]
fn a_private_socket_is_for_its_user_and_root() {
    assert!(UnixAccess::Private.permits(1000, 1000));
    assert!(UnixAccess::Private.permits(0, 1000));
    assert!(!UnixAccess::Private.permits(1001, 1000));
    assert!(!UnixAccess::Private.permits(1001, 0));
    assert!(UnixAccess::Anyone.permits(1001, 1000));
}

#[tokio::test]
async fn a_socket_gets_its_mode_and_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for (access, name, dir_mode, mode) in [
        (UnixAccess::Private, "core", 0o700, 0o600),
        (UnixAccess::Anyone, "apps", 0o755, 0o666),
    ] {
        let path = dir.path().join("run").join(name).join("x.sock");
        let listener = Listener::bind(&Listen::Unix(path.clone()), access)
            .await
            .unwrap();
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode_of(&path), mode);
        assert_eq!(mode_of(path.parent().unwrap()), dir_mode);
        assert_eq!(mode_of(&dir.path().join("run")), 0o755);
        drop(listener);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file behind");
    let listen = Listen::Unix(path.clone());
    let _first = Listener::bind(&listen, UnixAccess::Private).await.unwrap();
    let second = Listener::bind(&listen, UnixAccess::Private).await;
    assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    fs::write(&path, "precious").unwrap();
    let bound = Listener::bind(&Listen::Unix(path.clone()), UnixAccess::Private).await;
    assert!(bound.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn an_old_listener_leaves_the_socket_of_its_successor_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listen = Listen::Unix(path.clone());
    let old = Listener::bind(&listen, UnixAccess::Private).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _new = Listener::bind(&listen, UnixAccess::Private).await.unwrap();
    drop(old);
    assert!(path.exists());
}

#[tokio::test]
async fn a_path_the_kernel_would_cut_is_refused_with_advice() {
    let path = format!("/tmp/{}", "x".repeat(MAX_SOCKET_PATH));
    let error = Listener::bind(&Listen::Unix(path.into()), UnixAccess::Private)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("shorter --data-dir"), "{error}");
}

#[tokio::test]
async fn the_kernel_vouches_for_the_peer_of_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = Listener::bind(&Listen::Unix(path.clone()), UnixAccess::Private)
        .await
        .unwrap();
    let _client = UnixStream::connect(&path).await.unwrap();
    let (_, addr) = listener.accept().await.unwrap();
    let peer = Peer::new(addr);
    assert!(peer.is_same_user());
    let pid = i32::try_from(std::process::id()).unwrap();
    assert!(matches!(addr, PeerAddr::Unix { pid: Some(p), .. } if p == pid));
}
