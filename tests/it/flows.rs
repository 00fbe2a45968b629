//! The main job, whole, in both shapes.

use anyhow::Result;
use baetyl_tests::story::{Quiet, Story};
use baetyl_tests::world::{Shape, tail};

both_shapes!(the_main_job);

async fn the_main_job(shape: Shape) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bt-").tempdir()?;
    let mut story = Story::begin(dir.path().to_path_buf(), shape, Quiet).await?;
    let told = story.tell().await;
    if told.is_err() {
        for service in story.edge.services() {
            println!("--- {service}\n{}", story.edge.log(service));
        }
        println!("--- cloud\n{}", tail(&story.cloud.dir.join("cloud.log")));
    }
    told
}
