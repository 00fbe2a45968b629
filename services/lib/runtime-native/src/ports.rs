//! Ports and users that are handed to instances. The caller remembers what it was given and brings it back after a
//! restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use baetyl_model::AppName;

use crate::spec::{DEFAULT_PORTS, InstanceId, Instances as _, RunAs, WorkloadKey};

/// No port of the range is free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} more ports are needed for {id} and only {found} of {first}-{last} are free: widen the range of ports"
)]
pub struct PortsExhausted {
    id: String,
    wanted: usize,
    found: usize,
    first: u16,
    last: u16,
}

/// Ports of a range, each handed out once.
#[derive(Debug)]
pub struct PortPool {
    range: RangeInclusive<u16>,
    state: Mutex<Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    held: BTreeMap<InstanceId, Vec<u16>>,
    taken: BTreeSet<u16>,
    /// Where the next search begins: a port just given back is the last to be handed out again.
    next: usize,
}

impl Default for PortPool {
    fn default() -> Self {
        Self::new(DEFAULT_PORTS)
    }
}

impl PortPool {
    /// A pool over this range.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ports> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ports for an instance: the `previous` ones as far as they are free, then others that can be bound on 127.0.0.1.
    /// What it holds already is answered again. `adopt`: it may be running and hold the previous ports itself, so these
    /// are not tried.
    pub fn assign(
        &self,
        id: &InstanceId,
        count: usize,
        previous: &[u16],
        adopt: bool,
    ) -> Result<Vec<u16>, PortsExhausted> {
        let mut ports = self.lock();
        let mut given = ports.held.get(id).cloned().unwrap_or_default();
        given.truncate(count);
        for port in previous {
            if given.len() < count && !ports.taken.contains(port) && (adopt || is_free(*port)) {
                ports.taken.insert(*port);
                given.push(*port);
            }
        }
        let (size, start) = (self.range.len(), ports.next);
        for step in 0..size {
            if given.len() == count {
                break;
            }
            let place = (start + step) % size;
            let Some(port) = self.range.clone().nth(place) else {
                break;
            };
            if !ports.taken.contains(&port) && is_free(port) {
                ports.taken.insert(port);
                ports.next = (place + 1) % size;
                given.push(port);
            }
        }
        if given.len() < count {
            let held = ports.held.get(id).cloned().unwrap_or_default();
            for port in given.iter().filter(|port| !held.contains(port)) {
                ports.taken.remove(port);
            }
            let (wanted, found) = (
                count - held.len().min(count),
                given.len() - held.len().min(given.len()),
            );
            let (first, last) = (*self.range.start(), *self.range.end());
            return Err(PortsExhausted {
                id: id.to_string(),
                wanted,
                found,
                first,
                last,
            });
        }
        ports.held.insert(id.clone(), given.clone());
        Ok(given)
    }

    /// Gives back the ports of all instances of a workload.
    pub fn release(&self, key: &WorkloadKey) {
        let mut ports = self.lock();
        let ids: Vec<InstanceId> = ports
            .held
            .range(key.instance(0)..=key.instance(u32::MAX))
            .map(|(id, _)| id.clone())
            .collect();
        for port in ids
            .iter()
            .filter_map(|id| ports.held.remove(id))
            .collect::<Vec<_>>()
            .concat()
        {
            ports.taken.remove(&port);
        }
    }
}

/// Tried by binding. SO_REUSEADDR, which std sets, lets a port in TIME_WAIT through, as it lets the application.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// No user id of the range is free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("all user ids {first}-{last} are in use, {app} gets none: widen the range of user ids")]
pub struct UidsExhausted {
    app: String,
    first: u32,
    last: u32,
}

/// User ids of a range, one for each application; the group id is the same number.
#[derive(Debug)]
pub struct UidPool {
    range: RangeInclusive<u32>,
    held: Mutex<BTreeMap<AppName, u32>>,
}

impl UidPool {
    /// A pool over this range.
    pub fn new(range: RangeInclusive<u32>) -> Self {
        Self {
            range,
            held: Mutex::default(),
        }
    }

