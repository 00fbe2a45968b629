//! One watch: a complete list, then every change after it, for ever. What breaks is taken up where it broke, or begun
//! anew when that is too long ago.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Api, Body, Call, causes};
use crate::error::{ApiError, Status};
use crate::seen::{Controller, Machine, Page, Pod, Record, Thing, Warning};
use crate::world::{Kept, Shared, Watch, What};

#[cfg(test)]
mod tests;

/// Objects in a page of a list: what is read at once stays small.
const PAGE: usize = 200;
/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A watch that ends sooner counts as a failure: it would be asked for without a pause.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// When to look again whether we may look.
const DENIED_PAUSE: Duration = Duration::from_secs(300);
/// A watch for each quarter of a minute: with more than twenty of them each lasts longer.
const PER_WATCH: Duration = Duration::from_secs(15);
/// Longest line of a watch; etcd takes objects of 1.5 MiB.
const MAX_LINE: usize = 16 << 20;

/// Why a watch does not go on.
enum Fault {
    /// The API server does not remember what came after our version.
    TooOld,
    Api(ApiError),
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        if error.code() == 410 {
            Self::TooOld
        } else {
            Self::Api(error)
        }
    }
}

/// Watches for ever; ends when it is dropped. In a namespace of ours we must be allowed to look.
pub(crate) async fn watch(api: Api, watch: Watch, ours: bool, shared: Arc<Shared>) {
    shared.begin(&watch);
    let needed = ours && watch.what.is_needed();
    match watch.what {
        What::Pods => {
            Watcher::<Pod>::new(&api, &watch, &shared, needed)
                .run()
                .await
        }
        What::Warnings => {
            Watcher::<Warning>::new(&api, &watch, &shared, needed)
                .run()
                .await
        }
        What::Machines => {
            Watcher::<Machine>::new(&api, &watch, &shared, needed)
                .run()
                .await
        }
        What::Inventories | What::Releases => {
            Watcher::<Record>::new(&api, &watch, &shared, needed)
                .run()
                .await;
        }
        What::Services | What::ConfigMaps | What::Secrets | What::Scalers => {
            Watcher::<Thing>::new(&api, &watch, &shared, needed)
                .run()
                .await;
        }
        _ => {
            Watcher::<Controller>::new(&api, &watch, &shared, needed)
                .run()
                .await
        }
    }
}

struct Watcher<'a, T> {
    api: &'a Api,
    watch: &'a Watch,
    shared: &'a Shared,
    /// Whether nobody can tell how applications do without it. In namespaces of others it is as their administrator wants.
    needed: bool,
    /// Everything up to this version was seen; None: nothing was.
    version: Option<String>,
    failures: u32,
    kind: std::marker::PhantomData<T>,
}

impl<'a, T: Kept> Watcher<'a, T> {
    fn new(api: &'a Api, watch: &'a Watch, shared: &'a Shared, needed: bool) -> Self {
        Self {
            api,
            watch,
            shared,
            needed,
            version: None,
            failures: 0,
            kind: std::marker::PhantomData,
        }
    }

    async fn run(mut self) {
        loop {
            let began = Instant::now();
            let step = match self.version.clone() {
                None => self.list().await,
                Some(version) => self.follow(&version).await,
            };
            match step {
                Ok(Step::Listed) => {}
                Ok(Step::Ended) if began.elapsed() >= TOO_SHORT => self.failures = 0,
                Ok(Step::Ended) => self.pause(None).await,
                Err(Fault::TooOld) => {
                    self.version = None;
                    // Once is as it should be; a server that forgets at once would be listed without end.
                    if self.failures > 0 || began.elapsed() < TOO_SHORT {
                        self.pause(None).await;
                    }
                }
                Err(Fault::Api(error)) => self.fail(error).await,
            }
        }
    }

    async fn fail(&mut self, error: ApiError) {
        let what = self.watch.what;
        if matches!(error.code(), 403 | 404) && !self.needed {
            tracing::debug!(%error, ?what, namespace = self.watch.namespace, "cannot be looked at");
            self.shared.denied(self.watch, error.to_string());
            sleep(DENIED_PAUSE).await;
            return;
        }
        tracing::debug!(%error, ?what, namespace = self.watch.namespace, "a watch broke");
        self.shared.broken(self.watch, error.to_string());
        self.pause(error.retry_after()).await;
    }

