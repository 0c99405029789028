//! The library alone in a program of your own; shown in the README.

use std::{error::Error, sync::Arc};

use entra_redis::{
    env::{Environment, Settings},
    identity::AzureCredential,
    pool::Builder,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::new(&Environment::from_process())?; // REDIS_ENDPOINT, AZURE_… and the others
    let credential = Arc::new(AzureCredential::new(settings.identity)?);
    let pool = Builder::from(settings.redis)
        .token_source(credential)
        .build()?;

    pool.wait_connected().await; // waits through failed attempts; get() and query() fail fast
    let visits: u64 = pool.query(redis::cmd("INCR").arg("visits")).await?; // at most once
    let again: u64 = pool
        .query_idempotent(redis::cmd("GET").arg("visits")) // sent again if its connection is lost
        .await?;
    println!("visit {visits}; Redis has counted {again}");

    let mut connection = pool.get().await?; // a redis::aio::ConnectionLike, shared and authenticated
    let removed: bool = redis::cmd("DEL")
        .arg("gone")
        .query_async(&mut connection)
        .await?;
    println!("removed: {removed}");

    drop(connection); // close() waits for connections in use
    pool.close().await;
    Ok(())
}
