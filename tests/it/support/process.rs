//! State that a process has only once, which the tests of one process would otherwise share.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The test that this process was started for, in the process of a test's own.
const OWN_PROCESS: &str = "ENTRA_REDIS_TEST_IN_OWN_PROCESS";

/// Runs the calling test, `module::name`, again in a process of its own. Returns true in that process, and false in the
/// first one, once the test has passed there.
///
/// For tests of what a process has once: the metrics recorder, its memory.
pub(crate) async fn in_own_process(test: &str) -> bool {
    if std::env::var_os(OWN_PROCESS).is_some_and(|own| own == OsStr::new(test)) {
        return true;
    }
    let output = tokio::process::Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", test, "--nocapture"])
        .env(OWN_PROCESS, test)
        .kill_on_drop(true)
        .output()
        .await
        .expect("the test binary can be started again");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{test}, in a process of its own:\n{stdout}\n{stderr}"
    );
    false
}

/// Raises the limit of open files to the hard one, and returns it.
///
/// The limit is the process's, and is inherited by the processes that it starts. So everything that starts one calls this
/// first: all tests and all services have the same limit, whichever test runs first.
pub(crate) fn raise_file_limit() -> u64 {
    static LIMIT: LazyLock<u64> = LazyLock::new(|| {
        rlimit::increase_nofile_limit(u64::MAX).expect("it may be raised to the hard limit")
    });
    *LIMIT
}

/// Writes a shell script that can be run.
///
/// Another process writes it: if this one did, a process that another test starts at this moment would inherit the open
/// file, and running the script would fail with "text file busy".
pub(crate) fn write_program(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut stdin = shell.stdin.take().expect("it is piped");
    stdin
        .write_all(script.as_bytes())
        .expect("the shell reads it");
    drop(stdin);
    assert!(shell.wait().expect("it is our child").success());
}
