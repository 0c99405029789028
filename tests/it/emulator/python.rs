//! Microsoft's azure-identity for Python, unchanged, against the emulator.
//!
//! The package is installed once into `target/python` and used again. What it must find is written in
//! `tests/it/azure_identity.py`.

use std::{path::PathBuf, process::Command};

use entra_redis::emulator::Options;

use super::signing::Certificate;
use crate::support::{Azure, repository};

/// Renewed by hand: a test must not change its result overnight.
const PACKAGE: &str = "azure-identity==1.27.0";

/// The interpreter that has the package.
fn python() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let target = target.parent().expect("cargo puts it into target/");
    let environment = target.join("python");
    let python = environment.join("bin/python");
    let mark = environment.join(PACKAGE);
    if mark.exists() {
        return python;
    }
    run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
        "this test needs python3 with venv (Debian: python3-venv)",
    );
    run(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", PACKAGE]),
        "this test needs azure-identity from pip",
    );
    std::fs::write(mark, "").expect("there is room");
    python
}

fn run(command: &mut Command, needed: &str) {
    let done = command.output();
    let done = done.unwrap_or_else(|error| panic!("{needed}: {error}"));
    let output = [done.stdout, done.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    assert!(done.status.success(), "{needed}: {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_identity_for_python_gets_its_tokens_here() {
    let (ours, other) = (Certificate::make(), Certificate::make());
    let azure = Azure::start(Options {
        client_certificate: Some(ours.path()),
        ..Options::default()
    })
    .await;
    let script = repository().join("tests/it/azure_identity.py");
    let mut command = Command::new(python());
    command
        .arg(script)
        .args([ours.with_key(), other.with_key()])
        .env_clear()
        .envs(azure.variables.iter().map(|(name, value)| (*name, value)));
    let done = tokio::task::spawn_blocking(move || run(&mut command, "azure-identity must work"));
    done.await.expect("every credential gets its token");
}
