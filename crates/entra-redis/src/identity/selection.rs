//! The selection of a credential, made once at start, from the configuration alone where possible.
//!
//! The order is the Azure SDKs' (DefaultAzureCredential): environment, workload identity, managed identity, Azure CLI,
//! Azure Developer CLI.
//!
//! # Invariants
//! - A credential that variables configure is the only candidate, because only "not configured" moves on to the next.
//! - Each credential that is skipped has a reason that contains the fix.

use crate::env::{CredentialChoice, CredentialName, Identity};

/// The credentials to try, and the rest with the reasons.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// One where variables decide; else those that can only be found by a request, in order.
    pub(super) candidates: Vec<CredentialName>,
    /// The others, each with the reason.
    pub(super) skipped: Vec<(CredentialName, String)>,
}

/// The state of one credential by the configuration.
enum Verdict {
    Configured,
    /// No variable configures it: only a request shows whether it exists.
    Unknown,
    /// Not usable, for this reason.
    Skipped(String),
}

/// Selects the credentials to try.
pub(super) fn select(identity: &Identity) -> Selection {
    use CredentialName::*;
    let mut selection = Selection {
        candidates: Vec::new(),
        skipped: Vec::new(),
    };
    let mut configured = None;
    for name in CredentialName::ALL {
        let verdict = match (configured, name) {
            _ if !is_allowed(identity.choice, name) => {
                Verdict::Skipped("AZURE_TOKEN_CREDENTIALS excludes it".to_owned())
            }
            (Some(first), _) => Verdict::Skipped(format!("{first} takes precedence")),
            (None, EnvironmentCredential) => environment(identity),
            (None, WorkloadIdentityCredential) => workload_identity(identity),
            (None, ManagedIdentityCredential) => managed_identity(identity),
            (None, AzureCliCredential | AzureDeveloperCliCredential) => Verdict::Unknown,
        };
        match verdict {
            Verdict::Configured => {
                configured = Some(name.as_str());
                // Candidates before it that only a request could find are not tried: a configured one wins.
                let untried = selection.candidates.drain(..);
                let reason = format!("{} is configured", name.as_str());
                selection
                    .skipped
                    .extend(untried.map(|name| (name, reason.clone())));
                selection.candidates.push(name);
            }
            Verdict::Unknown => selection.candidates.push(name),
            Verdict::Skipped(reason) => selection.skipped.push((name, reason)),
        }
    }
    selection
}

fn is_allowed(choice: CredentialChoice, name: CredentialName) -> bool {
    use CredentialName::*;
    match choice {
        CredentialChoice::Any => true,
        CredentialChoice::Production => {
            !matches!(name, AzureCliCredential | AzureDeveloperCliCredential)
        }
        CredentialChoice::Development => {
            matches!(name, AzureCliCredential | AzureDeveloperCliCredential)
        }
        CredentialChoice::Only(only) => name == only,
    }
}

/// Returns the names of the variables that are not set.
fn missing(variables: &[(&str, bool)]) -> String {
    let missing: Vec<_> = variables
        .iter()
        .filter(|(_, is_set)| !is_set)
        .map(|(name, _)| *name)
        .collect();
    missing.join(" and ")
}

fn environment(identity: &Identity) -> Verdict {
    let has_secret = identity.client_secret.is_some() || identity.client_certificate.is_some();
    let missing = missing(&[
        ("AZURE_TENANT_ID", identity.tenant_id.is_some()),
        ("AZURE_CLIENT_ID", identity.client_id.is_some()),
        (
            "AZURE_CLIENT_SECRET (or AZURE_CLIENT_CERTIFICATE_PATH)",
            has_secret,
        ),
    ]);
    if missing.is_empty() {
        Verdict::Configured
    } else {
        Verdict::Skipped(format!("not set: {missing}"))
    }
}

