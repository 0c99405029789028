//! Gets one token as a managed identity and prints its object id: `managed_identity client-id|object-id|resource-id ID`.
//!
//! Run it where Azure provides the identity (Container Apps, App Service, a virtual machine), or with the variables that
//! `entra-redis emulate` prints.

use std::{error::Error, time::SystemTime};

use entra_redis::{
    env::{Environment, Identity},
    identity::{AzureCredential, ManagedIdentity, TokenSource},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let identity = match &arguments[..] {
        [kind, id] if kind == "client-id" => ManagedIdentity::ClientId(id.clone()),
        [kind, id] if kind == "object-id" => ManagedIdentity::ObjectId(id.clone()),
        [kind, id] if kind == "resource-id" => ManagedIdentity::ResourceId(id.clone()),
        _ => return Err("usage: managed_identity client-id|object-id|resource-id ID".into()),
    };
    let mut environment = Environment::from_process();
    environment.set("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential");
    let settings = Identity::from_environment(&environment)?;
    let credential = AzureCredential::new(settings)?.managed_identity(identity)?;
    let token = credential.fetch().await?;
    let life = token.expires_at.duration_since(SystemTime::now())?;
    println!("{} for {} s", token.username, life.as_secs());
    Ok(())
}
