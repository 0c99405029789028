//! From the identity's variables to the token: what the platform gives, what Entra ID says, what the token says.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, timeout};

use super::{network::seconds, report::Verdict};
use crate::{
    config::{Config, CredentialChoice, CredentialName, Environment, Identity, IdentityEndpoint},
    file,
    identity::{
        AccessToken, AzureCredential, Error, MAX_CLOCK_SKEW, TokenSource,
        claims::{self, Claims},
    },
    report::ErrorChain as Chain,
};

/// The audience that Entra ID wants of an assertion (Azure page "Workload identity federation").
const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The two names of Azure Cache for Redis as a resource (Azure page "Use Microsoft Entra for cache authentication").
const REDIS_RESOURCES: [&str; 2] = [
    "https://redis.azure.com",
    "acca5fbb-b7e4-4009-81f1-37e38fd66d78",
];

pub(super) const LABEL_THE_POD: &str = "give the pod the label azure.workload.identity/use: \"true\" and its service account the annotation azure.workload.identity/client-id, then make the pod anew: what existed before is not changed";

/// What the variables announce, and whether the files that they name can be used.
pub(super) fn environment(
    environment: &Environment,
    config: &Config,
) -> (Verdict, Option<AzureCredential>) {
    let identity = &config.identity;
    let credential = match AzureCredential::new(identity.clone()) {
        Ok(credential) => credential,
        Err(error) => {
            let meaning = "the credential that is configured cannot be put together";
            let mend = "correct the file or the variable that is named";
            return (Verdict::failed(Chain(&error), meaning, mend), None);
        }
    };
    let asked = credential.candidates();
    let verdict = match asked {
        [] => {
            let (meaning, mend) = match is_in_kubernetes(environment) {
                true => ("this pod was not given its identity", LABEL_THE_POD),
                false => (
                    "there is nobody to sign in as",
                    "set the variables of one credential, or correct AZURE_TOKEN_CREDENTIALS",
                ),
            };
            let reasons: Vec<_> = CredentialName::ALL
                .iter()
                .filter_map(|name| reason(&credential, *name))
                .collect();
            let found = format!(
                "no credential can be asked for a token\n{}",
                reasons.join("\n")
            );
            return (Verdict::failed(found, meaning, mend), None);
        }
        [CredentialName::WorkloadIdentityCredential] => match &identity.federated_token_file {
            Some(path) => assertion(path),
            None => Verdict::passed("WorkloadIdentityCredential"),
        },
        _ if is_in_azure(environment)
            && identity.choice != CredentialChoice::Any
            && asked.iter().all(is_of_developers) =>
        {
            let reason = reason(&credential, CredentialName::ManagedIdentityCredential);
            Verdict::warned(
                format!("asked are {}\n{}", names(asked), reason.unwrap_or_default()),
                "these take a developer's sign-in, and here nobody signs in",
                "unset AZURE_TOKEN_CREDENTIALS, or set it to prod; the platform gives the identity",
            )
        }
        [CredentialName::ManagedIdentityCredential]
            if identity.identity_endpoint == IdentityEndpoint::Complete
                && identity.client_id.is_none() =>
        {
            Verdict::warned(
                "ManagedIdentityCredential is configured",
                "without AZURE_CLIENT_ID the system-assigned identity is asked for, and there may be none",
                "for a user-assigned identity set AZURE_CLIENT_ID to its client id: `az identity show --name NAME --resource-group RESOURCE_GROUP --query clientId`",
            )
        }
        [name]
            if matches!(identity.choice, CredentialChoice::Only(_))
                || *name == CredentialName::EnvironmentCredential
                || identity.identity_endpoint == IdentityEndpoint::Complete =>
        {
            Verdict::passed(format!(
                "{} is configured{}",
                name.as_str(),
                whose(identity)
            ))
        }
        _ => {
            let found = format!(
                "no variable announces a credential; asked are {}",
                names(asked)
            );
            let reason = reason(&credential, CredentialName::WorkloadIdentityCredential);
            match (is_in_kubernetes(environment), reason) {
                (true, Some(reason)) => Verdict::warned(
                    format!("{found}\n{reason}"),
                    "this pod was not given its identity by the workload identity webhook, and would take its node's",
                    LABEL_THE_POD,
                ),
                _ => Verdict::passed(found),
            }
        }
    };
    let usable = (!verdict.is_failed()).then_some(credential);
    (verdict, usable)
}

fn names(credentials: &[CredentialName]) -> String {
    let names: Vec<_> = credentials.iter().map(|name| name.as_str()).collect();
    names.join(", ")
}

/// Why this credential is not asked.
fn reason(credential: &AzureCredential, name: CredentialName) -> Option<String> {
    let mut skipped = credential.skipped().iter();
    let (_, reason) = skipped.find(|(one, _)| *one == name)?;
    Some(format!("{}: {reason}", name.as_str()))
}

