//! How one version of an application takes over from the one before.

use serde::{Deserialize, Serialize};

use super::{Application, VolumeSource, label};

#[cfg(test)]
mod tests;

/// How one version takes over from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The new instances run and are ready before the old ones stop.
    #[default]
    Rolling,
    /// The old instances stop before the new ones start: both cannot have the same port, files or identity.
    Recreate,
}

impl Application {
    /// How one version takes over from another.
    ///
    /// Two versions side by side need their own ports and must not write to the same directory. The label decides where
    /// the application itself knows better, except over a port of the machine, which has one owner.
    pub fn strategy(&self) -> Strategy {
        if self.has_ports_of_the_machine() {
            return Strategy::Recreate;
        }
        match self.labels.get(label::UPDATE_STRATEGY).map(String::as_str) {
            Some("recreate") => return Strategy::Recreate,
            Some("rolling") => return Strategy::Rolling,
            _ => {}
        }
        if self.writes_what_stays() || matches!(self.workload(), "job" | "statefulset") {
            Strategy::Recreate
        } else {
            Strategy::Rolling
        }
    }

    fn has_ports_of_the_machine(&self) -> bool {
        // In the machine's network every port is one of the machine.
        let all = self.mode() == "kube" && self.host_network();
        self.services
            .iter()
            .flat_map(|service| &service.ports)
            .any(|port| all || port.host_port != 0)
    }

    /// It writes to files that outlive its instances.
    fn writes_what_stays(&self) -> bool {
        self.services
            .iter()
            .flat_map(|service| &service.volume_mounts)
            .any(|mount| {
                let source = self.volume(&mount.name).and_then(|volume| volume.source());
                !mount.read_only
                    && match source {
                        Some(VolumeSource::HostPath(_)) => true,
                        Some(VolumeSource::Claim(claim)) => !claim.read_only,
                        _ => false,
                    }
            })
    }
}
