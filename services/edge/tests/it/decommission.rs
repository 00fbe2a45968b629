//! `baetyl-edge decommission`. That applications end is the runtime's to show.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use baetyl_testkit::TestDir;

const DIRS: [&str; 6] = ["engine", "node", "sync", "init", "log", "run"];

/// A data directory with something of every service in it.
fn node() -> TestDir {
    let dir = TestDir::new();
    for name in DIRS {
        dir.write(format!("{name}/deep/file"), "x");
    }
    dir.write("engine/run/baetyl-edge/hello/3/main/1/file", "x");
    dir.write("host/data", "precious");
    dir
}

fn decommission(dir: &Path, more: &[&str]) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_baetyl-edge"))
        .args(["decommission", "--data-dir"])
        .arg(dir)
        .args(more)
        .output()
        .unwrap();
    let said = [stdout, stderr].concat();
    (status.success(), String::from_utf8(said).unwrap())
}

fn left(dir: &TestDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn without_yes_it_says_what_would_be_removed_and_removes_nothing() {
    let dir = node();
    let before = left(&dir);
    let (done, said) = decommission(dir.path(), &[]);
    assert!(!done);
    for name in DIRS {
        let path = dir.join(name).display().to_string();
        assert!(said.contains(&path), "{name} is not in: {said}");
    }
    assert!(said.contains("application hello (3)"), "{said}");
    assert_eq!(left(&dir), before);
}

#[test]
fn what_applications_wrote_to_the_host_stays_and_a_second_time_is_no_error() {
    let dir = node();
    for _ in 0..2 {
        let (done, said) = decommission(dir.path(), &["--yes"]);
        assert!(done, "{said}");
        assert_eq!(left(&dir), ["host"]);
    }
    assert!(dir.join("host/data").exists());
}

#[test]
fn it_refuses_while_a_service_answers_and_not_for_the_socket_of_a_dead_one() {
    let dir = node();
    let socket = dir.write("run/core/x", "").with_file_name("engine.sock");
    let service = UnixListener::bind(&socket).unwrap();
    let before = left(&dir);
    let (done, said) = decommission(dir.path(), &["--yes"]);
    assert!(!done && said.contains("engine.sock"), "{said}");
    assert_eq!(left(&dir), before);
    drop(service);
    let (done, said) = decommission(dir.path(), &["--yes"]);
    assert!(done, "{said}");
}
