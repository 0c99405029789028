//! The service with a route of your own; shown in the README.

use axum::{
    Router,
    extract::{Path, State},
    routing::post,
};
use entra_redis::pool::Pool;
use entra_redis_service::{
    app::{self, App},
    config::{Config, Environment},
    http::Problem,
    lifecycle, telemetry,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new(&Environment::from_process())?;
    let telemetry = telemetry::start(&config.telemetry)?;
    let metrics = app::install_metrics(Some(&telemetry))?;
    let routes = Router::new().route("/visits/{page}", post(visit));
    let app = App::bind(config, metrics).await?.routes(routes);
    app.run(lifecycle::stop_signal()?).await?;
    telemetry.finish().await;
    Ok(())
}

/// Counts one more visit of a page. Without Redis or a token, callers get the same problem document as from `/sample`.
async fn visit(State(pool): State<Pool>, Path(page): Path<String>) -> Result<String, Problem> {
    let key = format!("visits:{page}");
    let visits: u64 = pool.query(redis::cmd("INCR").arg(key)).await?;
    Ok(format!("{visits}\n"))
}
