//! Install tokens, keys and certificates, with the real programs.

use anyhow::{Context as _, Result, ensure};
use baetyl_proto::sync::link_state::Phase;
use baetyl_proto::sync::sync_service_client::SyncServiceClient;
use baetyl_proto::sync::{GetLinkStateRequest, LinkState};
use baetyl_tests::apps;
use baetyl_tests::edge::Edge;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};

both_shapes!(
    init_on_an_activated_node_asks_for_nothing_and_ends_well,
    another_machine_with_the_same_install_command_is_refused,
    a_wrong_token_and_a_wrong_pin_are_refused_in_words,
    a_deleted_node_keeps_its_applications_and_is_not_served_any_more,
);

async fn init_on_an_activated_node_asks_for_nothing_and_ends_well(shape: Shape) -> Result<()> {
    let mut world = World::start(shape).await?;
    world.cloud.stop().await?;
    let (output, ()) = world
        .edge
        .run_install("BAETYL_INIT__TOKEN=unused baetyl-init run")
        .await?;
    ensure!(output.0, "{}", output.1);
    Ok(())
}

async fn another_machine_with_the_same_install_command_is_refused(shape: Shape) -> Result<()> {
    let world = World::start(shape).await?;
    let used = world.install_command.clone();
    let thief = &mut Edge::new("north-1", &world.dir.path().join("thief"), shape)?;
    thief.start().await?;
    let (output, ()) = thief.run_install(&used).await?;
    ensure!(
        !output.0 && output.1.contains("another key"),
        "the token of an activated node for another key: {}",
        output.1
    );
    let state = link_state(thief).await?;
    ensure!(
        state.phase() == Phase::WaitingForIdentity,
        "the thief is {:?}",
        state.phase()
    );
    world.until_online().await?;
    Ok(())
}

async fn a_wrong_token_and_a_wrong_pin_are_refused_in_words(shape: Shape) -> Result<()> {
    let world = World::start(shape).await?;
    let answer = world.rest.get("/v1/nodes/north-1/init?mode=native").await?;
    let command = answer["cmd"].as_str().context("no command")?;
    let mut fresh = Edge::new("north-1", &world.dir.path().join("fresh"), shape)?;
    fresh.start().await?;
    let mut words: Vec<String> = command.split(' ').map(ToOwned::to_owned).collect();
    let token = words
        .iter_mut()
        .find(|word| word.contains("TOKEN="))
        .context("no token in the command")?;
    token.push_str("AAAA");
    let (output, ()) = fresh.run_install(&words.join(" ")).await?;
    ensure!(!output.0 && output.1.contains("token"), "{}", output.1);

    let pin = command
        .split_once("--activate-ca-pin sha256:")
        .context("no pin")?
        .1;
    let wrong = command.replace(&pin[..64], &"0".repeat(64));
    fresh.set_env("BAETYL_INIT__DEADLINE", "2s");
    let (output, ()) = fresh.run_install(&wrong).await?;
    ensure!(
        !output.0,
        "a server of another authority was trusted: {}",
        output.1
    );
    Ok(())
}

async fn a_deleted_node_keeps_its_applications_and_is_not_served_any_more(
    shape: Shape,
) -> Result<()> {
    let world = World::start(shape).await?;
    world
        .run_app(&apps::shell_app(
            "sleeper",
            "site=north",
            "exec sleep 100000",
        ))
        .await?;
    let lives = world.edge.lives().await?;
    world.rest.delete("/v1/nodes/north-1").await?;
    until("sync says Removed", || async {
        let state = link_state(&world.edge).await?;
        ensure!(
            state.phase() == Phase::Removed,
            "{:?} {}",
            state.phase(),
            state.message
        );
        Ok(())
    })
    .await?;
    ensure!(
        world.edge.lives().await? == lives,
        "an application of a deleted node was touched"
    );
    Ok(())
}

pub(crate) async fn link_state(edge: &Edge) -> Result<LinkState> {
    let mut sync = SyncServiceClient::new(edge.channel("sync").await?);
    let answer = sync.get_link_state(GetLinkStateRequest {}).await?;
    answer.into_inner().state.context("no state")
}
