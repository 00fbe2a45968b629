//! The main job, whole, in both shapes.

use anyhow::Result;
use baetyl_tests::story::{Quiet, Story};
use baetyl_tests::world::{Shape, tail};

async fn tell(shape: Shape) -> Result<()> {
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

#[tokio::test]
async fn the_main_job_with_separate_programs() -> Result<()> {
    tell(Shape::Five).await
}

#[tokio::test]
async fn the_main_job_with_all_roles_in_one_process() -> Result<()> {
    tell(Shape::One).await
}
