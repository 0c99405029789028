//! Explanations of refusals: Entra ID's error codes and the statuses of the managed identity endpoint.
//!
//! The codes are Microsoft's, from "Microsoft Entra authentication and authorization error codes" and the workload
//! identity troubleshooting page; each explanation contains a fix.

/// Returns the number after the first `AADSTS` in a text.
pub(super) fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Returns the cause behind a code and how to fix it.
pub(super) fn aadsts(code: u32) -> Option<&'static str> {
    Some(match code {
        90002 | 900_023 => {
            "the tenant does not exist: check AZURE_TENANT_ID and AZURE_AUTHORITY_HOST"
        }
        700_016 => {
            "the tenant has no such application: check AZURE_CLIENT_ID (the client id, not the object id) and AZURE_TENANT_ID"
        }
        7_000_215 => {
            "the client secret is wrong: AZURE_CLIENT_SECRET must be the secret's value, not its id"
        }
        7_000_222 => "the client secret has expired: create a new one and set AZURE_CLIENT_SECRET",
        7_000_216 => {
            "the request has neither a secret nor an assertion: set AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH"
        }
        700_027 => {
            "the signing key is neither a certificate of the application nor a key of the federated credential's issuer: upload the certificate to the application registration, or check the source of AZURE_FEDERATED_TOKEN_FILE"
        }
        70021 | 700_211 => {
            "no federated credential of the identity has this issuer: compare `az aks show --name NAME --resource-group RESOURCE_GROUP --query oidcIssuerProfile.issuerUrl` with `az identity federated-credential list`"
        }
        70025 => {
            "the identity has no federated credential: `az identity federated-credential create` with this cluster's issuer and the pod's service account; a new one takes effect after about a minute"
        }
        700_213 => {
            "no federated credential of the identity has this subject: it must be system:serviceaccount:NAMESPACE:SERVICEACCOUNT of the pod; see `az identity federated-credential list`"
        }
        700_212 => {
            "the federated credential's audience differs: both must be api://AzureADTokenExchange"
        }
        700_024 => {
            "the assertion is expired or not valid yet: check this machine's clock, and that the federated token file is renewed"
        }
        70011 | 1_002_012 => "the scope is invalid: REDIS_SCOPE must end in /.default",
        500_011 => "the resource does not exist in the tenant: check REDIS_SCOPE",
        53003 => {
            "a Conditional Access policy blocks the authentication: ask the tenant's administrator"
        }
        90033 | 90046 => "Entra ID is temporarily unavailable: the request is retried",
        _ => return None,
    })
}

/// Returns the cause of a refusal by the managed identity endpoint, by its status.
pub(super) fn managed_identity(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => {
            "the identity is not assigned to this app or machine: assign it, or set AZURE_CLIENT_ID to the client id of one that is"
        }
        401 => "IDENTITY_HEADER is wrong: the platform sets it, remove your own value",
        404 | 410 => "the endpoint has no identity yet: check that one is assigned",
        429 => "this machine sends too many requests to the endpoint: the request is retried later",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_entra_ids_texts() {
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
