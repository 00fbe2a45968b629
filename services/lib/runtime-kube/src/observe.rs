//! From what is watched to what is observed: which workload an object belongs to, and how each workload does. Pure.
//!
//! `belong.rs` finds the workload of each object, `verdict.rs` reads what Kubernetes says of a workload, `pod.rs` of a
//! Pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baetyl_model::workload::{Instance, Observed, Workload, WorkloadKey, WorkloadState};
use tokio::time::Instant;

use crate::config::KubeConfig;
use crate::seen::{Pod, find};
use crate::world::{Place, Watch, What, World};

mod belong;
mod pod;
#[cfg(test)]
mod tests;
mod verdict;

use belong::Group;
pub(crate) use belong::{Belongings, key, last_words};
use pod::Around;
pub(crate) use pod::words;
use verdict::Verdict;

/// Most bytes of a cause: the end of a program's log can be one.
const MAX_CAUSE: usize = 1024;

/// What observing has to remember: since when something is refused.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    refused: BTreeMap<Place, (i64, Instant)>,
}

/// What is observed, and when to look again although nothing changes.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) observed: Observed,
    pub(crate) again: Option<Instant>,
    /// Namespaces of others that applications of ours were put into.
    pub(crate) namespaces: BTreeSet<String>,
}

/// Looks at the world.
pub(crate) fn observe(
    world: &World,
    config: &KubeConfig,
    server: &str,
    memory: &mut Memory,
    now: Instant,
) -> Look {
    let belongings = Belongings::of(world, config);
    let mut looker = Looker {
        world,
        config,
        memory,
        now,
        again: None,
        refused: BTreeSet::new(),
    };
    let workloads = belongings
        .groups()
        .iter()
        .map(|(key, group)| (key.clone(), looker.workload(key, group)))
        .collect::<BTreeMap<WorkloadKey, Workload>>();
    let unknown = looker.unknown(server);
    let (again, refused) = (looker.again, looker.refused);
    memory.refused.retain(|place, _| refused.contains(place));
    Look {
        observed: Observed { unknown, workloads },
        again,
        namespaces: belongings.foreign(),
    }
}

/// Watches without which nobody can tell.
pub(crate) fn needed(config: &KubeConfig) -> impl Iterator<Item = Watch> + '_ {
    config.namespaces().into_iter().flat_map(|namespace| {
        let needed = What::OF_NAMESPACE
            .into_iter()
            .filter(|what| what.is_needed());
        needed.map(move |what| Watch {
            what,
            namespace: namespace.to_owned(),
        })
    })
}

struct Looker<'a> {
    world: &'a World,
    config: &'a KubeConfig,
    memory: &'a mut Memory,
    now: Instant,
    again: Option<Instant>,
    /// What is refused now.
    refused: BTreeSet<Place>,
}

impl<'a> Looker<'a> {
    fn look_at(&mut self, when: Instant) {
        self.again = Some(self.again.map_or(when, |again| again.min(when)));
    }

    /// Why nobody can tell.
    fn unknown(&mut self, server: &str) -> Option<String> {
        for watch in needed(self.config) {
            let sight = self.world.sights.get(&watch);
            let broken = sight.and_then(|sight| sight.broken.as_ref());
            if !sight.is_some_and(|sight| sight.listed) {
                let plural = watch.what.resource().plural;
                return Some(match broken {
                    Some((_, why)) => why.clone(),
                    None => format!(
                        "the API server at {server} has not told yet which {plural} there are in namespace {}",
                        watch.namespace
                    ),
                });
            }
            if let Some((since, why)) = broken {
                let end = *since + self.config.times.grace;
                if end <= self.now {
                    return Some(why.clone());
                }
                self.look_at(end);
            }
        }
        None
    }

