//! What is known about nodes right now, in memory. Decisions about "how long" use uptime, never the wall clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baetyl_model::{Namespace, NodeUid};
use bytes::Bytes;
use jiff::Timestamp;

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Live {
    /// By the wall clock, for people.
    pub(super) last_seen: Timestamp,
    /// By the uptime of this machine, for decisions; of one that was not heard of since the start: the start.
    seen: Duration,
    /// It was heard of since the start.
    heard: bool,
    /// The last seen time is in the database.
    flushed: bool,
    /// False once its absence was noticed.
    online: bool,
    /// Encoded `NodeStats`.
    pub(super) stats: Option<Bytes>,
    /// Where its link comes from.
    pub(super) address: Option<IpAddr>,
}

/// A node that came back or went away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) namespace: Namespace,
    pub(super) uid: NodeUid,
    pub(super) online: bool,
}

/// What the database knows about a node that was seen before the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) namespace: Namespace,
    pub(super) uid: NodeUid,
    pub(super) last_seen: Timestamp,
    /// The last event about its presence is not that it went away.
    pub(super) online: bool,
}

/// All nodes that were seen, before the start or since.
#[derive(Debug)]
pub(super) struct LiveNodes {
    /// A node that was not seen for longer is offline.
    patience: Duration,
    nodes: Mutex<HashMap<Namespace, HashMap<NodeUid, Live>>>,
}

impl LiveNodes {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            nodes: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, HashMap<NodeUid, Live>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node gave a sign of life. The transition if it was noticed to be away.
    pub(super) fn seen(
        &self,
        namespace: &Namespace,
        uid: &NodeUid,
        now: Timestamp,
        uptime: Duration,
    ) -> Option<Transition> {
        let mut nodes = self.lock();
        // Two look-ups instead of an entry: no clone of the names for the usual case.
        if let Some(live) = nodes
            .get_mut(namespace)
            .and_then(|nodes| nodes.get_mut(uid))
        {
            let back = !live.online;
            live.last_seen = now;
            live.seen = uptime;
            live.heard = true;
            live.flushed = false;
            live.online = true;
            return back.then(|| Transition {
                namespace: namespace.clone(),
                uid: uid.clone(),
                online: true,
            });
        }
        let live = Live {
            last_seen: now,
            seen: uptime,
            heard: true,
            flushed: false,
            online: true,
            stats: None,
            address: None,
        };
        nodes
            .entry(namespace.clone())
            .or_default()
            .insert(uid.clone(), live);
        None
    }

    /// A node that was seen before the start, unless it was heard of since. `online`: its absence was not noticed.
    pub(super) fn remember(&self, node: Remembered, uptime: Duration) {
        let live = Live {
            last_seen: node.last_seen,
            seen: uptime,
            heard: false,
            flushed: true,
            online: node.online,
            stats: None,
            address: None,
        };
        let mut nodes = self.lock();
        let nodes = nodes.entry(node.namespace).or_default();
        nodes.entry(node.uid).or_insert(live);
    }

    pub(super) fn put_stats(&self, namespace: &Namespace, uid: &NodeUid, stats: Bytes) {
        if let Some(live) = self
            .lock()
            .get_mut(namespace)
            .and_then(|nodes| nodes.get_mut(uid))
        {
            live.stats = Some(stats);
        }
    }

    pub(super) fn put_address(&self, namespace: &Namespace, uid: &NodeUid, address: IpAddr) {
        if let Some(live) = self
            .lock()
            .get_mut(namespace)
            .and_then(|nodes| nodes.get_mut(uid))
        {
            live.address = Some(address);
        }
    }

    pub(super) fn get(&self, namespace: &Namespace, uid: &NodeUid) -> Option<Live> {
        self.lock().get(namespace)?.get(uid).cloned()
    }

    /// Last seen and online of every node of a namespace.
    pub(super) fn of_namespace(
        &self,
        namespace: &Namespace,
        uptime: Duration,
    ) -> HashMap<NodeUid, (Timestamp, bool)> {
        let nodes = self.lock();
        let nodes = nodes.get(namespace).into_iter().flatten();
        nodes
            .map(|(uid, live)| (uid.clone(), (live.last_seen, self.is_online(live, uptime))))
            .collect()
    }

    pub(super) fn is_online(&self, live: &Live, uptime: Duration) -> bool {
        live.heard && uptime.saturating_sub(live.seen) <= self.patience
    }

    pub(super) fn forget(&self, namespace: &Namespace, uid: &NodeUid) {
        if let Some(nodes) = self.lock().get_mut(namespace) {
            nodes.remove(uid);
        }
    }

    /// Nodes that went away since the last sweep.
    pub(super) fn sweep(&self, uptime: Duration) -> Vec<Transition> {
        let mut gone = Vec::new();
        for (namespace, nodes) in self.lock().iter_mut() {
            for (uid, live) in nodes.iter_mut() {
                if live.online && uptime.saturating_sub(live.seen) > self.patience {
                    live.online = false;
                    gone.push(Transition {
                        namespace: namespace.clone(),
                        uid: uid.clone(),
                        online: false,
                    });
                }
            }
        }
        gone
    }

    /// Times that are not in the database yet; they count as written from now on.
    pub(super) fn take_unflushed(&self) -> Vec<(Namespace, NodeUid, Timestamp)> {
        let mut times = Vec::new();
        for (namespace, nodes) in self.lock().iter_mut() {
            for (uid, live) in nodes.iter_mut().filter(|(_, live)| !live.flushed) {
                live.flushed = true;
                times.push((namespace.clone(), uid.clone(), live.last_seen));
            }
        }
        times
    }
}
