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
    let made = tokens(&fixture).issue(&node, 3, 3600).unwrap();
    let claims = tokens(&fixture).verify(&made.token).unwrap();
    assert_eq!(
        (claims.namespace, claims.node, claims.uid),
        (node.namespace, node.name, node.uid)
    );
    assert!(!format!("{made:?}").contains(&made.token));
    assert_eq!(
        (claims.enrolments, claims.expires),
        (3, made.expires.as_second())
    );
}

#[tokio::test]
async fn an_altered_or_foreign_token_is_invalid() {
    let (fixture, foreign) = (fixture().await, crate::pki::testing::fixture().await);
    let node = fixture.add_node("edge-1").await;
    let token = tokens(&fixture).issue(&node, 0, 3600).unwrap().token;
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
    let token = tokens(&fixture).issue(&node, 0, 3600).unwrap().token;
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
    let url = "https://cloud.example:9003";
    let command = tokens(&fixture)
        .native_command("bi1.x.y", url, Some("/srv/it's here"))
        .unwrap();
    let (environment, rest) = command.split_once(' ').unwrap();
    assert_eq!(environment, "BAETYL_INIT__TOKEN=bi1.x.y");
    let pin = fixture.pki.server_authority_pin();
    assert_eq!(
        rest,
        format!(
            "baetyl-init run --activate-url {url} --activate-ca-pin {pin} --data-dir '/srv/it'\\''s here'"
        )
    );
}

#[tokio::test]
async fn odd_directories_get_no_command() {
    let fixture = fixture().await;
    for path in ["relative", "/a\nb"] {
        let odd = tokens(&fixture).native_command("t", "https://x", Some(path));
        assert!(matches!(odd, Err(InstallError::DataDir(_))), "{path:?}");
    }
}

#[tokio::test]
async fn a_token_lives_as_long_as_was_asked_for_and_30_days_at_most() {
    let fixture = fixture().await;
    fixture.add_node("edge-1").await;
    let row = fixture.node("edge-1").await;
    let tokens = tokens(&fixture);
    let made = tokens.token(&row, Some(86_400)).await.unwrap();
    fixture.clock.advance(Duration::from_secs(86_399));
    assert!(tokens.verify(&made.token).is_ok());
    fixture.clock.advance(Duration::from_secs(1));
    assert!(tokens.verify(&made.token).is_err());
    for life in [0, MAX_LIFE + 1] {
        let none = tokens.token(&row, Some(life)).await;
        assert!(matches!(none, Err(InstallError::Life)), "{life}");
    }
}
