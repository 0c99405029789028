//! One endpoint or a cluster, and whether each primary of a cluster responds.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    commands,
    examination::{Checked, Failed, Passed},
};
use crate::config::Config;
use entra_redis::{
    diagnostics::{self, Error, Fault, UnavailablePrimary},
    error_chain::ErrorChain,
    pool::Pool,
};

/// Waits for the decision about the clustering policy, then for the primaries.
pub(super) async fn check(config: &Config, pool: &Pool) -> Checked<()> {
    let limit = config.redis.connect_timeout;
    let clustering = diagnostics::clustering(pool, limit).await;
    let clustering = clustering.map_err(|error| explain(&error))?;
    if clustering.refusal_code() == Some("NOPERM") {
        return Ok(Passed::warned(
            clustering,
            "this Redis user may not run CLUSTER SLOTS; if the cache is a cluster, most commands fail",
            "allow +cluster|slots in the access policy",
            (),
        ));
    }
    if !clustering.is_cluster() {
        return Ok(Passed::new(clustering, ()));
    }
    let unavailable = diagnostics::unavailable_primaries(pool, limit).await;
    if unavailable.is_empty() {
        let observed = format!("{clustering}; all primaries respond");
        return Ok(Passed::new(observed, ()));
    }
    let mut observed = clustering.to_string();
    for UnavailablePrimary { address, error, .. } in &unavailable {
        let _ = write!(observed, "\n{address}: {}", ErrorChain(error));
    }
    let fixes: BTreeSet<_> = unavailable.iter().map(|one| fix(&one.error)).collect();
    let fixes: Vec<_> = fixes.into_iter().collect();
    Err(Failed::new(
        observed,
        "commands whose keys are on these primaries fail",
        fixes.join("; "),
    ))
}

fn explain(error: &Error) -> Failed {
    let (cause, fix) = match error.fault() {
        Fault::ClusteringUndecided { code } => commands::explain(&code),
        Fault::NotAnswered => (
            "the cache is overloaded, starting or scaling",
            "check the cache's server load, and try again",
        ),
        _ => (
            "REDIS_CLUSTERING_POLICY does not match the cache, or the cluster is incomplete",
            "unset REDIS_CLUSTERING_POLICY to detect the policy; `az redisenterprise database show --cluster-name NAME --resource-group RESOURCE_GROUP --query clusteringPolicy` prints Azure's",
        ),
    };
    Failed::new(ErrorChain(error), cause, fix)
}

/// Returns the fix for a primary that does not respond, although the endpoint does.
fn fix(error: &Error) -> &'static str {
    match error.fault() {
        Fault::CommandRefused { code } => commands::explain(&code).1,
        Fault::AuthenticationRefused { .. } | Fault::ConnectionLimit => {
            "the node refuses what the endpoint accepts: if the cache is scaling, or the access policy is new, try again in a minute"
        }
        Fault::CertificateName
        | Fault::CertificateExpired
        | Fault::CertificateNotYetValid
        | Fault::CertificateUntrusted
        | Fault::NoCommonTls
        | Fault::NotTls
        | Fault::HandshakeFailed => {
            "the node's certificate must be valid for the endpoint's name: look for a proxy or firewall that terminates TLS in between"
        }
        _ => {
            "allow outbound traffic to the ports of the nodes, 8500 to 8599 in Azure, beside that of the endpoint; if they are open, check the cache's state"
        }
    }
}