    fn workload(&mut self, key: &WorkloadKey, group: &Group<'a>) -> Workload {
        let pods = self.pods(group);
        let alive = count(pods.iter().filter(|pod| is_alive(pod)).count());
        let mut worst = Verdict::default();
        let mut ends = !group.controllers.is_empty();
        for (place, entry) in &group.controllers {
            let verdict = self.verdict(place, entry, group, alive);
            ends &= verdict.state == WorkloadState::Succeeded;
            worst = worst.or(verdict);
        }
        if let Some(verdict) = group.helm_verdict(&pods) {
            worst = worst.or(verdict);
            ends = false;
        }
        if ends {
            worst.state = WorkloadState::Succeeded;
        } else if worst.state == WorkloadState::Succeeded {
            worst.state = WorkloadState::Active;
        }
        if worst.state == WorkloadState::Active && group.is_ending(&pods) {
            worst.state = WorkloadState::Stopping;
        }
        if worst.message.is_empty() {
            worst.message = group.denied(self.world).unwrap_or_default();
        }
        let (taken, again) = self.world.taken(key, self.now);
        if let Some(again) = again {
            self.look_at(again);
        }
        Workload {
            state: worst.state,
            message: shortened(worst.message),
            taken: taken.unwrap_or_default(),
            wanted: group.wanted(alive),
            instances: self.instances(group, &pods),
        }
    }

    /// The Pods that are told of: not those in whose place others are.
    fn pods(&self, group: &Group<'a>) -> Vec<&'a Pod> {
        let mut pods = group.pods.clone();
        pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        let alive = count(pods.iter().filter(|pod| is_alive(pod)).count());
        let enough = group.wanted(alive).is_none_or(|wanted| alive >= wanted);
        let newest_failed = pods
            .iter()
            .filter(|pod| is_replaced(pod) && &*pod.status.phase == "Failed")
            .max_by_key(|pod| pod.metadata.creation_timestamp)
            .map(|pod| pod.metadata.name.clone());
        pods.retain(|pod| {
            if is_replaced(pod) && !is_alive(pod) && &*pod.status.phase == "Failed" {
                return !enough && newest_failed.as_ref() == Some(&pod.metadata.name);
            }
            if pod.metadata.is_ending() && self.lost(pod).is_some() {
                return !enough;
            }
            group.tells_of(pod)
        });
        pods
    }

    fn instances(&self, group: &Group<'a>, pods: &[&'a Pod]) -> Vec<Arc<Instance>> {
        pods.iter()
            .map(|pod| {
                let lost = self.lost(pod);
                let around = Around {
                    lost: lost.as_deref(),
                    warning: self.world.warning("Pod", &pod.metadata),
                    replaced: is_replaced(pod) || group.tries_again(pod),
                };
                let mut instance = pod::instance(pod, around);
                instance.status.cause = shortened(instance.status.cause);
                if group.is_installer(pod) {
                    // It makes the application; it is not part of what shall be ready.
                    instance.status.ready = false;
                }
                Arc::new(instance)
            })
            .collect()
    }

    /// Why the machine of a Pod is lost, if it is.
    fn lost(&self, pod: &Pod) -> Option<String> {
        let name = &*pod.spec.node_name;
        if name.is_empty() {
            return None;
        }
        let machine = self
            .world
            .machines
            .values()
            .find(|entry| entry.item.metadata.name == *name)?;
        let ready = find(&machine.item.status.conditions, "Ready")?;
        (&*ready.status == "Unknown").then(|| {
            format!(
                "its machine {name} does not answer: {}",
                pod::words(&ready.reason, &ready.message)
            )
        })
    }
}

/// A Pod that its controller replaces when it fails, instead of giving up.
fn is_replaced(pod: &Pod) -> bool {
    pod.metadata.controller().is_some_and(|owner| {
        matches!(
            &*owner.kind,
            "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController"
        )
    })
}

/// A Pod that works or shall work.
fn is_alive(pod: &Pod) -> bool {
    !pod.metadata.is_ending() && !matches!(&*pod.status.phase, "Failed" | "Succeeded")
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The beginning of a text that is too long for a report.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_CAUSE {
        let end = (0..=MAX_CAUSE)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
