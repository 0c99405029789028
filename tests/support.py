"""Shared parts of the scripts in this directory: counted checks, waiting, installing, and the end of a script.

A script's last lines are `if __name__ == "__main__": support.end_with(main)`. Code that only one script needs does not
belong here.
"""

import contextlib
import http.client
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
NAME = f"tests/{pathlib.Path(sys.argv[0]).name}"

passed = 0


class Failed(Exception):
    """A failure that ends the script; its text is the message for the user."""


def ok(what):
    """Counts and prints a check that passed."""
    global passed
    passed += 1
    print(f"ok: {what}", flush=True)


def check(good, what, found=""):
    if not good:
        raise Failed(f"{what}\n{found}".rstrip())
    ok(what)


def eventually(what, condition, limit=60):
    """Waits until the condition returns a true value, and returns that value."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError, http.client.HTTPException):
            if found := condition():
                return found
        time.sleep(0.1)
    raise Failed(f"not within {limit} s: {what}")


def run(*command, **options):
    """Runs a command that must succeed, and returns its output."""
    options.setdefault("stderr", subprocess.PIPE)
    result = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, **options)
    if result.returncode:
        raise Failed(f"{' '.join(map(str, command))} exited with {result.returncode}\n{result.stdout}{result.stderr or ''}")
    return result.stdout


def install(*packages):
    """Installs missing Debian packages, each given with a command or file that it contains."""
    missing = [package for brings, package in packages if not (shutil.which(brings) or os.path.exists(brings))]
    if missing:
        print(f"{NAME}: installing {' '.join(missing)}", file=sys.stderr)
        sudo = [] if os.getuid() == 0 else ["sudo"]
        run(*sudo, "apt-get", "update", "-qq")
        run(*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def environment(name, packages, *options):
    """Creates an environment under target/ with these Python packages, again when they change; returns its path."""
    if not importlib.util.find_spec("ensurepip"):
        install(("/nonexistent", "python3-venv"))
    place = TARGET / name
    installed = place / "installed"
    wanted = "\n".join([sys.version, *options, *packages])
    if not installed.exists() or installed.read_text() != wanted:
        run(sys.executable, "-m", "venv", "--clear", place)
        run(place / "bin/pip", "install", "--quiet", "--only-binary", ":all:", *options, *packages)
        installed.write_text(wanted)
    return place


def begin_again_in(place):
    """Restarts this script in an environment, unless it already runs there."""
    if pathlib.Path(sys.prefix) != place:
        os.execv(place / "bin/python", [place / "bin/python", *sys.argv])


def end_with(main):
    """Runs main, prints the number of checks, and exits with 1 after a failure."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Failed as failed:
        print(f"{NAME}: {failed}", file=sys.stderr)
        sys.exit(f"{NAME}: {passed} passed, 1 failed")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{NAME}: {passed} passed, 0 failed")
