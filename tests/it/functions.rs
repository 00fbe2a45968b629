//! What an application says of its functions reaches the proxy: how long a call may take, and who may call.

use anyhow::{Result, ensure};
use baetyl_tests::apps;
use baetyl_tests::wait::until;
use baetyl_tests::world::{Shape, World};
use bytes::Bytes;
use http::Method;
use serde_json::json;

both_shapes!(a_function_has_its_own_deadline_and_its_own_access_counts_more_than_the_label);

async fn a_function_has_its_own_deadline_and_its_own_access_counts_more_than_the_label(
    shape: Shape,
) -> Result<()> {
    let world = World::start(shape).await?;
    let code =
        "import time\n\ndef handler(event, context):\n    time.sleep(event)\n    return event\n";
    // Everybody may call it, says the label.
    let mut app = apps::create_function(&world.rest, "nap", "site=north", code).await?;
    app["services"][0]["functions"][0]["timeoutMs"] = json!(700);
    let made = world
        .rest
        .put("/v1/apps/nap?fieldValidation=Strict", &app)
        .await?;
    world
        .edge
        .until_running("nap", made["version"].as_str())
        .await?;
    let functions = world.edge.functions()?;
    let call = |seconds: &'static str| {
        functions.send(
            Method::POST,
            "/nap",
            &[],
            Bytes::from_static(seconds.as_bytes()),
        )
    };
    until("the function answers", || async { call("0").await?.ok() }).await?;
    // Ten minutes: without a deadline of its own the test would end before the call does.
    until("the new version answers", || async {
        let answer = call("600").await?;
        ensure!(
            answer.status == 504,
            "{}: {:?}",
            answer.status,
            answer.bytes
        );
        Ok(())
    })
    .await?;

    app["services"][0]["functionConfig"]["access"] = json!("token");
    world.rest.put("/v1/apps/nap", &app).await?;
    until("a token is wanted", || async {
        let answer = call("0").await?;
        ensure!(answer.status == 401, "{}", answer.status);
        Ok(())
    })
    .await?;
    Ok(())
}
