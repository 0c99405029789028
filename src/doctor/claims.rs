//! The content of the token: identity, audience, expiry, and the clock that they imply.

use super::{
    duration::in_words,
    examination::{Checked, Failed, Passed},
};
use crate::config::Config;
use entra_redis::{
    diagnostics::{self, Claims},
    identity::AccessToken,
};

/// The two names of Azure Cache for Redis as a resource (Azure page "Use Microsoft Entra for cache authentication").
const REDIS_RESOURCES: [&str; 2] = [
    "https://redis.azure.com",
    "acca5fbb-b7e4-4009-81f1-37e38fd66d78",
];

/// Compares the claims of the token with the configuration and with this machine's clock.
pub(super) fn check(config: &Config, token: &AccessToken) -> Checked<()> {
    let Some(claims) = Claims::of_token(token) else {
        let reason = "the token is not a JWT; the user name is REDIS_USERNAME";
        return Ok(Passed::not_applicable(reason, ()));
    };
    let object_id = claims.object_id.as_deref();
    let observed = format!(
        "object id {}, tenant {}, audience {}, {}",
        object_id.unwrap_or("none"),
        claims.tenant_id.as_deref().unwrap_or("none"),
        claims.audiences.join(", "),
        expiry(&claims)
    );
    let resource = config.identity.scope.trim_end_matches("/.default");
    if !claims.audiences.iter().any(|one| is_for(one, resource)) {
        return Err(Failed::new(
            observed,
            format!("the token is not for {resource}: Redis refuses it"),
            "unset REDIS_SCOPE, or set it to the scope of Azure Managed Redis in your cloud",
        ));
    }
    if let Some(skew) = diagnostics::clock_skew(token) {
        return Ok(Passed::warned(
            observed,
            format!("this machine's clock is {skew}"),
            "set the clock: certificates and assertions are verified against it",
            (),
        ));
    }
    match (object_id, &config.identity.username) {
        (Some(object_id), Some(username)) if object_id != username => Ok(Passed::warned(
            observed,
            format!("REDIS_USERNAME differs from the token's object id, {object_id}"),
            "unset REDIS_USERNAME: Redis identifies a user by the object id, not by the client id",
            (),
        )),
        _ => Ok(Passed::new(observed, ())),
    }
}

fn is_for(audience: &str, resource: &str) -> bool {
    let audience = audience.trim_end_matches('/');
    audience == resource
        || (REDIS_RESOURCES.contains(&resource) && REDIS_RESOURCES.contains(&audience))
}

/// Describes the expiry of a token.
pub(super) fn expiry(claims: &Claims) -> String {
    match (claims.expires_at, claims.expires_in()) {
        (None, _) => "does not expire".to_owned(),
        (Some(_), None) => "has expired".to_owned(),
        (Some(_), Some(remaining)) => format!("expires in {}", in_words(remaining)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;
    use crate::doctor::{Outcome, Step, examination::finding};
    use entra_redis::secret::Secret;

    /// Checks a token with these claims that was issued for an hour from now.
    fn check_claims(claims: &str) -> (Outcome, String) {
        let variables = [("REDIS_ENDPOINT", "localhost:1")];
        let config = Config::new(&variables.into_iter().collect()).expect("a complete one");
        let token = AccessToken {
            username: "object-id".to_owned(),
            secret: Secret::new(format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims))),
            expires_at: SystemTime::now() + Duration::from_secs(3600),
        };
        let (finding, _) = finding(Step::Claims, check(&config, &token));
        (finding.outcome, finding.to_string())
    }

    #[test]
    fn another_resource_fails_and_another_clock_warns() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("later than 1970").as_secs();
        let with = |audience: &str, exp: u64| {
            check_claims(&format!(
                r#"{{"oid":"object-id","aud":"{audience}","iat":{},"exp":{exp}}}"#,
                exp - 3600
            ))
        };
        let (outcome, text) = with("https://redis.azure.com/", now + 3600);
        assert_eq!(outcome, Outcome::Passed, "{text}");
        let (outcome, text) = with("https://management.azure.com", now + 3600);
        assert_eq!(outcome, Outcome::Failed);
        assert!(text.contains("unset REDIS_SCOPE"), "{text}");
        for (exp, word) in [(now + 7200, "behind"), (now + 1800, "ahead")] {
            let (outcome, text) = with("https://redis.azure.com", exp);
            assert_eq!(outcome, Outcome::Warned, "{text}");
            assert!(
                text.contains("set the clock") && text.contains(word),
                "{text}"
            );
        }
    }
}
