//! The shim by itself.

use std::process::Command;

use rustix::process::{Signal, getsid, kill_process};

use crate::node::{Node, is_alive, one, pid, script, service};

#[tokio::test]
async fn it_leads_a_session_of_its_own_and_is_nobodys_child_here() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script("exec sleep 600")))
        .unwrap();
    let run = node.until_running().await;
    assert_eq!(getsid(Some(pid(run.shim))).unwrap(), pid(run.shim));
    assert_eq!(getsid(Some(pid(run.app))).unwrap(), pid(run.shim));
    let parent = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        text.rsplit_once(')')
            .unwrap()
            .1
            .split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    assert_eq!(parent(run.app.pid), run.shim.pid);
    assert_ne!(parent(run.shim.pid), std::process::id());
    let limits = std::fs::read_to_string(format!("/proc/{}/status", run.app.pid)).unwrap();
    let mask = limits
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .unwrap()
        .trim();
    assert_eq!(
        mask, "0000000000000000",
        "the application starts with no signal blocked"
    );
}

#[tokio::test]
async fn it_passes_signals_on() {
    let node = Node::new().await;
    let text = "for s in HUP USR1 USR2 INT; do trap \"echo got $s\" $s; done; echo up; while :; do sleep 0.01; done";
    node.runtime().run(service(script(text))).unwrap();
    node.until_logged(&one(), "up\n").await;
    let run = node.until_running().await;
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::INT, "INT"),
    ] {
        kill_process(pid(run.shim), signal).unwrap();
        node.until_logged(&one(), &format!("got {name}\n")).await;
    }
    assert!(is_alive(run.app));
}

#[tokio::test]
async fn a_second_shim_in_one_place_starts_nothing() {
    let node = Node::new().await;
    node.runtime()
        .run(service(script("echo run; exec sleep 600")))
        .unwrap();
    let run = node.until_running().await;
    let plan = node.config.state_dir.join("baetyl-edge/app/1/main/1/plan");
    let status = Command::new(env!("CARGO_BIN_EXE_baetyl-shim"))
        .arg("launch")
        .arg(plan)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(75));
    assert_eq!(node.record("run.json")["shim"]["pid"], run.shim.pid);
    assert_eq!(
        std::fs::read_to_string(node.runtime().log_file(&one())).unwrap(),
        "run\n"
    );
}

#[tokio::test]
async fn wrong_arguments_and_plans_are_refused() {
    let shim = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_baetyl-shim"))
            .args(args)
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(shim(&[]), Some(64));
    assert_eq!(shim(&["launch"]), Some(64));
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan");
    std::fs::write(&plan, "no plan").unwrap();
    assert_eq!(shim(&["launch", plan.to_str().unwrap()]), Some(64));
    assert_eq!(shim(&["launch", "/no/such/dir/plan"]), Some(71));
}

#[tokio::test]
async fn it_collects_what_the_application_leaves_to_it() {
    let node = Node::new().await;
    // An orphan that ends: a directory in /proc stays as long as it is a zombie.
    let text = "p=$(sh -c 'sleep 0.05 >/dev/null & echo $!'); while test -d /proc/$p; do sleep 0.01; done; echo collected; exec sleep 600";
    node.runtime().run(service(script(text))).unwrap();
    node.until_logged(&one(), "collected\n").await;
}
