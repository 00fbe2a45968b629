//! Logs of Pods: the last lines, then what comes, also after a container was started again.
//!
//! A position is, for each container, the time of the last line that was read and how many lines of exactly that time
//! there were: Kubernetes reads on from a time, to the second, and what was read already is left out.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use baetyl_model::jiff::Timestamp;
use baetyl_model::workload::InstanceId;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::timeout;

use crate::client::{Call, Resource, encode};
use crate::error::ApiError;
use crate::runtime::Cluster;
use crate::seen::{Meta, Pod};
use crate::watch::Lines;

#[cfg(test)]
mod tests;

/// A log may be silent for as long as its program; whether the connection lives is seen otherwise.
const SILENCE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Lines that are joined to one piece when they are there at once.
const PIECE: usize = 32 << 10;
/// How long to wait for a container to be started again before it is asked for anyway.
const RESTART: Duration = Duration::from_secs(30);

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogStart {
    /// So many lines from the end of each container's log.
    Tail(usize),
    /// After what was read already.
    After(LogPosition),
}

/// A place in the logs of a Pod. Its text can be kept and read again, also by another process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPosition(BTreeMap<String, Mark>);

/// The last line that was read of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    time: Timestamp,
    /// Lines of exactly this time that were read.
    lines: u32,
}

/// Text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a position in a log: container=time+lines, separated by commas, is wanted")]
pub struct PositionError(String);

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (container, mark)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{container}={}+{}", mark.time, mark.lines)?;
        }
        Ok(())
    }
}

impl FromStr for LogPosition {
    type Err = PositionError;
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mark = |part: &str| {
            let (container, mark) = part.split_once('=')?;
            let (time, lines) = mark.rsplit_once('+')?;
            let mark = Mark {
                time: time.parse().ok()?,
                lines: lines.parse().ok()?,
            };
            Some((container.to_owned(), mark))
        };
        let parts = text.split(',').filter(|part| !part.is_empty());
        let marks: Option<BTreeMap<_, _>> = parts.map(mark).collect();
        marks
            .map(Self)
            .ok_or_else(|| PositionError(text.chars().take(80).collect()))
    }
}

impl Cluster {
    pub(crate) fn logs(
        &self,
        instance: &InstanceId,
        container: Option<&str>,
        start: LogStart,
        follow: bool,
    ) -> BoxStream<'static, io::Result<(Bytes, LogPosition)>> {
        let readers = match self.readers(instance, container, &start, follow) {
            Ok(readers) => readers,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let mut position = match start {
            LogStart::Tail(_) => LogPosition::default(),
            LogStart::After(position) => position,
        };
        let streams = readers.into_iter().map(|reader| {
            let pieces = stream::unfold(reader, |mut reader| async move {
                let piece = reader.next().await?;
                Some((piece, reader))
            });
            pieces.boxed()
        });
        let pieces: BoxStream<'static, _> = if follow {
            stream::select_all(streams).boxed()
        } else {
            // One after the other, in the order of the Pod.
            stream::iter(streams).flatten().boxed()
        };
        pieces
            .map(move |piece| {
                let (container, bytes, mark) = piece?;
                position.0.insert(container, mark);
                Ok((bytes, position.clone()))
            })
            .boxed()
    }

    /// One reader for each container that has been started.
    fn readers(
        &self,
        instance: &InstanceId,
        container: Option<&str>,
        start: &LogStart,
        follow: bool,
    ) -> io::Result<Vec<Reader>> {
        let Some(pod) = self.pod(instance) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no Pod {instance}"),
            ));
        };
        let spec = &pod.spec;
        let names: Vec<String> = match container {
            Some(name) => vec![name.to_owned()],
            None => spec
                .init_containers
                .iter()
                .chain(&spec.containers)
                .map(|container| container.name.to_string())
                .collect(),
        };
        let several = names.len() > 1;
        let readers = names.into_iter().map(|name| {
            let (mark, tail) = match start {
                LogStart::Tail(lines) => (None, Some(*lines)),
                LogStart::After(position) => (position.0.get(&name).copied(), None),
            };
            Reader {
                cluster: self.clone(),
                pod: pod.metadata.clone(),
                prefix: several.then(|| format!("[{name}] ")),
                container: name,
                tail,
                follow,
                mark,
                lines: None,
                skip: 0,
                read: 0,
                ready: VecDeque::new(),
                ended: false,
            }
        });
        Ok(readers.collect())
    }

    /// A Pod of ours as it was seen last; its workload's namespace, or one of others its application was put into.
    fn pod(&self, instance: &InstanceId) -> Option<Pod> {
        let world = self.shared.look();
        let belongings = crate::observe::Belongings::of(&world, &self.config);
        let mut pods = belongings.pods(&instance.workload).iter();
        pods.find(|pod| pod.metadata.name == instance.name)
            .map(|pod| (*pod).clone())
    }
}

type Piece = (String, Bytes, Mark);