    /// Waits as long as asked for, or longer after each failure, each watch a little differently.
    async fn pause(&mut self, asked: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let grown = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(10));
        let pause = asked.unwrap_or_else(|| grown.min(self.api.times().pause));
        sleep(pause + pause.mul_f64(fraction() / 4.0)).await;
    }

    async fn list(&mut self) -> Result<Step, Fault> {
        let what = self.watch.what;
        let path = what.resource().list(&self.watch.namespace);
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let query = format!(
                "{path}?limit={PAGE}{}{}",
                what.selector(),
                if next.is_empty() {
                    String::new()
                } else {
                    format!("&continue={next}")
                }
            );
            let mut call = Call::get(query);
            if what.is_metadata() {
                call = call.metadata_list(false);
            }
            let page: Page<T> = self.api.call(call).await?;
            items.extend(page.items.into_iter().filter(Kept::is_kept));
            if page.metadata.next.is_empty() {
                self.version = Some(page.metadata.resource_version);
                break;
            }
            next = crate::client::encode(&page.metadata.next);
        }
        self.shared.listed(self.watch, items);
        Ok(Step::Listed)
    }

    async fn follow(&mut self, version: &str) -> Result<Step, Fault> {
        let what = self.watch.what;
        let path = what.resource().list(&self.watch.namespace);
        let duration = self.duration();
        let query = format!(
            "{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={}{}",
            duration.as_secs(),
            what.selector()
        );
        let mut call = Call::get(query);
        if what.is_metadata() {
            call = call.metadata_list(true);
        }
        let body = self.api.stream(call).await?;
        self.shared.sees(self.watch);
        let silence = self.api.times().silence;
        // Of events the API server sends no bookmarks; whether it lives is seen by pings and by all other watches.
        let silence = match what {
            What::Warnings => silence + duration,
            _ => silence,
        };
        let mut lines = Lines::new(body, silence);
        while let Some(line) = lines.next().await? {
            self.take(&line)?;
            // What was seen is not seen again: this counts as going well.
            self.failures = 0;
        }
        Ok(Step::Ended)
    }

    /// Between the shortest and six fifths of it, so that not all are asked for at once.
    fn duration(&self) -> Duration {
        let watches = u32::try_from(self.shared.look().sights.len()).unwrap_or(u32::MAX);
        let least = self
            .api
            .times()
            .watch
            .max(PER_WATCH.saturating_mul(watches));
        least + least.mul_f64(fraction() / 5.0)
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Fault> {
        let event: Event<'_> = read(line)?;
        match &*event.kind {
            "ADDED" | "MODIFIED" => {
                let item: T = read::<About<T>>(line)?.object;
                self.version = Some(item.resource_version().to_owned());
                self.shared.seen(self.watch, item);
            }
            "DELETED" => {
                let item: T = read::<About<T>>(line)?.object;
                self.version = Some(item.resource_version().to_owned());
                self.shared.gone(self.watch, &item);
            }
            "BOOKMARK" => {
                let bookmark = read::<About<Bookmark>>(line)?.object;
                self.version = Some(bookmark.metadata.resource_version);
            }
            "ERROR" => {
                let status = read::<About<Status>>(line)?.object;
                return Err(ApiError::Status(Box::new(status)).into());
            }
            other => tracing::debug!(kind = other, "an event of an unknown type"),
        }
        Ok(())
    }
}

enum Step {
    /// Everything was seen.
    Listed,
    /// The time that was asked for is over.
    Ended,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// What an event is about; read once it is known what that is.
#[derive(Deserialize)]
struct About<T> {
    object: T,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
}

fn read<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Fault> {
    serde_json::from_slice(text).map_err(|error| Fault::Api(ApiError::Strange(error.to_string())))
}

/// A number in 0..1, good enough to spread what would happen at once.
fn fraction() -> f64 {
    let random = RandomState::new().hash_one(0_u8) >> 40;
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    let fraction = random as f64 / (1_u64 << 24) as f64;
    fraction
}

/// The lines of an answer that does not end.
pub(crate) struct Lines {
    body: Body,
    silence: Duration,
    rest: BytesMut,
    /// How much of `rest` has no end of a line.
    searched: usize,
}

impl Lines {
    pub(crate) fn new(body: Body, silence: Duration) -> Self {
        Self {
            body,
            silence,
            rest: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next line without its end; None: that was all.
    pub(crate) async fn next(&mut self) -> Result<Option<BytesMut>, ApiError> {
        loop {
            if let Some(line) = self.ready() {
                return Ok(Some(line));
            }
            if self.searched > MAX_LINE {
                return Err(ApiError::Strange(format!(
                    "a line has more than {MAX_LINE} bytes"
                )));
            }
            let frame = timeout(self.silence, self.body.frame())
                .await
                .map_err(|_| {
                    ApiError::Silent(format!(
                        "the API server sent nothing for {} s",
                        self.silence.as_secs()
                    ))
                })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(ApiError::Silent(format!(
                        "the connection to the API server broke: {}",
                        causes(error.as_ref())
                    )));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next line, if it is there already.
    pub(crate) fn ready(&mut self) -> Option<BytesMut> {
        loop {
            let rest = &self.rest[self.searched..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.rest.len();
                return None;
            };
            let line = self.rest.split_to(self.searched + end);
            self.rest.advance(1);
            self.searched = 0;
            if self.rest.is_empty() {
                // A large object must not keep its memory for as long as the watch lasts.
                self.rest = BytesMut::new();
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}