fn workload_identity(identity: &Identity) -> Verdict {
    if identity.federated_token_file.is_none() {
        return Verdict::Skipped(
            "not set: AZURE_FEDERATED_TOKEN_FILE; on AKS the webhook sets it for pods with the label azure.workload.identity/use: \"true\", created after the label was set".to_owned(),
        );
    }
    let missing = missing(&[
        ("AZURE_TENANT_ID", identity.tenant_id.is_some()),
        ("AZURE_CLIENT_ID", identity.client_id.is_some()),
    ]);
    if missing.is_empty() {
        Verdict::Configured
    } else {
        Verdict::Skipped(format!(
            "not set: {missing}; check the service account's annotation azure.workload.identity/client-id"
        ))
    }
}

fn managed_identity(identity: &Identity) -> Verdict {
    match identity.identity_endpoint {
        crate::env::IdentityEndpoint::Complete => Verdict::Configured,
        crate::env::IdentityEndpoint::WithoutHeader => Verdict::Skipped(
            "IDENTITY_ENDPOINT is set but IDENTITY_HEADER is not: this kind of managed identity is not supported".to_owned(),
        ),
        crate::env::IdentityEndpoint::Unset => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Environment, Settings};

    const TENANT: (&str, &str) = ("AZURE_TENANT_ID", "contoso.example");
    const CLIENT: (&str, &str) = ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000001");
    const SECRET: (&str, &str) = ("AZURE_CLIENT_SECRET", "s");
    const CERTIFICATE: (&str, &str) = ("AZURE_CLIENT_CERTIFICATE_PATH", "/c.pem");
    const FILE: (&str, &str) = ("AZURE_FEDERATED_TOKEN_FILE", "/f");
    const ENDPOINT: (&str, &str) = ("IDENTITY_ENDPOINT", "http://e");
    const HEADER: (&str, &str) = ("IDENTITY_HEADER", "h");

    const fn credentials(value: &'static str) -> (&'static str, &'static str) {
        ("AZURE_TOKEN_CREDENTIALS", value)
    }

    /// Environment, expected candidates, and for each skipped credential a part of its reason.
    #[test]
    #[rustfmt::skip] // a table
    fn environments_select_credentials() {
        type Row = (&'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);
        const TABLE: &[Row] = &[
            // Variables configure one: it is the only candidate.
            (&[TENANT, CLIENT, SECRET], "Environment", &["Environment", "Environment", "Environment", "Environment"]),
            (&[TENANT, CLIENT, CERTIFICATE], "Environment", &["takes precedence", "", "", ""]),
            (&[TENANT, CLIENT, SECRET, FILE, ENDPOINT, HEADER], "Environment", &["", "", "", ""]),
            (&[TENANT, CLIENT, FILE], "WorkloadIdentity", &["AZURE_CLIENT_SECRET", "takes precedence", "", ""]),
            (&[TENANT, CLIENT, FILE, ENDPOINT, HEADER], "WorkloadIdentity", &["", "takes precedence", "", ""]),
            (&[CLIENT, ENDPOINT, HEADER], "ManagedIdentity", &["AZURE_TENANT_ID and AZURE_CLIENT_SECRET", "azure.workload.identity/use", "", ""]),
            (&[ENDPOINT, HEADER], "ManagedIdentity", &["AZURE_CLIENT_ID", "webhook", "", ""]),
            // Set but empty means unset.
            (&[TENANT, CLIENT, ("AZURE_CLIENT_SECRET", ""), FILE], "WorkloadIdentity", &["AZURE_CLIENT_SECRET", "", "", ""]),
            // Nothing is configured: those that only a request can find, in order.
            (&[], "ManagedIdentity AzureCli AzureDeveloperCli", &["AZURE_TENANT_ID and AZURE_CLIENT_ID and AZURE_CLIENT_SECRET", "webhook"]),
            (&[SECRET], "ManagedIdentity AzureCli AzureDeveloperCli", &["not set: AZURE_TENANT_ID and AZURE_CLIENT_ID", ""]),
            (&[FILE], "ManagedIdentity AzureCli AzureDeveloperCli", &["", "azure.workload.identity/client-id"]),
            (&[TENANT, FILE], "ManagedIdentity AzureCli AzureDeveloperCli", &["", "not set: AZURE_CLIENT_ID"]),
            (&[ENDPOINT], "AzureCli AzureDeveloperCli", &["", "", "IDENTITY_HEADER is not"]),
            // AZURE_TOKEN_CREDENTIALS restricts the list.
            (&[credentials("prod")], "ManagedIdentity", &["", "", "excludes it", "excludes it"]),
            (&[credentials("PROD"), TENANT, CLIENT, SECRET], "Environment", &["", "", "", ""]),
            (&[credentials("dev")], "AzureCli AzureDeveloperCli", &["excludes it", "excludes it", "excludes it"]),
            (&[credentials("dev"), TENANT, CLIENT, SECRET], "AzureCli AzureDeveloperCli", &["excludes it", "", ""]),
            (&[credentials("AzureCliCredential"), TENANT, CLIENT, FILE], "AzureCli", &["excludes it", "", "", ""]),
            (&[credentials("ManagedIdentityCredential"), TENANT, CLIENT, FILE], "ManagedIdentity", &["", "", "", ""]),
            (&[credentials("managedidentitycredential"), CLIENT, ENDPOINT, HEADER], "ManagedIdentity", &["", "", "", ""]),
            (&[credentials("WorkloadIdentityCredential"), TENANT, CLIENT, SECRET, FILE], "WorkloadIdentity", &["excludes it", "", "", ""]),
        ];
        for (pairs, candidates, reasons) in TABLE {
            let mut environment: Environment = pairs.iter().copied().collect();
            environment.set("REDIS_ENDPOINT", "localhost:6379");
            let config = Settings::new(&environment).expect("the pairs are valid");
            let selection = select(&config.identity);
            let names: Vec<_> = selection
                .candidates
                .iter()
                .map(|name| name.as_str().trim_end_matches("Credential"))
                .collect();
            assert_eq!(names.join(" "), *candidates, "{pairs:?}");
            let skipped = &selection.skipped;
            assert_eq!(skipped.len(), reasons.len(), "{pairs:?}: {skipped:?}");
            for ((name, reason), part) in skipped.iter().zip(*reasons) {
                assert!(reason.contains(part), "{pairs:?}, {}: {reason}", name.as_str());
                assert!(!reason.is_empty());
            }
        }
    }

    proptest::proptest! {
        /// In any environment, each credential is a candidate or has a reason, and no reason contains a value.
        #[test]
        fn no_reason_shows_a_value(
            set in proptest::collection::vec(proptest::bool::ANY, 8),
            choice in 0..8_usize,
        ) {
            const MARKER: &str = "never-to-be-shown";
            const ID: &str = "00000000-0000-0000-0000-000000000001";
            let names = [
                ("AZURE_TENANT_ID", ID), ("AZURE_CLIENT_ID", ID), ("AZURE_CLIENT_SECRET", MARKER),
                ("AZURE_CLIENT_CERTIFICATE_PATH", MARKER), ("AZURE_CLIENT_CERTIFICATE_PASSWORD", MARKER),
                ("AZURE_FEDERATED_TOKEN_FILE", MARKER), ("IDENTITY_ENDPOINT", MARKER), ("IDENTITY_HEADER", MARKER),
            ];
            let pairs = names.into_iter().zip(set).filter(|(_, set)| *set).map(|(pair, _)| pair);
            let mut environment: Environment = pairs.collect();
            let choices = ["", "prod", "dev"].into_iter().chain(CredentialName::ALL.map(CredentialName::as_str));
            environment.set("AZURE_TOKEN_CREDENTIALS", choices.collect::<Vec<_>>()[choice]);
            environment.set("REDIS_ENDPOINT", "localhost:6379");
            let shown = match Settings::new(&environment) {
                Ok(config) => {
                    let selection = select(&config.identity);
                    let all = selection.candidates.len() + selection.skipped.len();
                    proptest::prop_assert_eq!(all, CredentialName::ALL.len());
                    format!("{selection:?}")
                }
                Err(error) => error.to_string(),
            };
            proptest::prop_assert!(!shown.contains(MARKER), "{}", shown);
        }
    }
}
