//! A Pod in the words of the report.

use baetyl_model::report::{ContainerStatus, InstancePort, InstanceStatus, RunStatus};
use baetyl_model::workload::Instance;

use crate::seen::{Container, ContainerSeen, Pod, Terminated, Warning, find};

/// What decides about a Pod besides itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Around<'a> {
    /// Why its machine is lost, if it is.
    pub(super) lost: Option<&'a str>,
    /// What Kubernetes warned of last.
    pub(super) warning: Option<&'a Warning>,
    /// Its controller makes another one in its place when it fails.
    pub(super) replaced: bool,
}

/// The report's view of a Pod.
pub(super) fn instance(pod: &Pod, around: Around<'_>) -> Instance {
    let (run, cause, hopeless) = judge(pod, around);
    let status = InstanceStatus {
        name: pod.metadata.name.clone(),
        status: run,
        cause,
        ip: pod.status.pod_ip.to_string(),
        node_name: pod.spec.node_name.to_string(),
        start_time: pod.status.start_time,
        restarts: restarts(pod),
        ports: ports(pod),
        containers: containers(&pod.spec.containers, &pod.status.container_statuses),
        init_containers: containers(
            &pod.spec.init_containers,
            &pod.status.init_container_statuses,
        ),
        ready: run == RunStatus::Running && !pod.metadata.is_ending() && is_ready(pod),
        ..InstanceStatus::default()
    };
    Instance { status, hopeless }
}

fn is_ready(pod: &Pod) -> bool {
    find(&pod.status.conditions, "Ready").is_some_and(|ready| &*ready.status == "True")
}

/// How often its containers were started again, all together.
fn restarts(pod: &Pod) -> u32 {
    let status = &pod.status;
    let all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses);
    all.map(|container| container.restart_count)
        .fold(0, u32::saturating_add)
}

/// Ports of all containers: where each is on the machine, or else at the address of the Pod.
fn ports(pod: &Pod) -> Vec<InstancePort> {
    let ports = pod
        .spec
        .containers
        .iter()
        .flat_map(|container| &container.ports);
    ports
        .map(|port| InstancePort {
            name: port.name.to_string(),
            container_port: port.container_port,
            port: if port.host_port > 0 {
                port.host_port
            } else {
                port.container_port
            },
            protocol: match &*port.protocol {
                "" => "TCP".to_owned(),
                protocol => protocol.to_owned(),
            },
        })
        .collect()
}

/// Each container of the spec with what is known of it: before the Pod is on a machine that is nothing.
fn containers(wanted: &[Container], seen: &[ContainerSeen]) -> Vec<ContainerStatus> {
    wanted
        .iter()
        .map(|container| {
            let seen = seen.iter().find(|seen| seen.name == container.name);
            let (state, reason) = seen.map_or(("Waiting", String::new()), state);
            ContainerStatus {
                name: container.name.to_string(),
                state: state.to_owned(),
                reason,
                restarts: seen.map_or(0, |seen| seen.restart_count),
            }
        })
        .collect()
}

fn state(seen: &ContainerSeen) -> (&'static str, String) {
    let state = &seen.state;
    if let Some(waiting) = &state.waiting {
        ("Waiting", waiting.reason.to_string())
    } else if let Some(terminated) = &state.terminated {
        ("Terminated", end(terminated))
    } else if state.running.is_some() {
        ("Running", String::new())
    } else {
        ("Waiting", String::new())
    }
}

/// A word for an end; Kubernetes does not always have one.
fn end(terminated: &Terminated) -> String {
    match (&*terminated.reason, terminated.signal) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Status, cause and whether trying again is of no use.
fn judge(pod: &Pod, around: Around<'_>) -> (RunStatus, String, bool) {
    let phase = &*pod.status.phase;
    if let Some(lost) = around.lost {
        return (RunStatus::Unknown, lost.to_owned(), false);
    }
    if pod.metadata.is_ending() && phase != "Succeeded" {
        // Neither good nor bad for what shall run: `ready` is false, and Running asks for nothing.
        let words = "it is being ended".to_owned();
        return (RunStatus::Running, words, false);
    }
    match phase {
        "Succeeded" => (RunStatus::Succeeded, String::new(), false),
        "Failed" => failed(pod, around),
        "Pending" | "Running" => working(pod, around),
        _ => {
            let words = words(&pod.status.reason, &pod.status.message);
            (RunStatus::Unknown, words, false)
        }
    }
}

/// A Pod that ended badly is not started again, only replaced.
fn failed(pod: &Pod, around: Around<'_>) -> (RunStatus, String, bool) {
    let troubles = troubles(pod);
    let of_container = troubles.iter().find(|trouble| trouble.is_end);
    let cause = match (&*pod.status.reason, of_container) {
        ("", Some(trouble)) => trouble.cause.clone(),
        ("", None) if pod.status.message.is_empty() => "the Pod failed".to_owned(),
        (reason, _) => words(reason, &pod.status.message),
    };
    let hopeless = troubles.iter().any(|trouble| trouble.hopeless);
    // These say something of the machine, nothing of the program.
    let driven_out = matches!(
        &*pod.status.reason,
        "Evicted" | "NodeLost" | "NodeShutdown" | "Terminated" | "Preempting" | "Shutdown"
    );
    let run = match (driven_out, around.replaced) {
        (true, _) => RunStatus::Unknown,
        (false, true) => RunStatus::Pending,
        (false, false) => RunStatus::Failed,
    };
    (run, cause, hopeless)
}

/// A Pod that runs or shall run.
fn working(pod: &Pod, around: Around<'_>) -> (RunStatus, String, bool) {
    let troubles = troubles(pod);
    let hopeless = troubles.iter().any(|trouble| trouble.hopeless);
    let warning = around
        .warning
        .map(|warning| words(&warning.reason, &warning.message));
    if let Some(worst) = troubles.iter().max_by_key(|trouble| trouble.weight) {
        // "ContainerCreating" says less than what keeps it from being created.
        let cause = match warning {
            Some(warning) if worst.weight == Weight::Starting => warning,
            _ => worst.cause.clone(),
        };
        return (RunStatus::Pending, cause, hopeless);
    }
    if &*pod.status.phase == "Pending" {
        let cause = warning.unwrap_or_else(|| unscheduled(pod));
        return (RunStatus::Pending, cause, false);
    }
    if is_ready(pod) {
        return (RunStatus::Running, String::new(), false);
    }
    let cause = warning.unwrap_or_else(|| match not_ready(pod) {
        Some(container) => format!("container {container} is not ready"),
        None => "not ready".to_owned(),
    });
    (RunStatus::Running, cause, false)
}

fn not_ready(pod: &Pod) -> Option<&str> {
    let mut all = pod.status.container_statuses.iter();
    all.find(|container| !container.ready)
        .map(|container| &*container.name)
}

/// The scheduler's words.
fn unscheduled(pod: &Pod) -> String {
    find(&pod.status.conditions, "PodScheduled")
        .filter(|scheduled| &*scheduled.status == "False")
        .map_or_else(
            || words(&pod.status.reason, &pod.status.message),
            |scheduled| words(&scheduled.reason, &scheduled.message),
        )
}

/// Why a container does not run.
struct Trouble {
    weight: Weight,
    cause: String,
    /// It ended, and badly.
    is_end: bool,
    hopeless: bool,
}

/// What is told of several troubles: the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// It is on its way.
    Starting,
    /// It waits for something, or is to be started again.
    Waiting,
}

