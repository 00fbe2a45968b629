//! Thresholds, ports and single answers.

use std::sync::Arc;

use baetyl_model::resource::{ExecAction, TcpSocketAction};
use baetyl_testkit::ClosedPort;
use tokio::net::TcpListener;

use super::*;

fn timing(success: u32, failure: u32) -> ProbeTiming {
    ProbeTiming {
        initial_delay: 0,
        timeout: 1,
        period: 1,
        success,
        failure,
    }
}

fn environment() -> Arc<Environment> {
    let path = ("PATH".into(), "/usr/bin:/bin".into());
    Arc::new(Environment {
        env: vec![path],
        cwd: "/".into(),
        user: None,
    })
}

fn exec(words: &[&str]) -> Probe {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    Probe {
        exec: Some(ExecAction { command }),
        ..Probe::default()
    }
}

fn tcp(port: Port) -> Probe {
    Probe {
        tcp_socket: Some(TcpSocketAction {
            port,
            host: String::new(),
        }),
        ..Probe::default()
    }
}

async fn answer(probe: &Probe) -> Result<(), String> {
    Asked::read(probe, &[]).unwrap().once(&environment()).await
}

#[test]
fn a_threshold_is_answers_in_a_row() {
    let mut count = Count::new(&timing(2, 3), false);
    let answers = [
        true, false, true, true, true, false, false, true, false, false, false, false, true, true,
    ];
    let decided: Vec<Option<bool>> = answers.into_iter().map(|good| count.take(good)).collect();
    let mut expected = vec![None; answers.len()];
    expected[3] = Some(true);
    expected[10] = Some(false);
    expected[13] = Some(true);
    assert_eq!(decided, expected);
}

#[test]
fn what_lives_must_fail_as_often_as_it_may_from_the_start() {
    let mut count = Count::new(&timing(1, 3), true);
    assert_eq!(
        [count.take(false), count.take(false), count.take(false)],
        [None, None, Some(false)]
    );
}

#[test]
fn a_port_is_where_the_instance_really_listens() {
    let ports = [InstancePort {
        name: "web".to_owned(),
        declared: 80,
        port: 50_201,
    }];
    assert_eq!(resolve(&Port::Number(80), &ports), Ok(50_201));
    assert_eq!(resolve(&Port::Name("web".to_owned()), &ports), Ok(50_201));
    assert_eq!(resolve(&Port::Name("80".to_owned()), &ports), Ok(50_201));
    assert_eq!(resolve(&Port::Number(9000), &ports), Ok(9000));
    assert!(resolve(&Port::Name("other".to_owned()), &ports).is_err());
    assert!(resolve(&Port::Number(70_000), &ports).is_err());
}

#[tokio::test]
async fn a_command_answers_by_its_exit_code() {
    assert_eq!(answer(&exec(&["true"])).await, Ok(()));
    assert!(
        answer(&exec(&["sh", "-c", "exit 3"]))
            .await
            .unwrap_err()
            .contains("exit status: 3")
    );
    assert!(
        answer(&exec(&["no-such-program"]))
            .await
            .unwrap_err()
            .contains("no-such-program")
    );
}

#[tokio::test]
async fn no_answer_in_time_is_a_bad_one() {
    let error = answer(&exec(&["sleep", "600"])).await.unwrap_err();
    assert_eq!(error, "no answer within 1 s");
}

#[tokio::test]
async fn a_connection_that_opens_is_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(answer(&tcp(Port::Number(port.into()))).await, Ok(()));
    let closed = ClosedPort::take();
    assert!(
        answer(&tcp(Port::Number(closed.number().into())))
            .await
            .unwrap_err()
            .contains("cannot connect")
    );
}

#[tokio::test]
async fn a_good_answer_is_found_once_and_asking_goes_on() {
    let readiness = Asked::read(&exec(&["true"]), &[]).unwrap();
    let probes = Probes {
        readiness: Some(readiness),
        ..Probes::default()
    };
    let (sender, mut findings) = mpsc::channel(1);
    let asking = tokio::spawn(probes.ask(environment(), true, sender));
    assert_eq!(findings.recv().await, Some(Finding::Ready));
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
}
