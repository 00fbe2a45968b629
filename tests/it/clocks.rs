//! Wrong clocks: 1970, and five years ahead.
//!
//! Two ways to be wrong, for each shape: the offset of the programs' own clock (feature `test-clock`), and libfaketime,
//! which fakes what the operating system says of the date to everything in the process, the monotonic clock excepted.
//! Applications must see the real clock either way.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::edge::Edge;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};

both_shapes!(
    a_node_whose_clock_says_1970_starts_its_applications_and_talks_to_the_cloud,
    a_node_whose_clock_is_five_years_ahead_starts_its_applications_and_talks_to_the_cloud,
    a_node_whose_system_says_1970_starts_its_applications_and_talks_to_the_cloud,
    a_node_whose_system_is_five_years_ahead_starts_its_applications_and_talks_to_the_cloud,
    a_node_is_installed_at_any_date_of_its_system,
);

const FIVE_YEARS: i64 = 5 * 365 * 24 * 3600;

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

/// An hour after the epoch.
fn offset_to_1970() -> i64 {
    3600 - now()
}

/// Where Debian and others put the library for programs with threads.
fn libfaketime() -> Option<PathBuf> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
        "/usr/lib64/faketime/libfaketimeMT.so.1",
    ];
    let found = places
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        baetyl_testkit::skipped("libfaketime (apt-get install libfaketime)");
    }
    found
}

/// The environment that makes a program's own clock wrong.
fn own_clock(offset: i64) -> Vec<(&'static str, String)> {
    vec![("BAETYL_TEST_CLOCK_OFFSET_SECONDS", offset.to_string())]
}

/// The environment that makes the date of the whole process wrong.
fn system_clock(library: &Path, offset: i64) -> Vec<(&'static str, String)> {
    vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("{offset:+}")),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        // Dates of files stay as they are.
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
}

/// Removes what libfaketime leaves behind for processes that were killed: a later process of the same id would trip over it.
struct Leftovers(Vec<u32>);

impl Leftovers {
    fn of(&mut self, edge: &Edge) {
        self.0.extend(edge.pids().into_values());
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for pid in &self.0 {
            for name in ["faketime_shm", "sem.faketime_sem"] {
                let _ = fs::remove_file(format!("/dev/shm/{name}_{pid}"));
            }
        }
    }
}

/// Writes the date it sees, then sleeps.
const DATED: &str = "date +%s > \"$BAETYL_INSTANCE_DIR/date\"; exec sleep 100000";

/// The application sees the real date and nothing of what makes the others' wrong.
async fn sees_the_real_date(world: &World, app: &str) -> Result<()> {
    let instance = world.edge.instance(app).await?;
    let environ = fs::read(format!("/proc/{}/environ", instance.pid))?;
    let environ = String::from_utf8_lossy(&environ);
    for name in ["LD_PRELOAD", "FAKETIME", "DONT_FAKE_MONOTONIC"] {
        ensure!(
            !environ.contains(name),
            "{app} has {name} in its environment"
        );
    }
    let dir = environ
        .split('\0')
        .find_map(|entry| entry.strip_prefix("BAETYL_INSTANCE_DIR="))
        .with_context(|| format!("{app} has no directory"))?;
    let file = Path::new(dir).join("date");
    let (date, _) = until("the application wrote a date", || async {
        Ok(fs::read_to_string(&file)?.trim().parse::<i64>()?)
    })
    .await?;
    ensure!((date - now()).abs() < 600, "{app} believes in {date}");
    Ok(())
}

/// The year of a date, give or take a day.
fn year(date: i64) -> i64 {
    1970 + date * 100 / 3_155_695_200
}

/// Every program of the node was started at a date in about this year: its own log says so.
fn believes_in(world: &World, wanted: i64) -> Result<()> {
    for service in world.edge.services() {
        let log = world.edge.log(service);
        let years = log
            .lines()
            .filter_map(|line| line.get(..4)?.parse::<i64>().ok());
        ensure!(
            years.into_iter().any(|year| (year - wanted).abs() <= 1),
            "{service} does not believe in {wanted}:\n{log}"
        );
    }
    Ok(())
}

