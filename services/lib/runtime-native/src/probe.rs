//! Probes: asks whether an instance has started, lives and serves, with Kubernetes' times and thresholds.

use std::sync::Arc;
use std::time::Duration;

use baetyl_model::resource::{Port, Probe, probe::ProbeTiming};
use http::{HeaderName, HeaderValue, Uri};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

use crate::exec::Environment;
use crate::spec::{InstancePort, InstanceSpec};

mod ask;
#[cfg(test)]
mod tests;

/// A probe that native mode cannot ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {which} probe cannot be asked: {why}")]
pub(crate) struct ProbeError {
    which: &'static str,
    why: String,
}

/// What is asked.
#[derive(Debug, Clone)]
enum Question {
    Http {
        host: String,
        port: u16,
        uri: Uri,
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    Tcp {
        host: String,
        port: u16,
    },
    Exec {
        command: Vec<String>,
    },
}

/// One probe, ready to be asked.
#[derive(Debug, Clone)]
struct Asked {
    question: Question,
    timing: ProbeTiming,
    grace: Option<Duration>,
}

/// All probes of an instance, ready to be asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probes {
    startup: Option<Asked>,
    liveness: Option<Asked>,
    readiness: Option<Asked>,
}

/// What probes found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The startup probe passed.
    Started,
    /// The startup probe failed as often as it may: end it, with this grace.
    NotStarted {
        why: String,
        grace: Option<Duration>,
    },
    /// The liveness probe failed as often as it may: end it, with this grace.
    Dead {
        why: String,
        grace: Option<Duration>,
    },
    /// The readiness probe passed as often as it must.
    Ready,
    /// The readiness probe failed as often as it may, or once before it ever passed.
    NotReady { why: String },
}

impl Probes {
    /// Reads the probes of a spec.
    pub(crate) fn read(spec: &InstanceSpec) -> Result<Self, ProbeError> {
        let read = |which, probe: &Option<Probe>| {
            let asked = probe.as_ref().map(|probe| Asked::read(probe, &spec.ports));
            asked.transpose().map_err(|why| ProbeError { which, why })
        };
        Ok(Self {
            startup: read("startup", &spec.startup)?,
            liveness: read("liveness", &spec.liveness)?,
            readiness: read("readiness", &spec.readiness)?,
        })
    }

    /// True when nothing is to be found out before an instance counts as started.
    pub(crate) fn starts_at_once(&self) -> bool {
        self.startup.is_none()
    }

    /// True when an instance is ready as soon as it has started.
    pub(crate) fn ready_at_once(&self) -> bool {
        self.readiness.is_none()
    }

    /// Asks until the receiver is dropped. `running`: it has been running for long (adopted): no initial delay.
    pub(crate) async fn ask(
        self,
        environment: Arc<Environment>,
        running: bool,
        found: mpsc::Sender<Finding>,
    ) {
        if let Some(startup) = &self.startup
            && !until_started(startup, &environment, running, &found).await
        {
            return;
        }
        let liveness = async {
            if let Some(liveness) = &self.liveness {
                while_alive(liveness, &environment, running, &found).await;
            }
        };
        let readiness = async {
            if let Some(readiness) = &self.readiness {
                while_asked(readiness, &environment, running, &found).await;
            }
        };
        tokio::join!(liveness, readiness);
    }
}

