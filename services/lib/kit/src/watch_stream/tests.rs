use super::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Script = Arc<Mutex<VecDeque<Result<Vec<Result<u64, Status>>, Status>>>>;

struct Server {
    script: Script,
    tokens: Arc<Mutex<Vec<Option<u64>>>>,
}

impl Server {
    fn new(script: Vec<Result<Vec<Result<u64, Status>>, Status>>) -> Self {
        Self {
            script: Arc::new(Mutex::new(script.into())),
            tokens: Arc::default(),
        }
    }

    /// Plays the next scene for each call; after the last one it refuses every call.
    fn open(
        &self,
    ) -> impl FnMut(Option<u64>) -> std::future::Ready<Result<Items, Status>> + Send + use<> {
        let (script, tokens) = (Arc::clone(&self.script), Arc::clone(&self.tokens));
        move |token| {
            tokens.lock().unwrap().push(token);
            let scene = script.lock().unwrap().pop_front();
            let scene = scene.unwrap_or_else(|| Err(Status::unavailable("gone")));
            std::future::ready(scene.map(futures_util::stream::iter))
        }
    }
}

type Items = futures_util::stream::Iter<std::vec::IntoIter<Result<u64, Status>>>;

fn tell(event: &Event<u64>) -> String {
    match event {
        Event::Opened { resumed } => format!("opened resumed={resumed}"),
        Event::Item(item) => format!("item {item}"),
        Event::Lost(status) => format!("lost {:?}", status.code()),
    }
}

async fn told(receiver: &mut mpsc::Receiver<Event<u64>>, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        lines.push(tell(&receiver.recv().await.unwrap()));
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_resumed_after_the_last_item() {
    let tasks = Tasks::new("test");
    let server = Server::new(vec![
        Err(Status::unavailable("starting")),
        Ok(vec![Ok(1), Ok(2), Err(Status::unavailable("broken"))]),
        Ok(vec![Ok(3)]),
    ]);
    let mut receiver = events(
        &tasks,
        "watch",
        Backoff::local(),
        8,
        server.open(),
        |item| Some(*item),
    );
    assert_eq!(
        told(&mut receiver, 8).await,
        [
            "lost Unavailable",
            "opened resumed=false",
            "item 1",
            "item 2",
            "lost Unavailable",
            "opened resumed=true",
            "item 3",
            "lost Unavailable",
        ]
    );
    assert_eq!(server.tokens.lock().unwrap()[..3], [None, None, Some(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_too_old_starts_over_at_once() {
    let tasks = Tasks::new("test");
    let server = Server::new(vec![
        Ok(vec![Ok(7)]),
        Err(Status::out_of_range("too old")),
        Ok(vec![Ok(9)]),
    ]);
    let backoff = Backoff::new(Duration::from_secs(3600), Duration::from_secs(3600));
    let mut receiver = events(&tasks, "watch", backoff, 8, server.open(), |item| {
        Some(*item)
    });
    let begin = tokio::time::Instant::now();
    assert_eq!(
        told(&mut receiver, 6).await,
        [
            "opened resumed=false",
            "item 7",
            "lost Unavailable",
            "lost OutOfRange",
            "opened resumed=false",
            "item 9",
        ]
    );
    assert_eq!(server.tokens.lock().unwrap()[..3], [None, Some(7), None]);
    // One backoff after the end of the first stream, none after OUT_OF_RANGE (time is simulated).
    assert_eq!(begin.elapsed().as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_keeps_saying_out_of_range_is_not_asked_in_a_tight_loop() {
    let tasks = Tasks::new("test");
    let server = Server::new(vec![
        Err(Status::out_of_range("confused")),
        Err(Status::out_of_range("confused")),
    ]);
    let backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(60));
    let mut receiver = events(&tasks, "watch", backoff, 8, server.open(), |item| {
        Some(*item)
    });
    let begin = tokio::time::Instant::now();
    told(&mut receiver, 2).await;
    assert!(begin.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn the_newest_item_stays_while_the_stream_is_broken() {
    let tasks = Tasks::new("test");
    let server = Server::new(vec![Ok(vec![Ok(1), Ok(2)])]);
    let mut receiver = latest(&tasks, "watch", Backoff::local(), server.open(), |item| {
        Some(*item)
    });
    receiver.wait_for(|item| *item == Some(2)).await.unwrap();
    while server.tokens.lock().unwrap().len() < 4 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(*receiver.borrow(), Some(2));
    assert_eq!(server.tokens.lock().unwrap()[..2], [None, Some(2)]);
}

#[tokio::test]
async fn the_task_ends_when_nobody_reads_even_on_a_quiet_stream() {
    let tasks = Tasks::new("test");
    let open = |_: Option<u64>| {
        std::future::ready(Ok(futures_util::stream::pending::<Result<u64, Status>>()))
    };
    let receiver = events(&tasks, "watch", Backoff::local(), 1, open, |item| {
        Some(*item)
    });
    assert_eq!(tasks.running().len(), 1);
    drop(receiver);
    while !tasks.running().is_empty() {
        tokio::task::yield_now().await;
    }
    tasks.stop(Duration::from_secs(10)).await.unwrap();
}