/// The node itself tells a time that is off by this much: its clock was really moved.
async fn tells_time_off_by(world: &World, offset: i64) -> Result<()> {
    let state = crate::identity::link_state(&world.edge).await?;
    let since = state.since.context("a link state without a time")?.seconds;
    ensure!(
        (since - now() - offset).abs() < 600,
        "sync tells {since}, which is not {offset} seconds off"
    );
    Ok(())
}

/// A node that was installed at the right time starts at another, without and then with the cloud.
async fn at_another_time(
    shape: Shape,
    env: &[(&'static str, String)],
    offset: i64,
    year: Option<i64>,
) -> Result<()> {
    let mut leftovers = Leftovers(Vec::new());
    let mut world = World::start(shape).await?;
    world
        .run_app(&apps::shell_app("sleeper", "site=north", DATED))
        .await?;
    world.until_online().await?;
    world.cloud.stop().await?;
    world.edge.kill_everything()?;
    for (name, value) in env {
        world.edge.set_env(name, value);
    }
    world.edge.start().await?;
    leftovers.of(&world.edge);
    world.edge.until_running("sleeper", None).await?;
    if let Some(year) = year {
        believes_in(&world, year)?;
    }
    tells_time_off_by(&world, offset).await?;
    sees_the_real_date(&world, "sleeper").await?;
    let lives = world.edge.lives().await?;
    world.cloud.resume().await?;
    world.until_online().await?;
    world
        .run_app(&apps::shell_app("second", "site=north", DATED))
        .await?;
    sees_the_real_date(&world, "second").await?;
    let after = world.edge.lives().await?;
    for (name, life) in lives {
        ensure!(after.get(&name) == Some(&life), "{name} was restarted");
    }
    Ok(())
}

async fn a_node_whose_clock_says_1970_starts_its_applications_and_talks_to_the_cloud(
    shape: Shape,
) -> Result<()> {
    at_another_time(shape, &own_clock(offset_to_1970()), offset_to_1970(), None).await
}

async fn a_node_whose_clock_is_five_years_ahead_starts_its_applications_and_talks_to_the_cloud(
    shape: Shape,
) -> Result<()> {
    at_another_time(shape, &own_clock(FIVE_YEARS), FIVE_YEARS, None).await
}

async fn a_node_whose_system_says_1970_starts_its_applications_and_talks_to_the_cloud(
    shape: Shape,
) -> Result<()> {
    let Some(library) = libfaketime() else {
        return Ok(());
    };
    at_another_time(
        shape,
        &system_clock(&library, offset_to_1970()),
        offset_to_1970(),
        Some(1970),
    )
    .await
}

async fn a_node_whose_system_is_five_years_ahead_starts_its_applications_and_talks_to_the_cloud(
    shape: Shape,
) -> Result<()> {
    let Some(library) = libfaketime() else {
        return Ok(());
    };
    let wanted = year(now() + FIVE_YEARS);
    at_another_time(
        shape,
        &system_clock(&library, FIVE_YEARS),
        FIVE_YEARS,
        Some(wanted),
    )
    .await
}

/// The key is made, the identity fetched and installed, and the first application started at a wrong date.
async fn a_node_is_installed_at_any_date_of_its_system(shape: Shape) -> Result<()> {
    let Some(library) = libfaketime() else {
        return Ok(());
    };
    for offset in [offset_to_1970(), FIVE_YEARS] {
        let mut leftovers = Leftovers(Vec::new());
        let env = system_clock(&library, offset);
        let world = World::start_in(shape, &env).await?;
        leftovers.of(&world.edge);
        world.until_online().await?;
        tells_time_off_by(&world, offset).await?;
        world
            .run_app(&apps::shell_app("sleeper", "site=north", DATED))
            .await?;
        sees_the_real_date(&world, "sleeper").await?;
    }
    Ok(())
}
