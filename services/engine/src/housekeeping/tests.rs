#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use baetyl_model::desire::Unpack;
use baetyl_testkit::eventually;
use serde_json::json;

use super::restore;
use crate::ports::ContentError;
use crate::testing::{Behaviour, Bench, digest, release};

#[tokio::test]
async fn sync_is_asked_again_for_the_objects_of_every_version_that_may_run() {
    let bench = Bench::started().await;
    let version = |version: &str, content: &[u8]| {
        let app = json!({"mode": "native", "services": [{"name": "web", "command": ["run"]}]});
        release("shop", version, app)
            .object("model", "model.bin", content, Unpack::None)
            .build()
    };
    let (first, second) = (version("1", b"first"), version("2", b"second"));
    bench.desire(1, &[&first]);
    bench.until("shop", "Healthy 1").await;
    // The second one never ends its probation.
    bench.runtime.behave("2", Behaviour::NeverReady);
    bench.desire(2, &[&second]);
    bench.until("shop", "Probing 2").await;
    let digests = [b"first".as_slice(), b"second"].map(digest);
    bench.content.lose_everything();
    let cloud_is_away = ContentError::Later("the cloud cannot be reached".to_owned());
    bench.content.fail(Some(cloud_is_away));
    let (_, engine) = bench.engine.as_ref().unwrap();
    let before = bench.content.stages();
    let restoring = tokio::spawn(restore(Arc::clone(&engine.ctx), engine.adopted.clone()));
    eventually!(bench.content.stages() > before);
    assert!(!digests.iter().any(|digest| bench.content.holds(digest)));
    bench.content.fail(None);
    restoring.await.unwrap();
    assert!(digests.iter().all(|digest| bench.content.holds(digest)));
}
