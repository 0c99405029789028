//! What a refusal means and what to do: Entra ID's codes and the managed identity endpoint's answers, explained.
//!
//! The codes are Microsoft's, from "Microsoft Entra authentication and authorization error codes" and the workload
//! identity troubleshooting page; each explanation ends with a deed.

/// The number after the first `AADSTS` in a text.
pub(super) fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// What the code means and what to do.
pub(super) fn aadsts(code: u32) -> Option<&'static str> {
    Some(match code {
        90002 | 900_023 => {
            "there is no such tenant: check AZURE_TENANT_ID and AZURE_AUTHORITY_HOST"
        }
        700_016 => {
            "the tenant has no such application: check AZURE_CLIENT_ID (the client id, not the object id) and AZURE_TENANT_ID"
        }
        7_000_215 => {
            "the client secret is wrong: AZURE_CLIENT_SECRET must be the secret's value, not its id"
        }
        7_000_222 => "the client secret has expired: create a new one and set AZURE_CLIENT_SECRET",
        7_000_216 => "the application must bring a secret or an assertion, and brought neither",
        700_027 => {
            "the signature is by no certificate of the application, or by no key of the federated credential's issuer: upload the certificate to the application registration, or see who wrote AZURE_FEDERATED_TOKEN_FILE"
        }
        70021 | 700_211 => {
            "no federated credential of the identity has this issuer: compare `az aks show --name NAME --resource-group RESOURCE_GROUP --query oidcIssuerProfile.issuerUrl` with `az identity federated-credential list`"
        }
        70025 => {
            "the identity has no federated credential at all: `az identity federated-credential create` with this cluster's issuer and the pod's service account; a new one takes a minute to be known"
        }
        700_213 => {
            "no federated credential of the identity has this subject: it must be system:serviceaccount:NAMESPACE:SERVICEACCOUNT of the pod; see `az identity federated-credential list`"
        }
        700_212 => {
            "the federated credential's audience differs: both must be api://AzureADTokenExchange"
        }
        700_024 => {
            "the assertion is outside its time: compare this machine's clock, or the federated token file is stale"
        }
        70011 | 1_002_012 => "the scope is not one: REDIS_SCOPE must end in /.default",
        500_011 => "the tenant does not know the resource: check REDIS_SCOPE",
        53003 => "a Conditional Access policy blocks the sign-in: ask the tenant's administrator",
        90033 | 90046 => "Entra ID is busy or in trouble for the moment: it is asked again",
        _ => return None,
    })
}

/// What a refusal of the managed identity endpoint means, by its status.
pub(super) fn managed_identity(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => {
            "the identity is not assigned to this app or machine: assign it, or set AZURE_CLIENT_ID to the client id of one that is"
        }
        401 => "IDENTITY_HEADER is not the platform's: do not set it yourself",
        404 | 410 => "the endpoint has no identity yet: is one assigned?",
        429 => "the endpoint is asked too often by this machine: it is asked again later",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_found_in_entras_texts() {
        assert_eq!(
            code("AADSTS700016: Application with identifier"),
            Some(700_016)
        );
        assert_eq!(code("x failed. AADSTS7000215: Invalid"), Some(7_000_215));
        for without in ["", "AADSTS", "AADSTS: x", "AADSTS99999999999999: too long"] {
            assert_eq!(code(without), None, "{without}");
        }
        assert!(aadsts(700_213).is_some_and(|fix| fix.contains("serviceaccount")));
        assert!(aadsts(70025).is_some_and(|fix| fix.contains("federated-credential create")));
        assert_eq!(aadsts(1), None);
    }
}
