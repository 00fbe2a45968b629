use std::time::Duration;

use super::*;
use crate::pki::testing::{Fixture, fixture};

fn tokens(fixture: &Fixture) -> InstallTokens {
    InstallTokens::new(
        fixture.pki.clone(),
        fixture.store.clone(),
        InstallConfig::default(),
    )
}

#[tokio::test]
async fn a_token_says_for_which_node_it_is() {
    let fixture = fixture().await;
    let node = fixture.add_node("edge-1").await;
    let (token, expires) = tokens(&fixture).issue(&node, 3).unwrap();
    let claims = tokens(&fixture).verify(&token).unwrap();
    assert_eq!(
        (claims.namespace, claims.node, claims.uid),
        (node.namespace, node.name, node.uid)
    );
    assert_eq!(
        (claims.enrolments, claims.expires),
        (3, expires.as_second())
    );
}

#[tokio::test]
async fn an_altered_or_foreign_token_is_invalid() {
    let (fixture, foreign) = (fixture().await, crate::pki::testing::fixture().await);
    let node = fixture.add_node("edge-1").await;
    let (token, _) = tokens(&fixture).issue(&node, 0).unwrap();
    assert_eq!(tokens(&foreign).verify(&token), Err(TokenError::Invalid));
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        // Only surplus bits of the last base64 digit could go unnoticed, and the decoder refuses those.
        assert_eq!(
            tokens(&fixture).verify(&altered),
            Err(TokenError::Invalid),
            "character {at}"
        );
    }
    for text in ["", "bi1", "bi1..", "bi2.e30.AAAA", &"x".repeat(5000)] {
        assert_eq!(tokens(&fixture).verify(text), Err(TokenError::Invalid));
    }
}

#[tokio::test]
async fn a_token_expires_after_an_hour() {
    let fixture = fixture().await;
    let node = fixture.add_node("edge-1").await;
    let (token, _) = tokens(&fixture).issue(&node, 0).unwrap();
    fixture.clock.advance(Duration::from_secs(3599));
    assert!(tokens(&fixture).verify(&token).is_ok());
    fixture.clock.advance(Duration::from_secs(1));
    let error = tokens(&fixture).verify(&token).unwrap_err();
    assert!(matches!(error, TokenError::Expired { .. }));
    assert!(error.to_string().contains("edge-1"));
}

#[tokio::test]
async fn the_command_hides_the_token_from_the_process_list_and_pins_the_authority() {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    let row = fixture
        .store
        .node(&fixture.namespace, "edge-1")
        .await
        .unwrap()
        .unwrap();
    let url = "https://cloud.example:9003";
    let made = tokens(&fixture)
        .install_command(&row, "native", url, Some("/srv/it's here"))
        .await
        .unwrap();
    let (environment, rest) = made.command.split_once(' ').unwrap();
    assert_eq!(environment, format!("BAETYL_INIT__TOKEN={}", made.token));
    let pin = fixture.pki.server_authority_pin();
    assert_eq!(
        rest,
        format!(
            "baetyl-init run --activate-url {url} --activate-ca-pin {pin} --data-dir '/srv/it'\\''s here'"
        )
    );
    assert!(!format!("{made:?}").contains(&made.token));
}

#[tokio::test]
async fn other_modes_and_odd_directories_get_no_command() {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    let row = fixture
        .store
        .node(&fixture.namespace, "edge-1")
        .await
        .unwrap()
        .unwrap();
    let tokens = tokens(&fixture);
    let kube = tokens
        .install_command(&row, "kube", "https://x", None)
        .await;
    assert!(matches!(kube, Err(InstallError::Mode(mode)) if mode == "kube"));
    for path in ["relative", "/a\nb"] {
        let odd = tokens
            .install_command(&row, "", "https://x", Some(path))
            .await;
        assert!(matches!(odd, Err(InstallError::DataDir(_))), "{path:?}");
    }
}
