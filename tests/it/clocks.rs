//! Wrong clocks: 1970, and five years ahead.

use anyhow::{Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};

const FIVE_YEARS: i64 = 5 * 365 * 24 * 3600;

fn offset_to_1970() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    -i64::try_from(now).unwrap() + 3600
}

/// A node that was installed at the right time starts at another, without and then with the cloud.
async fn at_another_time(name: &str, value: &str) -> Result<()> {
    let mut world = World::start(Shape::Five).await?;
    world
        .run_app(&apps::shell_app(
            "sleeper",
            "site=north",
            "exec sleep 100000",
        ))
        .await?;
    world.until_online().await?;
    world.cloud.stop().await?;
    world.edge.kill_everything()?;
    world.edge.set_env(name, value);
    world.edge.start().await?;
    world.edge.until_running("sleeper", None).await?;
    let lives = world.edge.lives().await?;
    world.cloud.resume().await?;
    world.until_online().await?;
    until("a change reaches the node", || async {
        let _ = world
            .rest
            .post(
                "/v1/apps",
                &apps::shell_app("second", "site=north", "exec sleep 100000"),
            )
            .await;
        world.edge.app("second").await
    })
    .await?;
    world.edge.until_running("second", None).await?;
    let after = world.edge.lives().await?;
    for (name, life) in lives {
        ensure!(after.get(&name) == Some(&life), "{name} was restarted");
    }
    Ok(())
}

#[tokio::test]
async fn a_node_whose_clock_says_1970_starts_its_applications_and_talks_to_the_cloud() -> Result<()>
{
    at_another_time(
        "BAETYL_TEST_CLOCK_OFFSET_SECONDS",
        &offset_to_1970().to_string(),
    )
    .await
}

#[tokio::test]
async fn a_node_whose_clock_is_five_years_ahead_starts_its_applications_and_talks_to_the_cloud()
-> Result<()> {
    at_another_time("BAETYL_TEST_CLOCK_OFFSET_SECONDS", &FIVE_YEARS.to_string()).await
}
