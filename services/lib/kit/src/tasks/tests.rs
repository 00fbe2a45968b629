use super::*;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_end_of_a_required_task_stops_the_service() {
    let tasks = Tasks::new("node");
    tasks.spawn_required("ledger", async {});
    tasks.shutdown().cancelled().await;
    let failure = tasks.stop(SOON).await.unwrap_err();
    assert_eq!(failure.to_string(), "required task ledger of node ended");
}

#[tokio::test]
async fn a_panic_is_reported_with_the_name_of_its_task() {
    let tasks = Tasks::new("node");
    tasks.spawn_required("ledger", async { panic!("page {} is gone", 7) });
    tasks.shutdown().cancelled().await;
    let failure = tasks.stop(SOON).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "required task ledger of node panicked: page 7 is gone"
    );
}

#[tokio::test]
async fn an_error_of_another_task_does_not_stop_the_service() {
    let tasks = Tasks::new("node");
    tasks.spawn("stats", async { Err(std::io::Error::other("no /proc")) });
    tasks.spawn("more", async { panic!("also this") });
    while !tasks.running().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!tasks.shutdown().is_cancelled());
    tasks.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn stopping_waits_for_a_task_that_drains() {
    let tasks = Tasks::new("node");
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let token = tasks.shutdown().clone();
    tasks.spawn_required("server", async move {
        token.cancelled().await;
        tokio::task::yield_now().await;
        let _ = sender.send("drained");
    });
    tasks.stop(SOON).await.unwrap();
    assert_eq!(receiver.await.unwrap(), "drained");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_drain_is_aborted_and_named() {
    let tasks = Tasks::new("node");
    tasks.spawn("stuck", std::future::pending::<()>());
    tasks.spawn_until_shutdown("polite", std::future::pending::<()>());
    let failure = tasks.stop(SOON).await.unwrap_err();
    assert_eq!(failure, Failure::NotDrained("node/stuck".to_owned()));
    assert!(tasks.running().is_empty());
}

#[tokio::test]
async fn the_failure_of_a_child_is_the_failure_of_the_process() {
    let process = Tasks::new("edge");
    let (node, sync) = (process.child("node"), process.child("sync"));
    sync.spawn_until_shutdown("link", std::future::pending::<()>());
    node.spawn_required("ledger", async {
        Err(std::io::Error::other("disk is gone"))
    });
    process.shutdown().cancelled().await;
    let failure = process.stop(SOON).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "required task ledger of node failed: disk is gone"
    );
    assert!(process.running().is_empty());
}

#[tokio::test]
async fn a_child_stops_alone() {
    let process = Tasks::new("edge");
    let node = process.child("node");
    node.spawn_until_shutdown("watch", std::future::pending::<()>());
    process.spawn_until_shutdown("admin", std::future::pending::<()>());
    node.stop(SOON).await.unwrap();
    assert!(!process.shutdown().is_cancelled());
    assert_eq!(process.running(), BTreeSet::from(["edge/admin".to_owned()]));
    process.stop(SOON).await.unwrap();
}