fn is_of_developers(name: &CredentialName) -> bool {
    use CredentialName::*;
    matches!(name, AzureCliCredential | AzureDeveloperCliCredential)
}

/// Kubernetes sets this for every container ("Discovering services").
fn is_in_kubernetes(environment: &Environment) -> bool {
    environment.value("KUBERNETES_SERVICE_HOST").is_some()
}

/// Container Apps set this for every container ("Manage environment variables on Azure Container Apps").
fn is_in_azure(environment: &Environment) -> bool {
    is_in_kubernetes(environment) || environment.value("CONTAINER_APP_NAME").is_some()
}

fn whose(identity: &Identity) -> String {
    match &identity.client_id {
        Some(client_id) => format!(" for the client id {client_id}"),
        None => String::new(),
    }
}

/// The service account's token that is exchanged for one of Entra ID's.
fn assertion(path: &Path) -> Verdict {
    let shown = path.display();
    let text = match file::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            return Verdict::failed(
                format!("cannot read the federated token file {shown}: {error}"),
                "the pod has no service account token to exchange",
                LABEL_THE_POD,
            );
        }
    };
    let Ok(claims) = claims::read(text.trim()) else {
        return Verdict::failed(
            format!("the federated token file {shown} holds no JWT"),
            "what is there cannot be exchanged",
            "let AZURE_FEDERATED_TOKEN_FILE name the projected service account token; on AKS the webhook sets it",
        );
    };
    let unnamed = "nobody".to_owned();
    let subject = claims.sub.as_ref().unwrap_or(&unnamed);
    let issuer = claims.iss.as_ref().unwrap_or(&unnamed);
    let audiences = claims.aud.all().join(", ");
    let found = format!(
        "{shown} is for {subject}, by {issuer}, for {audiences}, {}",
        ends(&claims)
    );
    if remaining(&claims).is_none() {
        return Verdict::failed(
            found,
            "Entra ID takes no assertion that has ended (AADSTS700024)",
            "the kubelet renews the file: is it mounted as a projected volume, and is this machine's clock right?",
        );
    }
    if !claims.aud.all().iter().any(|one| one == EXCHANGE_AUDIENCE) {
        return Verdict::failed(
            found,
            "Entra ID takes no assertion for another audience (AADSTS700212)",
            format!("project the service account token with the audience {EXCHANGE_AUDIENCE}"),
        );
    }
    Verdict::passed(found)
}

/// A token from Entra ID.
pub(super) async fn token(
    config: &Config,
    credential: &AzureCredential,
) -> (Verdict, Option<AccessToken>) {
    let limit = credential.attempt_timeout();
    let asked = Instant::now();
    let answer = match timeout(limit, credential.fetch()).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::TimedOut(limit)),
    };
    match answer {
        Ok(token) => {
            let left = token.expires_at.duration_since(SystemTime::now());
            let found = format!(
                "by {} after {} ms, ends in {}",
                credential.name(),
                asked.elapsed().as_millis(),
                minutes(left.unwrap_or_default())
            );
            (Verdict::passed(found), Some(token))
        }
        Err(error) => {
            let mend = match &error {
                Error::Refused { fix, .. } => fix.unwrap_or(
                    "read what was answered above; compare AZURE_TENANT_ID, AZURE_CLIENT_ID and the identity in the portal",
                ),
                Error::Failed { credential: "AzureCliCredential", .. } => {
                    "sign in with `az login`; in Azure itself use the identity of the platform: see AZURE_TOKEN_CREDENTIALS"
                }
                Error::Failed { credential: "AzureDeveloperCliCredential", .. } => {
                    "sign in with `azd auth login`; in Azure itself use the identity of the platform: see AZURE_TOKEN_CREDENTIALS"
                }
                Error::TimedOut(_) | Error::Failed { .. } => {
                    "allow port 443 to the token endpoint out of this network (with managed identity the endpoint is on this machine), and see AZURE_AUTHORITY_HOST"
                }
                Error::Unavailable(_) if config.identity.choice == CredentialChoice::Development => {
                    "sign in with `az login`; in Azure itself unset AZURE_TOKEN_CREDENTIALS, or set it to prod: the platform gives the identity"
                }
                Error::Unavailable(_) => {
                    "set the variables of one credential; on AKS label the pod, on Container Apps assign an identity"
                }
                Error::NotAJwt | Error::NoObjectId => {
                    "set REDIS_USERNAME to the object id of the identity"
                }
                _ => "compare this machine's clock, and see the words above",
            };
            let meaning = format!(
                "{}; without a token Redis cannot be signed in to",
                error.kind().description()
            );
            let found = match &error {
                // Its mend is told below, and Entra ID's answer ends in numbers for Microsoft's support.
                Error::Refused {
                    credential,
                    status,
                    source,
                    ..
                } => {
                    let words = source.to_string();
                    let words = words.split(" Trace ID:").next().unwrap_or_default();
                    format!("{credential} was refused with status {status}: {words}")
                }
                other => Chain(other).to_string(),
            };
            (Verdict::failed(found, meaning, mend), None)
        }
    }
}

