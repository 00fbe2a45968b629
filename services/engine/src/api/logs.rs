//! Logs of instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use baetyl_kit::resume;
use baetyl_model::workload::InstanceId;
use baetyl_proto::engine::{WatchLogsRequest, WatchLogsResponse};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tonic::Status;

use super::Answers;
use crate::act;
use crate::board::AppView;
use crate::context::Context;
use crate::ports::{LogError, LogPosition, LogStart, Ports, Runtime as _};

/// Lines from the end when the caller does not say.
const TAIL: usize = 200;

/// Tells tokens of this process from those of another one, in which positions mean something else.
#[derive(Debug, Clone)]
pub(crate) struct Start(Arc<str>);

impl Start {
    pub(crate) fn new() -> Self {
        Self(resume::start_id().into())
    }
}

/// How far the logs of a stream were read, by instance. As a token: `<start>;<instance>=<position>;…`
#[derive(Debug, Clone)]
struct Positions {
    start: Start,
    read: BTreeMap<String, LogPosition>,
}

impl Positions {
    /// None when the token was not given by this process.
    fn parse(start: &Start, token: &str) -> Option<Self> {
        let mut parts = token.split(';');
        if parts.next()? != &*start.0 {
            return None;
        }
        let one = |part: &str| {
            let (instance, position) = part.split_once('=')?;
            Some((instance.to_owned(), LogPosition(position.to_owned())))
        };
        Some(Self {
            start: start.clone(),
            read: parts.map(one).collect::<Option<_>>()?,
        })
    }

    fn token(&self) -> String {
        let mut token = self.start.0.to_string();
        for (instance, position) in &self.read {
            token.push_str(&format!(";{instance}={}", position.0));
        }
        token
    }

    /// A piece of a log, up to this position.
    fn answer(&mut self, instance: &str, data: Bytes, read: LogPosition) -> WatchLogsResponse {
        self.read.insert(instance.to_owned(), read);
        WatchLogsResponse {
            instance: instance.to_owned(),
            data,
            time: None,
            resume_token: self.token(),
        }
    }
}

/// The last lines of one or all instances, or what they wrote since the token; then what follows when asked.
pub(crate) async fn watch<P: Ports>(
    ctx: &Context<P>,
    start: &Start,
    view: &AppView,
    request: &WatchLogsRequest,
) -> Result<Answers<WatchLogsResponse>, Status> {
    let mut ids = instances(ctx, view).await?;
    if !request.instance.is_empty() {
        ids.retain(|id| id.to_string() == request.instance);
        if ids.is_empty() {
            return Err(Status::not_found(format!(
                "{} has no instance {:?}",
                request.app, request.instance
            )));
        }
    }
    let resumed = match request.resume_token.as_str() {
        "" => None,
        token => Some(Positions::parse(start, token).ok_or_else(resume::too_old)?),
    };
    let streams: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let name = id.to_string();
            let begin = begin(request, resumed.as_ref(), &name);
            let log = ctx.runtime.logs(&id, begin, request.follow);
            log.map(move |piece| (name.clone(), piece))
        })
        .collect();
    let mut positions = resumed.unwrap_or_else(|| Positions {
        start: start.clone(),
        read: BTreeMap::new(),
    });
    let answers = stream::select_all(streams).map(move |(name, piece)| match piece {
        Ok((bytes, read)) => Ok(positions.answer(&name, bytes, read)),
        Err(error) => Err(unreadable(&name, &error)),
    });
    Ok(Box::pin(answers))
}

/// Of an instance that came after the token was given everything is new.
fn begin(request: &WatchLogsRequest, resumed: Option<&Positions>, instance: &str) -> LogStart {
    match (resumed, request.tail_lines) {
        (Some(resumed), _) => resumed
            .read
            .get(instance)
            .map_or(LogStart::Tail(usize::MAX), |read| {
                LogStart::After(read.clone())
            }),
        (None, 0) => LogStart::Tail(TAIL),
        (None, lines) => LogStart::Tail(usize::try_from(lines).unwrap_or(usize::MAX)),
    }
}

fn unreadable(instance: &str, error: &LogError) -> Status {
    match error {
        LogError::TooOld => resume::too_old(),
        LogError::Failed(error) => {
            Status::internal(format!("the log of {instance} cannot be read: {error}"))
        }
    }
}

/// Instances the runtime supervises; of a version that failed the log stays readable until another one has settled.
async fn instances<P: Ports>(ctx: &Context<P>, view: &AppView) -> Result<Vec<InstanceId>, Status> {
    let observed = ctx.runtime.observed();
    let app = view.update.app();
    let supervised = observed.workloads.iter().filter(|(key, _)| key.app == *app);
    let mut ids: Vec<InstanceId> = supervised
        .flat_map(|(key, workload)| {
            workload.instances.iter().map(|instance| InstanceId {
                workload: key.clone(),
                name: instance.status.name.clone(),
            })
        })
        .collect();
    let known = act::known(ctx, app)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let unsupervised = known
        .iter()
        .filter(|key| !observed.workloads.contains_key(key));
    ids.extend(unsupervised.flat_map(|key| ctx.runtime.unsupervised_logs(key)));
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> LogPosition {
        LogPosition(text.to_owned())
    }

    #[test]
    fn a_token_names_the_position_in_each_log() {
        let start = Start::new();
        let mut positions = Positions::parse(&start, &start.0).unwrap();
        let piece = Bytes::from_static(b"x");
        let first = positions.answer("ns.a.1.web.1", piece.clone(), position("a=3:7,b=1"));
        let second = positions.answer("ns.a.1.web.2", piece, position("0:2"));
        let read = |token: &str| Positions::parse(&start, token).unwrap().read;
        assert_eq!(
            read(&first.resume_token),
            BTreeMap::from([("ns.a.1.web.1".to_owned(), position("a=3:7,b=1"))])
        );
        assert_eq!(read(&second.resume_token).len(), 2);
    }

    #[test]
    fn a_token_of_another_start_or_of_nobody_means_nothing() {
        let (start, other) = (Start::new(), Start::new());
        let own = |rest: &str| Positions::parse(&start, &format!("{}{rest}", start.0));
        assert!(own(";a=1:2").is_some());
        assert!(Positions::parse(&start, &format!("{};a=1:2", other.0)).is_none());
        for malformed in [";", ";a"] {
            assert!(own(malformed).is_none(), "{malformed}");
        }
    }

    #[test]
    fn reading_begins_where_the_caller_stopped_and_at_the_beginning_of_what_is_new() {
        let start = Start::new();
        let request = WatchLogsRequest {
            tail_lines: 7,
            ..WatchLogsRequest::default()
        };
        let resumed = Positions::parse(&start, &format!("{};a=1:2", start.0)).unwrap();
        let begin_of = |name| begin(&request, Some(&resumed), name);
        assert_eq!(begin_of("a"), LogStart::After(position("1:2")));
        assert_eq!(begin_of("b"), LogStart::Tail(usize::MAX));
        assert_eq!(begin(&request, None, "a"), LogStart::Tail(7));
        let unsaid = WatchLogsRequest::default();
        assert_eq!(begin(&unsaid, None, "a"), LogStart::Tail(TAIL));
    }
}
