//! The emulator behind the command line. Its own tests are those of its package.

use std::process::Command;

use crate::support::Service;

#[test]
fn the_parts_of_a_federated_credential_are_given_together() {
    let program = env!("CARGO_BIN_EXE_entra-redis");
    for command in ["dev", "emulate"] {
        let refused = Command::new(program)
            .args([
                command,
                "--federated-issuer",
                "https://kubernetes.default.svc.cluster.local",
                "--federated-keys",
                "keys.json",
            ])
            .output()
            .expect("it starts");
        assert_eq!(refused.status.code(), Some(64));
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(error.contains("--federated-subject"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_serves_with_the_enterprise_cluster_policy() {
    let arguments = ["dev", "--clustering-policy", "EnterpriseCluster"];
    let service = Service::start(&arguments, [("", ""); 0]).await;
    service.ready().await;
    assert_eq!(service.text("/sample").await, "Previous visit was at: ");
}
