//! The emulator of Entra ID and Azure's front, with faults on demand: `faults LIFETIME REDIS`.
//!
//! Prints the variables with which a client uses it, as `entra-redis emulate` does, then makes each fault that a line of
//! standard input names and answers `done`; ends with standard input. `tests/alerts` makes its faults with it.

use std::{error::Error, io::stdin};

use entra_redis_service::emulator::{Controls, Emulator, EntraFault, Options, RedisFault};
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
    println!(); // the last one was said
    let controls = emulator.controls();
    let end = CancellationToken::new();
    let running = tokio::spawn(emulator.run(end.clone()));
    // Blocks this thread alone; the emulator runs on others.
    for line in stdin().lines() {
        make(&controls, &line?)?;
        println!("done");
    }
    end.cancel();
    Ok(running.await?)
}

fn make(controls: &Controls, line: &str) -> Result<(), Box<dyn Error>> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["entra", "none"] => controls.set_entra(EntraFault::None),
        ["entra", "status", code] => controls.set_entra(EntraFault::Status(code.parse()?)),
        ["redis", "none"] => controls.set_redis(RedisFault::None),
        ["redis", "refuse-auth"] => controls.set_redis(RedisFault::RefuseAuth),
        ["redis", "refuse"] => controls.set_redis(RedisFault::Refuse),
        ["redis", "disconnect"] => controls.disconnect_all(),
        _ => return Err(format!("no such fault: {line}").into()),
    }
    Ok(())
}
