//! How one version of an application takes over from the one before.

use std::time::Duration;

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

    /// How long a version may take to become ready, where the application says so itself.
    pub fn progress_deadline(&self) -> Option<Duration> {
        parse_deadline(self.labels.get(label::PROGRESS_DEADLINE)?)
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

/// A number of seconds, minutes or hours: `90s`, `20m`, `2h`. Nothing for anything else, and for what is no time at all or
/// more than a day.
pub(super) fn parse_deadline(text: &str) -> Option<Duration> {
    const MOST: u64 = 24 * 3600;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| digits)?;
    let seconds = seconds.checked_mul(factor)?;
    (1..=MOST)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}
