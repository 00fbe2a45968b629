//! The first process of a container. Its tests run in processes of their own: it collects every child there is.

use std::process::Command;

use baetyl_runtime_native::reaper::attend;
use rustix::process::{getpid, set_child_subreaper};

/// Runs one of the cases below in a process that orphans come to, as they come to process 1.
fn run(case: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn shell(text: &str) -> u8 {
    set_child_subreaper(Some(getpid())).unwrap();
    attend(Command::new("/bin/sh").args(["-c", text])).unwrap()
}

#[test]
fn orphans_are_collected_and_the_exit_code_is_that_of_the_program() {
    run("reaper::case_of_an_orphan");
}

#[test]
#[ignore = "a part of another test"]
fn case_of_an_orphan() {
    // A directory in /proc stays as long as its process is a zombie.
    let text = "p=$(sh -c 'sleep 0.05 >/dev/null & echo $!'); while test -d /proc/$p; do sleep 0.01; done; exit 7";
    assert_eq!(shell(text), 7);
}

#[test]
fn signals_are_passed_on() {
    run("reaper::case_of_a_signal");
}

#[test]
#[ignore = "a part of another test"]
fn case_of_a_signal() {
    let text = "trap 'exit 9' TERM; kill -TERM $PPID; while :; do sleep 0.01; done";
    assert_eq!(shell(text), 9);
    assert_eq!(shell("kill -KILL $$"), 128 + 9);
}
