//! The emulator of Entra ID and Azure's front, with faults on demand: `faults LIFETIME REDIS`.
//!
//! Prints the variables that a client needs, like `entra-redis emulate`, then sets each fault that a line of standard input
//! names and prints `done`; exits at the end of standard input. `tests/alerts` uses it.

use std::{error::Error, io::stdin};

use entra_redis_emulator::{Controls, Emulator, EntraFault, Options, RedisFault};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [lifetime, redis] = &arguments[..] else {
        return Err("usage: faults LIFETIME REDIS, such as faults 60s 127.0.0.1:6379".into());
    };
    let emulator = Emulator::bind(Options {
        token_lifetime: entra_redis_service::config::duration(lifetime)?,
        redis: Some(redis.clone()),
        ..Options::default()
    })
    .await?;
    for (name, value) in emulator.variables() {
        println!("{name}={value}");
    }
    println!(); // the end of the variables
    let controls = emulator.controls();
    let stop = CancellationToken::new();
    let running = tokio::spawn(emulator.run(stop.clone()));
    // Blocks this thread only; the emulator runs on others.
    for line in stdin().lines() {
        set_fault(&controls, &line?)?;
        println!("done");
    }
    stop.cancel();
    Ok(running.await?)
}

fn set_fault(controls: &Controls, line: &str) -> Result<(), Box<dyn Error>> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["entra", "none"] => controls.set_entra(EntraFault::None),
        ["entra", "status", code] => controls.set_entra(EntraFault::Status(code.parse()?)),
        ["redis", "none"] => controls.set_redis(RedisFault::None),
        ["redis", "refuse-auth"] => controls.set_redis(RedisFault::RefuseAuth),
        ["redis", "refuse"] => controls.set_redis(RedisFault::Refuse),
        ["redis", "disconnect"] => controls.disconnect_all(),
        _ => return Err(format!("unknown fault: {line}").into()),
    }
    Ok(())
}
