use super::*;
use crate::store::tests::{by, fixture};

fn headers(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value.parse().unwrap());
    headers
}

#[tokio::test]
async fn a_token_lets_its_holder_into_its_namespace_until_it_is_revoked() {
    let f = fixture().await;
    let token = create_token(&f.store, &f.namespace, "ci", Role::Operator, &by())
        .await
        .unwrap();
    let tokens = Tokens::new(f.store.clone());
    let caller = tokens
        .authenticate(&headers(&format!("Bearer {token}")))
        .await
        .unwrap();
    let wanted = Caller {
        namespace: f.namespace.clone(),
        actor: "token:ci".into(),
        role: Role::Operator,
    };
    assert_eq!(caller, wanted);

    f.store.revoke_token(&f.namespace, "ci").await.unwrap();
    let refused = tokens
        .authenticate(&headers(&format!("bearer {token}")))
        .await;
    assert!(matches!(refused, Err(AuthError::Invalid)), "{refused:?}");
}

#[tokio::test]
async fn nothing_or_something_else_lets_nobody_in() {
    let f = fixture().await;
    let tokens = Tokens::new(f.store.clone());
    assert!(matches!(
        tokens.authenticate(&HeaderMap::new()).await,
        Err(AuthError::Missing)
    ));
    for value in [
        "Bearer",
        "Bearer  ",
        "Basic YTpi",
        "Bearer bct_0000",
        "bct_0000",
    ] {
        assert!(
            matches!(
                tokens.authenticate(&headers(value)).await,
                Err(AuthError::Invalid)
            ),
            "{value}"
        );
    }
}

#[tokio::test]
async fn the_database_never_holds_the_token_itself() {
    let f = fixture().await;
    let token = create_token(&f.store, &f.namespace, "ci", Role::Admin, &by())
        .await
        .unwrap();
    let kept: String = sqlx::query_scalar("SELECT hash FROM api_tokens")
        .fetch_one(f.store.reader())
        .await
        .unwrap();
    assert_ne!(kept, token);
    assert_eq!(kept, crypto::sha256_hex(token.as_bytes()));
    assert_eq!(token.len(), PREFIX.len() + 64, "32 random bytes");
}

#[tokio::test]
async fn the_first_start_writes_a_private_admin_token_and_the_second_leaves_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let f = fixture().await;
    assert!(
        ensure_admin_token(&f.store, f.dir.path(), &f.namespace, &by())
            .await
            .unwrap()
    );
    let path = f.dir.path().join(ADMIN_TOKEN_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let caller = Tokens::new(f.store.clone())
        .authenticate(&headers(&format!("Bearer {}", text.trim())))
        .await
        .unwrap();
    assert_eq!(caller.role, Role::Admin);
    assert!(
        !ensure_admin_token(&f.store, f.dir.path(), &f.namespace, &by())
            .await
            .unwrap()
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_taken_name_and_a_name_with_odd_characters_are_refused() {
    let f = fixture().await;
    create_token(&f.store, &f.namespace, "ci", Role::Viewer, &by())
        .await
        .unwrap();
    let again = create_token(&f.store, &f.namespace, "ci", Role::Viewer, &by()).await;
    assert!(matches!(again, Err(TokenError::Taken { .. })), "{again:?}");
    let odd = create_token(&f.store, &f.namespace, "a b", Role::Viewer, &by()).await;
    assert!(matches!(odd, Err(TokenError::Name(_))), "{odd:?}");
}