/// Reads the log of one container.
struct Reader {
    cluster: Cluster,
    pod: Meta,
    container: String,
    prefix: Option<String>,
    tail: Option<usize>,
    follow: bool,
    mark: Option<Mark>,
    lines: Option<Lines>,
    /// Lines of the mark's time that are still to be left out.
    skip: u32,
    /// Times the container had been started when reading began.
    read: u32,
    ready: VecDeque<io::Result<Piece>>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<io::Result<Piece>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.read().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Reads until there is a piece, or the log ends.
    async fn read(&mut self) -> io::Result<()> {
        let Some(lines) = &mut self.lines else {
            return self.open().await;
        };
        let Some(line) = lines.next().await.map_err(broken)? else {
            self.lines = None;
            if self.follow {
                self.go_on().await;
            } else {
                self.ended = true;
            }
            return Ok(());
        };
        let mut piece = BytesMut::new();
        self.take(&line, &mut piece);
        // What is there at once is one piece.
        while piece.len() < PIECE
            && let Some(lines) = &mut self.lines
            && let Some(line) = lines.ready()
        {
            self.take(&line, &mut piece);
        }
        if let Some(mark) = self.mark
            && !piece.is_empty()
        {
            let piece = (self.container.clone(), piece.freeze(), mark);
            self.ready.push_back(Ok(piece));
        }
        Ok(())
    }

    async fn open(&mut self) -> io::Result<()> {
        self.read = self.starts().map_or(0, |(starts, _)| starts);
        let mut path = format!(
            "{}/log?container={}&timestamps=true&follow={}",
            Resource::POD.one(&self.pod.namespace, &self.pod.name),
            encode(&self.container),
            self.follow
        );
        if let Some(mark) = self.mark {
            let second = mark.time.as_second();
            let time = Timestamp::from_second(second)
                .unwrap_or(mark.time)
                .to_string();
            path.push_str(&format!("&sinceTime={}", encode(&time)));
            self.skip = mark.lines;
        } else if let Some(tail) = self.tail {
            path.push_str(&format!("&tailLines={tail}"));
        }
        match self.cluster.api.stream(Call::get(path)).await {
            Ok(body) => self.lines = Some(Lines::new(body, SILENCE)),
            // Not started yet.
            Err(error) if error.code() == 400 && self.follow => self.go_on().await,
            Err(error) if error.code() == 400 => self.ended = true,
            Err(error) if error.code() == 404 => {
                return Err(io::Error::new(io::ErrorKind::NotFound, error.to_string()));
            }
            Err(error) => return Err(broken(error)),
        }
        Ok(())
    }

    /// Adds a line that was not read before.
    fn take(&mut self, line: &[u8], piece: &mut BytesMut) {
        let (time, text) = split(line);
        match (time, self.mark) {
            (Some(time), Some(mark)) if time < mark.time => return,
            (Some(time), Some(mark)) if time == mark.time && self.skip > 0 => {
                self.skip -= 1;
                return;
            }
            (Some(time), Some(mark)) if time == mark.time => {
                let lines = mark.lines.saturating_add(1);
                self.mark = Some(Mark { time, lines });
            }
            (Some(time), _) => self.mark = Some(Mark { time, lines: 1 }),
            // Not a line of the log: the kubelet's own words.
            (None, _) => {}
        }
        if self.mark.is_none() {
            self.mark = Some(Mark {
                time: Timestamp::UNIX_EPOCH,
                lines: 0,
            });
        }
        if let Some(prefix) = &self.prefix {
            piece.put_slice(prefix.as_bytes());
        }
        piece.put_slice(text);
        piece.put_u8(b'\n');
    }

    /// How often the container was started, and whether it is over for good; None: the Pod has gone.
    fn starts(&self) -> Option<(u32, bool)> {
        let world = self.cluster.shared.look();
        let pod =
            world.pods.values().map(|entry| &entry.item).find(|pod| {
                pod.metadata.uid == self.pod.uid && pod.metadata.name == self.pod.name
            })?;
        let over = matches!(&*pod.status.phase, "Succeeded" | "Failed");
        let status = &pod.status;
        let mut all = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses);
        let seen = all.find(|seen| *seen.name == *self.container);
        let starts = seen.map_or(0, |seen| {
            // Running or ended for the first time counts as one start.
            let begun = seen.state.running.is_some() || seen.state.terminated.is_some();
            seen.restart_count + u32::from(begun)
        });
        // An init container that ended well is not started again.
        let done = status.init_container_statuses.iter().any(|seen| {
            let end = seen.state.terminated.as_ref();
            *seen.name == *self.container && end.is_some_and(|end| end.exit_code == 0)
        });
        Some((starts, over || done))
    }

    /// Waits until there can be more to read; ends when there never will be.
    async fn go_on(&mut self) {
        let mut changes = self.cluster.shared.changes();
        loop {
            changes.mark_unchanged();
            match self.starts() {
                None | Some((_, true)) => {
                    self.ended = true;
                    return;
                }
                Some((starts, false)) if starts > self.read => {
                    // Another log: all of it is new, whatever the clock said meanwhile.
                    self.mark = None;
                    self.tail = None;
                    return;
                }
                Some(_) => {}
            }
            match timeout(RESTART, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    self.ended = true;
                    return;
                }
                // Perhaps the connection ended, not the container. One that never ran is waited for.
                Err(_) if self.read > 0 => return,
                Err(_) => {}
            }
        }
    }
}

fn broken(error: ApiError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error.to_string())
}

/// The time in front of a line, and the line.
fn split(line: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let Some(space) = line.iter().position(|byte| *byte == b' ') else {
        // An empty line has no space after its time.
        let time = std::str::from_utf8(line)
            .ok()
            .and_then(|time| time.parse().ok());
        return match time {
            Some(time) => (Some(time), &[]),
            None => (None, line),
        };
    };
    let time = std::str::from_utf8(&line[..space])
        .ok()
        .and_then(|time| time.parse().ok());
    match time {
        Some(time) => (Some(time), &line[space + 1..]),
        None => (None, line),
    }
}
