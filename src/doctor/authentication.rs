//! Authentication with Redis, and re-authentication on the same connection.

use super::examination::{Checked, Failed, Passed};
use crate::config::{Auth, Config};
use entra_redis::{
    diagnostics::{self, Authentication, Fault},
    error_chain::ErrorChain,
    identity::AccessToken,
    pool::Pool,
};

/// Opens a pool with an authenticated connection.
pub(super) async fn check(config: &Config, token: Option<AccessToken>) -> Checked<Pool> {
    let username = token.as_ref().map(|token| token.username.clone());
    let authenticated = diagnostics::authenticate(&config.redis, token)
        .await
        .map_err(|error| {
            let (cause, fix) = explain(config, &error.fault(), username.as_deref());
            Failed::new(ErrorChain(&error), cause, fix)
        })?;
    let pool = authenticated.pool;
    let observed = match authenticated.authentication {
        Authentication::User(username) => {
            reauthenticate(config, &pool, &username).await?;
            format!("authenticated as {username}; re-authentication on the same connection works")
        }
        Authentication::AccessKey => "authenticated with the access key".to_owned(),
        _ => "Redis requires no authentication".to_owned(),
    };
    Ok(Passed::new(observed, pool))
}

async fn reauthenticate(config: &Config, pool: &Pool, username: &str) -> Result<(), Failed> {
    let limit = config.redis.connect_timeout;
    let reauthenticated = diagnostics::reauthenticate(pool, limit).await;
    reauthenticated.map_err(|error| {
        Failed::new(
            format!(
                "authenticated as {username}, but re-authentication on the same connection failed: {}",
                ErrorChain(&error)
            ),
            "connections would be closed when their first token expires",
            "connect to the cache directly: look for a proxy in between that does not forward AUTH",
        )
    })
}

/// Returns cause and fix of a failed authentication. `username` is the user of the token, where there is one.
fn explain(config: &Config, fault: &Fault, username: Option<&str>) -> (String, String) {
    let code = match fault {
        Fault::AuthenticationRefused { code } => code.as_str(),
        _ => "",
    };
    let (cause, fix) = match (code, username, &config.redis.auth) {
        ("WRONGPASS", Some(username), _) if config.identity.username.is_some() => {
            return (
                format!("Redis has no user {username}, which is the value of REDIS_USERNAME"),
                "unset REDIS_USERNAME: Redis identifies a user by the object id (see claims above), not by the client id".to_owned(),
            );
        }
        ("WRONGPASS" | "NOAUTH" | "NOPERM", Some(object_id), _) => {
            return (
                format!("the token is valid, but Redis has no user {object_id}"),
                format!(
                    "add this object id as a Redis user (not the client id): {}",
                    assignment(config.redis.endpoint.host(), object_id)
                ),
            );
        }
        ("NOAUTH", None, Auth::None) => (
            "the cache requires authentication, and REDIS_AUTH=none provides none",
            "unset REDIS_AUTH to authenticate with Entra ID, or set REDIS_AUTH=key and REDIS_KEY",
        ),
        ("WRONGPASS" | "NOAUTH", None, _) => (
            "the cache does not accept the credentials that REDIS_AUTH selects",
            "check REDIS_KEY, and whether access keys are disabled (then set REDIS_AUTH=entra)",
        ),
        // The reply to AUTH of a server without a password.
        ("ERR", None, Auth::Key(_)) => (
            "this server has no password",
            "set REDIS_AUTH=none, or set REDIS_ENDPOINT to the intended cache",
        ),
        _ if matches!(fault, Fault::TimedOut(_) | Fault::AuthenticationNotAnswered) => (
            "the cache accepts connections but does not respond: it is starting, scaling or failing",
            "check the cache's state: `az redisenterprise show --cluster-name NAME --resource-group RESOURCE_GROUP --query resourceState`",
        ),
        _ => (
            "connection limit reached, cache starting or scaling, or not a Redis server",
            "look for a client that opens a connection for each token and closes none (`CLIENT LIST`, the metric Connected Clients); otherwise check the cache's state, and the port in REDIS_ENDPOINT",
        ),
    };
    (cause.to_owned(), fix.to_owned())
}

/// Returns the command that makes an identity a user of Redis: Azure Cache for Redis and Azure Managed Redis have one each.
fn assignment(host: &str, object_id: &str) -> String {
    let name = host.split('.').next().unwrap_or("NAME");
    let assignment: String = object_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    if host.contains(".redis.cache.") {
        format!(
            "az redis access-policy-assignment create --resource-group RESOURCE_GROUP --name {name} --policy-assignment-name {assignment} --access-policy-name \"Data Contributor\" --object-id {object_id} --object-id-alias {assignment}"
        )
    } else {
        format!(
            "az redisenterprise database access-policy-assignment create --resource-group RESOURCE_GROUP --cluster-name {name} --database-name default --access-policy-assignment-name {assignment} --access-policy-name default --object-id {object_id}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entra_redis::pool::ConnectStep;

    #[test]
    fn a_refused_authentication_is_explained_by_its_code_and_the_configuration() {
        let entra = [("REDIS_ENDPOINT", "c.redis.azure.net")].as_slice();
        let key = &[
            ("REDIS_ENDPOINT", "c.redis.azure.net"),
            ("REDIS_AUTH", "key"),
            ("REDIS_KEY", "secret"),
        ];
        let none = &[
            ("REDIS_ENDPOINT", "c.redis.azure.net"),
            ("REDIS_AUTH", "none"),
        ];
        let named = &[
            ("REDIS_ENDPOINT", "c.redis.azure.net"),
            ("REDIS_USERNAME", "u"),
        ];
        let refused = |code: &str| Fault::AuthenticationRefused {
            code: code.to_owned(),
        };
        for (variables, fault, username, word) in [
            (entra, refused("WRONGPASS"), Some("u"), "az redisenterprise"),
            (entra, refused("NOPERM"), Some("u"), "az redisenterprise"),
            (named, refused("WRONGPASS"), Some("u"), "REDIS_USERNAME"),
            (none, refused("NOAUTH"), None, "unset REDIS_AUTH"),
            (key, refused("WRONGPASS"), None, "REDIS_KEY"),
            (key, refused("ERR"), None, "REDIS_AUTH=none"),
            (key, Fault::ConnectionLimit, None, "CLIENT LIST"),
            (none, Fault::AuthenticationInterrupted, None, "CLIENT LIST"),
            (
                entra,
                Fault::AuthenticationNotAnswered,
                Some("u"),
                "resourceState",
            ),
            (
                entra,
                Fault::TimedOut(ConnectStep::Authenticate),
                Some("u"),
                "resourceState",
            ),
        ] {
            let config = Config::new(&variables.iter().copied().collect()).expect("a complete one");
            let (cause, fix) = explain(&config, &fault, username);
            assert!(fix.contains(word), "{fault:?}: {cause}: {fix}");
        }
    }

    #[test]
    fn the_command_that_adds_a_user_is_that_of_the_product() {
        let managed = assignment("c.westeurope.redis.azure.net", "0-1");
        assert!(managed.contains("--cluster-name c ") && managed.contains("--object-id 0-1"));
        let cache = assignment("c.redis.cache.windows.net", "0-1");
        assert!(cache.starts_with("az redis ") && cache.contains("--object-id-alias 01"));
    }
}
