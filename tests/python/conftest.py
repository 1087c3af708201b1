"""The coordinator that the Python tests share: the real binary, simulated devices, port 0, a directory of its own."""

import json
import os
import pathlib
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
STOP_SECONDS_MAX = 10


def _binary() -> pathlib.Path:
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return pathlib.Path(os.environ.get("GPULEASE_BINARY", target / "release" / "gpulease"))


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory):
    """Where a coordinator with two devices of 24 GiB serves."""
    directory = tmp_path_factory.mktemp("coordinator")
    arguments = ["serve", "--json", "--simulate", "2x24GiB", "--listen", "127.0.0.1:0", "--http", "none"]
    arguments += ["--socket", "none", "--data", str(directory / "data")]
    with open(directory / "stderr.log", "wb") as log:
        process = subprocess.Popen([_binary(), *arguments], stdout=subprocess.PIPE, stderr=log)
    try:
        line = process.stdout.readline()
        assert line, (directory / "stderr.log").read_text()
        yield json.loads(line)["endpoint"]
    finally:
        process.terminate()
        process.wait(STOP_SECONDS_MAX)