    /// The user of an application: the one it holds, else the `previous` one when it is free, else another. Files of an
    /// application belong to its user, so the caller must bring the number back after a restart.
    pub fn assign(&self, app: &AppName, previous: Option<u32>) -> Result<RunAs, UidsExhausted> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |uid: &u32| !held.values().any(|taken| taken == uid);
        let uid = held
            .get(app)
            .copied()
            .or_else(|| previous.filter(|uid| self.range.contains(uid)).filter(free))
            .or_else(|| self.range.clone().find(free));
        let Some(uid) = uid else {
            return Err(UidsExhausted {
                app: app.to_string(),
                first: *self.range.start(),
                last: *self.range.end(),
            });
        };
        held.insert(app.clone(), uid);
        Ok(RunAs { uid, gid: uid })
    }

    /// Gives back the user of an application that is gone with all its files.
    pub fn release(&self, app: &AppName) {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(app);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(app: &str) -> WorkloadKey {
        WorkloadKey {
            namespace: "baetyl-edge".try_into().unwrap(),
            app: app.try_into().unwrap(),
            version: "1".try_into().unwrap(),
            service: "main".try_into().unwrap(),
        }
    }

    /// A range of three ports nobody listens on, found by asking the kernel. Each test looks from another port on, below
    /// those that the kernel gives to outgoing connections.
    fn free_range(from: u16) -> RangeInclusive<u16> {
        let start = (from..from + 1000)
            .step_by(3)
            .find(|port| (0..3).all(|n| is_free(port + n)))
            .unwrap();
        start..=start + 2
    }

    #[test]
    fn ports_differ_and_stay_and_end() {
        let pool = PortPool::new(free_range(21_000));
        let (one, two) = (key("one").instance(1), key("two").instance(1));
        let first = pool.assign(&one, 2, &[], false).unwrap();
        assert_eq!(pool.assign(&one, 2, &[], false).unwrap(), first);
        let second = pool.assign(&two, 1, &[], false).unwrap();
        assert!(!first.contains(&second[0]));
        let error = pool.assign(&two, 2, &[], false).unwrap_err();
        assert_eq!((error.wanted, error.found), (1, 0));
        pool.release(&one.workload);
        assert_eq!(pool.assign(&two, 2, &[], false).unwrap()[0], second[0]);
    }

    #[test]
    fn a_failed_assignment_keeps_nothing() {
        let pool = PortPool::new(free_range(22_000));
        pool.assign(&key("one").instance(1), 4, &[], false)
            .unwrap_err();
        assert_eq!(
            pool.assign(&key("two").instance(1), 3, &[], false)
                .unwrap()
                .len(),
            3
        );
    }

    #[test]
    fn a_port_that_is_listened_on_is_only_given_to_who_may_be_the_listener() {
        let range = free_range(23_000);
        let port = *range.start();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let id = key("one").instance(1);
        assert_ne!(
            PortPool::new(range.clone())
                .assign(&id, 1, &[port], false)
                .unwrap(),
            [port]
        );
        assert_eq!(
            PortPool::new(range).assign(&id, 1, &[port], true).unwrap(),
            [port]
        );
    }

    #[test]
    fn a_previous_port_outside_the_range_is_kept() {
        let outside = *free_range(24_000).start();
        let pool = PortPool::new(1..=1);
        assert_eq!(
            pool.assign(&key("one").instance(1), 1, &[outside], false)
                .unwrap(),
            [outside]
        );
    }

    #[test]
    fn each_application_has_its_user() {
        let pool = UidPool::new(60_000..=60_001);
        let (one, two, three) = (key("one").app, key("two").app, key("three").app);
        assert_eq!(
            pool.assign(&one, Some(60_001)).unwrap(),
            RunAs {
                uid: 60_001,
                gid: 60_001
            }
        );
        assert_eq!(pool.assign(&two, Some(60_001)).unwrap().uid, 60_000);
        assert_eq!(pool.assign(&one, None).unwrap().uid, 60_001);
        assert!(
            pool.assign(&three, None)
                .unwrap_err()
                .to_string()
                .contains("60000-60001")
        );
        pool.release(&one);
        assert_eq!(pool.assign(&three, Some(5)).unwrap().uid, 60_001);
    }
}