/// What the token says of itself: for whom, for what, until when, and how far this machine's clock is off.
pub(super) fn claims(config: &Config, token: &AccessToken) -> (Verdict, Option<()>) {
    let Ok(claims) = claims::read(token.secret.expose()) else {
        let why = "the token is no JWT; REDIS_USERNAME says who it is for";
        return (Verdict::not_applicable(why), Some(()));
    };
    let audiences = claims.aud.all();
    let found = format!(
        "object id {}, tenant {}, for {}, {}",
        claims.oid.as_deref().unwrap_or("unnamed"),
        claims.tid.as_deref().unwrap_or("unnamed"),
        audiences.join(", "),
        ends(&claims)
    );
    let resource = config.identity.scope.trim_end_matches("/.default");
    let is_meant = |one: &String| {
        let one = one.trim_end_matches('/');
        one == resource || (REDIS_RESOURCES.contains(&resource) && REDIS_RESOURCES.contains(&one))
    };
    if !audiences.iter().any(is_meant) {
        let verdict = Verdict::failed(
            found,
            format!("the token is not for {resource}: Redis refuses it"),
            "unset REDIS_SCOPE, or set it to the scope of Azure Managed Redis in your cloud",
        );
        return (verdict, None);
    }
    let verdict = match claims::skew(token.secret.expose(), token.expires_at, SystemTime::now()) {
        Some(skew) if skew.by > MAX_CLOCK_SKEW => Verdict::warned(
            found,
            format!("this machine's clock is {skew}"),
            "set the clock: certificates and assertions are judged by it",
        ),
        _ => match (claims.oid.as_ref(), &config.identity.username) {
            (Some(oid), Some(username)) if oid != username => Verdict::warned(
                found,
                format!("REDIS_USERNAME is not the token's object id, {oid}"),
                "unset REDIS_USERNAME: Redis knows an identity by its object id, not by its client id",
            ),
            _ => Verdict::passed(found),
        },
    };
    (verdict, Some(()))
}

/// How long it will still live; `None` once it has ended.
fn remaining(claims: &Claims) -> Option<Duration> {
    let ends = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp?))?;
    ends.duration_since(SystemTime::now()).ok()
}

fn ends(claims: &Claims) -> String {
    match (claims.exp, remaining(claims)) {
        (None, _) => "without an end".to_owned(),
        (Some(_), None) => "which has ended".to_owned(),
        (Some(_), Some(left)) => format!("ends in {}", minutes(left)),
    }
}

pub(super) fn minutes(left: Duration) -> String {
    match left.as_secs() {
        short @ 0..120 => seconds(Duration::from_secs(short)),
        long => format!("{} min", long / 60),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;
    use crate::{
        doctor::{Finding, Outcome, Step},
        secret::Secret,
    };

    /// What is found in a token that came now, with these claims.
    fn judged(claims: &str) -> (Outcome, String) {
        let variables = [("REDIS_ENDPOINT", "localhost:1")];
        let config = Config::new(&variables.into_iter().collect()).expect("it is complete");
        let token = AccessToken {
            username: "somebody".to_owned(),
            secret: Secret::new(format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims))),
            expires_at: SystemTime::now() + Duration::from_secs(3600),
        };
        let (verdict, _) = super::claims(&config, &token);
        let finding = Finding::new(Step::Claims, verdict, None);
        let told = format!(
            "{:?} {:?} {:?}",
            finding.found, finding.meaning, finding.mend
        );
        (finding.outcome, told)
    }

    #[test]
    fn a_token_for_another_resource_or_by_another_clock_is_told() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is later than 1970").as_secs();
        let with = |audience: &str, ends: u64| {
            judged(&format!(
                r#"{{"oid":"somebody","aud":"{audience}","iat":{},"exp":{ends}}}"#,
                ends - 3600
            ))
        };
        let (outcome, told) = with("https://redis.azure.com/", now + 3600);
        assert_eq!(outcome, Outcome::Passed, "{told}");
        let (outcome, told) = with("https://management.azure.com", now + 3600);
        assert_eq!(outcome, Outcome::Failed);
        assert!(told.contains("unset REDIS_SCOPE"), "{told}");
        for (ends, word) in [(now + 7200, "behind"), (now + 1800, "ahead")] {
            let (outcome, told) = with("https://redis.azure.com", ends);
            assert_eq!(outcome, Outcome::Warned, "{told}");
            assert!(
                told.contains("set the clock") && told.contains(word),
                "{told}"
            );
        }
    }
}
