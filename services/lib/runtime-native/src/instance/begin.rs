//! How a run begins: found again, or started.

use std::fs;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Instance, Running};
use crate::cgroup;
use crate::launch::{Unstarted, is_held, launch};
use crate::materialise::{materialise, program};
use crate::probe::Probes;
use crate::proc;
use crate::process::Process;
use crate::record::{ExitFile, RunFile, RunId};
use crate::shim::plan::{LimitOf, PLAN_FILE, Plan};
use crate::spec::RlimitResource;
use crate::status::{LastExit, Phase, Reason, RunEnd};

/// How often a record is looked at that another runtime's shim is about to write, or that cannot be read just now. The
/// one wait without an event: it happens when the runtime was killed in the middle of a start, or a start is slow.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// What there is of an instance.
pub(super) enum Found {
    /// Its shim lives.
    Running(Box<Running>),
    /// Its last run ended.
    Ended(Option<RunId>, LastExit),
    /// Nothing; start after this time.
    Nothing { after: Duration },
}

impl Instance {
    /// Looks at what a runtime before this one, or a start that nobody waits for any more, left.
    pub(super) async fn find(&mut self) -> Found {
        self.shared.environment(&self.id, &self.spec);
        let until = Instant::now() + self.shared.config.launch_time;
        loop {
            let seen = match self.look() {
                Ok(seen) => seen,
                Err(error) => {
                    // Nothing is known, and what may run is not ended for that.
                    self.set(
                        Phase::Pending,
                        None,
                        format!("cannot look at its shim: {error}"),
                    );
                    sleep(SETTLE_LOOK).await;
                    continue;
                }
            };
            match seen {
                (Some(run), Some(shim)) if run.app.is_some() => {
                    return Found::Running(Box::new(Running {
                        run,
                        shim,
                        adopted: true,
                    }));
                }
                // A start that is going on.
                (_, Some(_)) if Instant::now() < until => sleep(SETTLE_LOOK).await,
                (_, None) if is_held(&self.state) && Instant::now() < until => {
                    sleep(SETTLE_LOOK).await
                }
                (run, shim) => {
                    if let Some(shim) = shim {
                        self.abandon(&shim).await;
                    }
                    return self.find_ended(run).await;
                }
            }
        }
    }

    /// The record of the last start, and its shim when that lives. An error: neither can be told now.
    fn look(&self) -> io::Result<(Option<RunFile>, Option<Process>)> {
        let Some(run) = self.state.run()? else {
            return Ok((None, None));
        };
        match living(&run) {
            Ok(Some(shim)) => Ok((Some(run.completed()), Some(shim))),
            Ok(None) => Ok((Some(run), None)),
            Err(error) if is_held(&self.state) => Err(error),
            // It holds its lock as long as it lives.
            Err(_) => Ok((Some(run), None)),
        }
    }

    /// How the recorded run ended (without a record of it: the last one that did). Waits while that cannot be read.
    pub(super) async fn exit_of(&self, run: Option<&RunFile>) -> Option<ExitFile> {
        loop {
            let exit = match run {
                Some(run) => self.state.exit_of(&run.run_id()),
                None => self.state.exit(),
            };
            match exit {
                Ok(exit) => return exit,
                Err(_) => sleep(SETTLE_LOOK).await,
            }
        }
    }

    async fn find_ended(&mut self, run: Option<RunFile>) -> Found {
        if let Some(exit) = self.exit_of(run.as_ref()).await {
            return Found::Ended(Some(exit.run_id()), exit.last_exit());
        }
        let Some(run) = run else {
            // Also when all records were lost: nothing may run twice.
            self.clean_up(None).await;
            return Found::Nothing {
                after: Duration::ZERO,
            };
        };
        if proc::boot_id().is_ok_and(|boot_id| boot_id != run.boot_id) {
            let message = "the machine was restarted while it ran".to_owned();
            let exit = LastExit {
                end: RunEnd::Unknown,
                reason: Reason::Rebooted,
                message,
                at_ms: None,
            };
            return Found::Ended(Some(run.run_id()), exit);
        }
        let exit = self.collect(&run, None).await;
        Found::Ended(Some(run.run_id()), exit)
    }

    /// Makes the directory and starts the program. An error: how it ended, and which run it was when there was one.
    pub(super) async fn start(&mut self) -> Result<Running, (Option<RunId>, LastExit)> {
        self.status.warnings.clear();
        self.set(Phase::Starting, None, "");
        let plan = self.plan().await.map_err(|exit| (None, exit))?;
        let config = &self.shared.config;
        match launch(&config.shim, &self.state, &plan, config.launch_time).await {
            Ok(run) => self.started(run).await,
            Err(Unstarted::Over(exit)) => Err((None, exit)),
            Err(Unstarted::Unclear(exit)) => self.found_or(exit).await,
        }
    }