/// What keeps containers from running. An end that is none of a trouble (an init container that is done, a container
/// that ended well and is not to run again) is not among them.
fn troubles(pod: &Pod) -> Vec<Trouble> {
    let always = matches!(&*pod.spec.restart_policy, "" | "Always");
    let init = pod.status.init_container_statuses.iter().map(|seen| {
        let spec = pod.spec.init_containers.iter();
        let beside = spec
            .filter(|container| container.name == seen.name)
            .any(|container| container.restart_policy.as_deref() == Some("Always"));
        ("init container", beside, seen)
    });
    let main = pod
        .status
        .container_statuses
        .iter()
        .map(|seen| ("container", always, seen));
    init.chain(main)
        .filter_map(|(what, again, seen)| trouble(what, again, seen))
        .collect()
}

fn trouble(what: &str, again: bool, seen: &ContainerSeen) -> Option<Trouble> {
    let name = &seen.name;
    if let Some(terminated) = &seen.state.terminated {
        let bad = terminated.exit_code != 0 || terminated.signal != 0;
        if !bad && !again {
            return None;
        }
        return Some(Trouble {
            weight: Weight::Waiting,
            cause: format!("{what} {name} {}", ended(terminated)),
            is_end: bad,
            hopeless: never_starts(&terminated.reason, &terminated.message),
        });
    }
    let waiting = seen.state.waiting.as_ref()?;
    let last = seen.last_state.terminated.as_ref();
    let starting = matches!(
        &*waiting.reason,
        "" | "ContainerCreating" | "PodInitializing"
    );
    let mut cause = format!(
        "{what} {name}: {}",
        words(&waiting.reason, &waiting.message)
    );
    if let Some(last) = last {
        cause = format!(
            "{what} {name} {}; {}",
            ended(last),
            words(&waiting.reason, "")
        );
    }
    let hopeless = never_starts(&waiting.reason, &waiting.message)
        || last.is_some_and(|last| never_starts(&last.reason, &last.message));
    Some(Trouble {
        weight: if starting && last.is_none() {
            Weight::Starting
        } else {
            Weight::Waiting
        },
        cause,
        is_end: false,
        hopeless,
    })
}

/// How it ended, as the end of a sentence.
fn ended(terminated: &Terminated) -> String {
    let mut text = format!(
        "ended: {}, exit code {}",
        end(terminated),
        terminated.exit_code
    );
    let message = terminated.message.trim();
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(message);
    }
    text
}

/// A word and a sentence of Kubernetes, as far as there are any.
pub(crate) fn words(reason: &str, message: &str) -> String {
    match (reason, message.trim()) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

/// Whether what Kubernetes says of a container will not change by itself while its Pod stays what it is.
///
/// Only what nobody can mend from outside counts: an image that is not there may be pushed, a ConfigMap that is missing
/// may be made, a crash may be due to something that is not up yet. What cannot be mended is a name that is none, an
/// image without our architecture, a program that is not in the image or is one of another machine, a key that an
/// immutable ConfigMap or Secret does not have, and a user that the Pod's own rules forbid.
fn never_starts(reason: &str, message: &str) -> bool {
    let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    match reason {
        "InvalidImageName" => true,
        "ErrImagePull" | "ImagePullBackOff" => says(&[
            "no match for platform in manifest",
            "no matching manifest for",
            "does not match the specified platform",
        ]),
        "CreateContainerConfigError" => says(&[
            "couldn't find key",
            "references non-existent config key",
            "references non-existent secret key",
            "container has runAsNonRoot and image",
            "container's runAsUser breaks non-root policy",
        ]),
        // Only what the container runtime says of the program itself: a program's own last words may be the same, and a
        // directory to mount may come.
        "CreateContainerError" | "RunContainerError" | "StartError" | "ContainerCannotRun" => {
            message.contains("exec: \"")
                && says(&[
                    "exec format error",
                    "executable file not found in $PATH",
                    ": no such file or directory: unknown",
                    ": permission denied: unknown",
                ])
        }
        _ => false,
    }
}