impl Asked {
    fn read(probe: &Probe, ports: &[InstancePort]) -> Result<Self, String> {
        if probe.actions() != 1 {
            return Err(format!(
                "it has {} actions, it needs exactly one of httpGet, tcpSocket and exec",
                probe.actions()
            ));
        }
        let host = |given: &str| {
            if given.is_empty() {
                "127.0.0.1".to_owned()
            } else {
                given.to_owned()
            }
        };
        let question = if let Some(action) = &probe.exec {
            if action.command.is_empty() {
                return Err("its command is empty".to_owned());
            }
            Question::Exec {
                command: action.command.clone(),
            }
        } else if let Some(action) = &probe.http_get {
            if !matches!(action.scheme.to_ascii_uppercase().as_str(), "" | "HTTP") {
                return Err(format!(
                    "scheme {} is not supported in native mode, use HTTP",
                    action.scheme
                ));
            }
            let path = if action.path.starts_with('/') {
                action.path.clone()
            } else {
                format!("/{}", action.path)
            };
            let uri = path
                .parse()
                .map_err(|cause| format!("\"{path}\" is no path: {cause}"))?;
            let header = |name: &str, value: &str| Some((name.parse().ok()?, value.parse().ok()?));
            let headers = action.http_headers.iter().map(|given| {
                header(&given.name, &given.value)
                    .ok_or_else(|| format!("\"{}: {}\" is no header", given.name, given.value))
            });
            let headers = headers.collect::<Result<_, _>>()?;
            Question::Http {
                host: host(&action.host),
                port: resolve(&action.port, ports)?,
                uri,
                headers,
            }
        } else if let Some(action) = &probe.tcp_socket {
            Question::Tcp {
                host: host(&action.host),
                port: resolve(&action.port, ports)?,
            }
        } else {
            return Err(
                "grpc is not supported in native mode, use httpGet, tcpSocket or exec".to_owned(),
            );
        };
        let grace = probe
            .termination_grace_period_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Self {
            question,
            timing: probe.timing(),
            grace: grace.map(Duration::from_secs),
        })
    }

    /// Asks once; an error says why the answer is bad.
    async fn once(&self, environment: &Environment) -> Result<(), String> {
        let limit = Duration::from_secs(self.timing.timeout.into());
        let answer = async {
            match &self.question {
                Question::Http {
                    host,
                    port,
                    uri,
                    headers,
                } => ask::http(host, *port, uri, headers).await,
                Question::Tcp { host, port } => ask::tcp(host, *port).await,
                Question::Exec { command } => ask::exec(environment, command).await,
            }
        };
        timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
    }

    /// The times of the questions.
    async fn first_tick(&self, running: bool) -> tokio::time::Interval {
        let delay = if running {
            0
        } else {
            self.timing.initial_delay
        };
        sleep(Duration::from_secs(delay.into())).await;
        let period = Duration::from_secs(self.timing.period.max(1).into());
        let mut ticks = interval_at(tokio::time::Instant::now(), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}

/// A port by number (then where it really is) or by name.
fn resolve(port: &Port, ports: &[InstancePort]) -> Result<u16, String> {
    if let Some(number) = port.number() {
        let declared = ports.iter().find(|known| known.declared == number);
        return Ok(declared.map_or(number, |known| known.port));
    }
    match port {
        Port::Name(name) if !name.is_empty() => ports
            .iter()
            .find(|known| known.name == *name)
            .map(|known| known.port)
            .ok_or_else(|| format!("there is no port named \"{name}\"")),
        _ => Err("it has no port".to_owned()),
    }
}

/// True: it started. False: it did not, or nobody listens any more.
async fn until_started(
    probe: &Asked,
    environment: &Environment,
    running: bool,
    found: &mpsc::Sender<Finding>,
) -> bool {
    let mut ticks = probe.first_tick(running).await;
    let mut count = Count::new(&probe.timing, false);
    loop {
        ticks.tick().await;
        let answer = probe.once(environment).await;
        match (count.take(answer.is_ok()), answer) {
            (Some(true), _) => return found.send(Finding::Started).await.is_ok(),
            (Some(false), Err(why)) => {
                let _ = found
                    .send(Finding::NotStarted {
                        why,
                        grace: probe.grace,
                    })
                    .await;
                return false;
            }
            _ => {}
        }
    }
}

async fn while_alive(
    probe: &Asked,
    environment: &Environment,
    running: bool,
    found: &mpsc::Sender<Finding>,
) {
    let mut ticks = probe.first_tick(running).await;
    let mut count = Count::new(&probe.timing, true);
    loop {
        ticks.tick().await;
        let answer = probe.once(environment).await;
        if let (Some(false), Err(why)) = (count.take(answer.is_ok()), answer) {
            let _ = found
                .send(Finding::Dead {
                    why,
                    grace: probe.grace,
                })
                .await;
            return;
        }
    }
}

async fn while_asked(
    probe: &Asked,
    environment: &Environment,
    running: bool,
    found: &mpsc::Sender<Finding>,
) {
    let mut ticks = probe.first_tick(running).await;
    let mut count = Count::new(&probe.timing, false);
    let mut told = false;
    loop {
        ticks.tick().await;
        let answer = probe.once(environment).await;
        let finding = match (count.take(answer.is_ok()), answer) {
            (Some(true), _) => Finding::Ready,
            (Some(false), Err(why)) => Finding::NotReady { why },
            // Not ready from the start: say why as soon as it is known.
            (None, Err(why)) if !told && !count.state => Finding::NotReady { why },
            _ => continue,
        };
        told = true;
        if found.send(finding).await.is_err() {
            return;
        }
    }
}

/// Answers in a row, against thresholds.
#[derive(Debug)]
struct Count {
    state: bool,
    row: u32,
    last: bool,
    success: u32,
    failure: u32,
    decided: bool,
}

impl Count {
    fn new(timing: &ProbeTiming, state: bool) -> Self {
        Self {
            state,
            row: 0,
            last: state,
            success: timing.success,
            failure: timing.failure,
            decided: false,
        }
    }

    /// Takes an answer; `Some` when it decides something new.
    fn take(&mut self, good: bool) -> Option<bool> {
        self.row = if good == self.last {
            self.row.saturating_add(1)
        } else {
            1
        };
        self.last = good;
        let enough = self.row >= if good { self.success } else { self.failure };
        if !enough || (self.decided && good == self.state) {
            return None;
        }
        self.decided = true;
        self.state = good;
        Some(good)
    }
}