    async fn started(&mut self, run: RunFile) -> Result<Running, (Option<RunId>, LastExit)> {
        if let Some(warning) = run.warning.clone() {
            self.warn("LimitsNotEnforced", warning);
        }
        match living(&run) {
            Ok(Some(shim)) => Ok(Running {
                run,
                shim,
                adopted: false,
            }),
            Ok(None) => {
                let id = run.run_id();
                // Shown, though it is over: it ran.
                self.status.process = run.record();
                let exit = self.collect(&run, None).await;
                Err((Some(id), exit))
            }
            Err(error) => {
                let exit = LastExit {
                    end: RunEnd::NotStarted,
                    reason: Reason::StartFailed,
                    message: format!("cannot look at its shim: {error}"),
                    at_ms: None,
                };
                self.found_or(exit).await
            }
        }
    }

    /// What runs although its start was not seen to succeed; `exit` when nothing does.
    async fn found_or(&mut self, exit: LastExit) -> Result<Running, (Option<RunId>, LastExit)> {
        tracing::warn!(instance = %self.id, message = exit.message, "the start is unclear; it is looked for");
        match self.find().await {
            Found::Running(running) => Ok(*running),
            Found::Ended(run, exit) => Err((run, exit)),
            Found::Nothing { .. } => Err((None, exit)),
        }
    }

    /// Everything up to the launch.
    async fn plan(&mut self) -> Result<Plan, LastExit> {
        let failed = |reason, message: String| LastExit {
            end: RunEnd::NotStarted,
            reason,
            message,
            at_ms: None,
        };
        Probes::read(&self.spec)
            .map_err(|error| failed(Reason::ProbeInvalid, error.to_string()))?;
        let environment = self.shared.environment(&self.id, &self.spec);
        let (paths, id, spec, state) = (
            self.shared.paths.clone(),
            self.id.clone(),
            self.spec.clone(),
            self.state.clone(),
        );
        let path_variable = environment
            .env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value.clone());
        let made = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&state.0).map_err(|error| {
                failed(
                    Reason::PrepareFailed,
                    format!("cannot make {}: {error}", state.0.display()),
                )
            })?;
            let warnings = materialise(&paths, &id, &spec)
                .map_err(|error| failed(Reason::PrepareFailed, error.to_string()))?;
            let path_variable = path_variable.unwrap_or_default();
            let entry = program::resolve(
                &paths.instance(&id),
                &spec,
                &path_variable.to_string_lossy(),
            )
            .map_err(|error| failed(error.reason, error.to_string()))?;
            Ok((warnings, entry))
        });
        let made = made.await.unwrap_or_else(|error| {
            Err(failed(
                Reason::PrepareFailed,
                format!("making its directory broke off: {error}"),
            ))
        });
        let (warnings, entry) = made?;
        for warning in warnings {
            self.warn(warning.kind, warning.message);
        }
        let log = self.shared.paths.log(&self.id);
        let added = self
            .shared
            .logs
            .add(&log)
            .and_then(|()| match self.spec.user {
                // Programs open `/dev/stdout` anew, which is this file.
                Some(user) => std::os::unix::fs::chown(&log, Some(user.uid), Some(user.gid)),
                None => Ok(()),
            });
        added.map_err(|error| {
            failed(
                Reason::PrepareFailed,
                format!("cannot write its log {}: {error}", log.display()),
            )
        })?;
        Ok(Plan {
            name: self.id.to_string().into(),
            program: entry.program,
            args: entry.args,
            env: environment.env.clone(),
            cwd: entry.cwd,
            log,
            cgroups: self.cgroups(),
            rlimits: self
                .spec
                .rlimits
                .iter()
                .map(|limit| (word(limit.resource), limit.soft, limit.hard))
                .collect(),
            user: self.spec.user.map(|user| (user.uid, user.gid)),
            linger_ms: u64::try_from(self.grace().as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn cgroups(&mut self) -> Vec<std::path::PathBuf> {
        if self.spec.limits.is_empty() {
            return Vec::new();
        }
        // Made anew, so that its counters are those of this run.
        cgroup::remove(&recorded_cgroups(&self.state).unwrap_or_default());
        let group = self.shared.cgroups.make(&self.id, &self.spec.limits);
        if !group.missing.is_empty() {
            self.warn(
                "LimitsNotEnforced",
                format!("its limits are not enforced: {}", group.missing),
            );
        }
        group.enter
    }

    /// Whether the kernel ended something in its cgroup for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        recorded_cgroups(&self.state).is_some_and(|cgroups| cgroup::oom_kills(&cgroups) > 0)
    }
}

/// The shim of a recorded run, when it is this boot's and lives.
fn living(run: &RunFile) -> io::Result<Option<Process>> {
    if proc::boot_id()? == run.boot_id {
        Process::open(run.shim)
    } else {
        Ok(None)
    }
}

/// The cgroups of the last start: another runtime may have made them in another place.
pub(crate) fn recorded_cgroups(state: &crate::record::StateDir) -> Option<Vec<std::path::PathBuf>> {
    Some(Plan::decode(&fs::read(state.0.join(PLAN_FILE)).ok()?)?.cgroups)
}

fn word(resource: RlimitResource) -> LimitOf {
    match resource {
        RlimitResource::Files => LimitOf::Files,
        RlimitResource::Processes => LimitOf::Processes,
        RlimitResource::Core => LimitOf::Core,
        RlimitResource::FileSize => LimitOf::FileSize,
    }
}
