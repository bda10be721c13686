//! People in more groups than a bearer can carry: tokens stay small, and nothing is forgotten.

use super::*;

const NAMED: &str = "group-9999-of-the-directory";

fn groups(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("group-{number:04}-of-the-directory")).collect()
}

impl House {
    /// One of whose rules names a group, with somebody in ten thousand who signed in.
    async fn crowded() -> (Self, Tokens) {
        let house = Self::open(|oidc| oidc.allowed_groups = vec![NAMED.to_owned()]).await;
        house.provider.claim(json!({"groups": groups(10_000)}));
        let tokens = house.signed_in().await;
        house.provider.claim(json!({"nonce": null}));
        (house, tokens)
    }

    async fn whole(&self, sign_in: &Arc<SignIn>, tokens: &Tokens) -> Arc<Principal> {
        let header = format!("Bearer {}", tokens.bearer.token.expose_secret());
        let bearer = sign_in.bearers().authenticate(Some(&header), self.clock.now()).unwrap();
        sign_in.sessions().complete(bearer).await
    }

    async fn set_row(&self, groups: &str) {
        self.store.execute("UPDATE session SET groups = $1", &[groups.into()]).await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_groups_fit_into_small_tokens_and_none_is_forgotten() {
    let (house, tokens) = House::crowded().await;
    assert_eq!(house.principal(&tokens).groups, [NAMED], "the bearer has those that the configuration names");
    let whole = house.whole(&house.sign_in, &tokens).await;
    assert_eq!(whole.groups, groups(10_000));
    assert_eq!((whole.sub.as_str(), whole.email.as_deref()), ("u-1", Some("Ann@Example.com")));
    assert_eq!(house.whole(&house.beside().await, &tokens).await.groups.len(), 10_000, "at another replica");
    let refreshed = house.refresh(&tokens).await.unwrap();
    for tokens in [&tokens, &refreshed] {
        let sizes = [tokens.bearer.token.expose_secret(), tokens.refresh_token.as_ref().unwrap().expose_secret()];
        assert!(sizes.iter().all(|token| token.len() < 6000), "{:?}", sizes.map(str::len));
    }
}

#[tokio::test]
async fn the_database_is_asked_once_for_a_list() {
    let (house, tokens) = House::crowded().await;
    house.whole(&house.sign_in, &tokens).await;
    house.store.execute("ALTER TABLE session RENAME TO gone", &[]).await.unwrap();
    let known = house.whole(&house.sign_in, &tokens).await;
    assert_eq!((known.groups.len(), known.groups_unread), (10_000, false));
    let other = house.beside().await;
    let unread = house.whole(&other, &tokens).await;
    assert_eq!(unread.groups, [NAMED], "what the bearer has, while nobody can say more");
    assert!(unread.groups_unread);
    house.store.execute("ALTER TABLE gone RENAME TO session", &[]).await.unwrap();
    house.clock.advance(Duration::from_secs(5));
    let read = house.whole(&other, &tokens).await;
    assert_eq!((read.groups.len(), read.groups_unread), (10_000, false), "and no longer than that");
}

#[tokio::test]
async fn a_refresh_brings_the_list_up_to_date_and_forgets_one_that_fits() {
    let (house, first) = House::crowded().await;
    let mut other = groups(9_000);
    other.push(NAMED.to_owned());
    house.provider.claim(json!({"groups": other}));
    let second = house.refresh(&first).await.unwrap();
    assert_eq!(house.whole(&house.sign_in, &second).await.groups, other);
    house.provider.claim(json!({"groups": [NAMED]}));
    let third = house.refresh(&second).await.unwrap();
    assert_eq!(house.whole(&house.sign_in, &third).await.groups, [NAMED]);
    let row = house.store.fetch_optional("SELECT groups FROM session", &[]).await.unwrap().unwrap();
    assert_eq!(row.text(0).unwrap(), "[]");
}

#[tokio::test]
async fn a_provider_that_does_not_say_the_groups_again_leaves_them_all() {
    let (house, first) = House::crowded().await;
    house.provider.script.lock().unwrap().claims = json!(null);
    let second = house.refresh(&first).await.unwrap();
    assert_eq!(house.whole(&house.beside().await, &second).await.groups.len(), 10_000);
    house.store.execute("ALTER TABLE session RENAME TO gone", &[]).await.unwrap();
    let third = house.refresh(&second).await.unwrap();
    assert_eq!(house.principal(&third).groups, [NAMED]);
    house.store.execute("ALTER TABLE gone RENAME TO session", &[]).await.unwrap();
    house.sign_in.sessions().catch_up().await.unwrap();
    assert_eq!(house.whole(&house.beside().await, &third).await.groups.len(), 10_000, "known while the row was away");
}

#[tokio::test]
async fn a_row_with_another_list_counts_for_a_moment() {
    let (house, tokens) = House::crowded().await;
    house.set_row("[\"newer\"]").await;
    let other = house.beside().await;
    assert_eq!(house.whole(&other, &tokens).await.groups, ["newer"]);
    house.set_row("[\"newest\"]").await;
    assert_eq!(house.whole(&other, &tokens).await.groups, ["newer"]);
    house.clock.advance(Duration::from_secs(5));
    assert_eq!(house.whole(&other, &tokens).await.groups, ["newest"]);
}
