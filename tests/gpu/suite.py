"""Real jobs on a real GPU under leases, and the same without a GPU on the fake driver.

    suite.py                  on this host's first NVIDIA device; says "skipped: no GPU" where there is none
    suite.py --fake LIBRARY   on a fake driver: target/release/libgpulease_fake_nvml.so

It starts a coordinator of its own (GPULEASE_BINARY, else target/release/gpulease), runs jobs (job.py) through the command
line, and prints its figures as a table. Nothing else may use the device meanwhile. Exit code 1: something did not hold.
"""

import argparse
import ctypes
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
GIB = 1 << 30
# What a CUDA context takes besides what its program asks for, at the most.
CONTEXT_BYTES = 2 * GIB
SOON_SECONDS = 60
RACERS = 8


class Skipped(Exception):
    """This cannot be tried here."""


class Job:
    """A command that tells its steps as lines of JSON."""

    def __init__(self, host, words):
        self.words = words
        self.process = subprocess.Popen(words, env=host.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put({"event": "end"})

    def until(self, event):
        """The line that tells this step; others before it are passed over."""
        while True:
            try:
                line = self.lines.get(timeout=SOON_SECONDS)
            except queue.Empty:
                raise AssertionError(f"{self.words}: no {event!r} within {SOON_SECONDS} s") from None
            if line["event"] == event:
                return line
            if line["event"] in ("end", "out_of_memory"):
                raise AssertionError(f"{self.words}: {line['event']} before {event!r}")

    def end(self):
        """Its exit code."""
        return self.process.wait(SOON_SECONDS)


class Host:
    """A coordinator, and where it and its jobs find the driver."""

    def __init__(self, folder, fake):
        self.folder = folder
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
        self.binary = os.environ.get("GPULEASE_BINARY", str(target / "release" / "gpulease"))
        self.environment = dict(os.environ, XDG_STATE_HOME=str(folder), GPULEASE_ENDPOINT=f"unix://{folder}/socket")
        self.is_fake = fake is not None
        if self.is_fake:
            library = folder / "libnvidia-ml.so"
            shutil.copy(fake, library)
            memory = {"total_bytes": 80 * GIB, "reserved_bytes": 600 << 20, "used_bytes": 0}
            device = {"uuid": "GPU-00000000-feed-4bad-8cab-000000000000", "memory": memory, "processes": []}
            state = pathlib.Path(f"{library}.json")
            state.write_text(json.dumps({"calls_recorded": False, "devices": [device]}), encoding="utf-8")
            self.environment |= {
                "GPULEASE_SUITE_FAKE": str(state),
                "GPULEASE_DEVICES_NVML_LIBRARY": str(library),
                "GPULEASE_DEVICES_ATTRIBUTION": "on",
            }
        self.coordinator = None

    def __enter__(self):
        words = ["serve", "--json", "--listen", "none", "--http", "none", "--log", "warn"]
        words += ["--socket", str(self.folder / "socket"), "--data", str(self.folder / "data")]
        self.coordinator = subprocess.Popen([self.binary, *words], env=self.environment, stdout=subprocess.PIPE)
        ready = json.loads(self.coordinator.stdout.readline() or b"{}")
        if not ready.get("devices"):
            raise AssertionError(f"the coordinator has no devices: {ready}")
        return self

    def __exit__(self, *_):
        self.coordinator.terminate()
        self.coordinator.wait(SOON_SECONDS)

    def verb(self, *words):
        """What a verb prints with --json."""
        done = subprocess.run(
            [self.binary, *words, "--json"], env=self.environment, capture_output=True, text=True, timeout=SOON_SECONDS
        )
        if done.returncode != 0:
            raise AssertionError(f"gpulease {' '.join(words)}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def device(self):
        return self.verb("devices")[0]

    def hold(self, size, seconds, folder=None):
        words = [sys.executable, str(HERE / "job.py"), "hold", str(size), str(seconds)]
        return words + ([str(folder)] if folder else [])

    def run(self, options, command):
        return Job(self, [self.binary, "run", *options, "--", *command])

    def until(self, what, ask):
        """Asks until there is an answer; when that was."""
        limit = time.monotonic() + SOON_SECONDS
        while time.monotonic() < limit:
            if (answer := ask()) is not None:
                return answer, time.monotonic()
            time.sleep(0.05)
        raise AssertionError(f"after {SOON_SECONDS} s this had not happened: {what}")


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def gibibytes(size):
    return f"{size / GIB:.2f} GiB"


def attributed(host):
    """A job's bytes are its lease's."""
    if why := host.device().get("attribution_off"):
        raise Skipped(f"no attribution here: {why}")
    size = 4 * GIB
    job = host.run(["--memory", str(size + CONTEXT_BYTES)], host.hold(size, 20))
    way, holds = job.until("starts")["way"], job.until("holds")

    def shown():
        of_job = [process for process in host.verb("processes") if process["pid"] == holds["pid"]]
        whole = [process for process in of_job if process["memory_bytes"] >= size]
        return whole[0] if whole else None

    process, at = host.until("the job's bytes are seen", shown)
    check(process["lease_id"] is not None, f"they are foreign: {process}")
    check(process["root_pid"] == job.process.pid, f"they are in another tree: {process}")
    foreign = host.device()["memory_foreign_bytes"]
    check(foreign <= GIB, f"{foreign} bytes are foreign")
    job.process.terminate()
    job.end()
    yield "job's memory is taken through", way
    yield "asked for by the job", gibibytes(size)
    yield "attributed to its lease", gibibytes(process["memory_bytes"])
    yield "seen after", f"{at - holds['at']:.2f} s"


def next_in_line(host):
    """What a job gave back is free when the next one starts (P7)."""
    size, rounds = 8 * GIB, 3
    jobs = [host.run(["--exclusive", "--wait", "60s"], host.hold(size, 0.2)) for _ in range(rounds)]
    steps = sorted(((job.until("starts"), job.until("ends")) for job in jobs), key=lambda step: step[0]["at"])
    check([job.end() for job in jobs] == [0] * rounds, "a job failed")
    gaps = [after["at"] - before["at"] for (_, before), (after, _) in zip(steps, steps[1:])]
    check(all(gap >= 0 for gap in gaps), f"two jobs had the whole device at once: {gaps}")
    most = max(start["used_before_bytes"] for start, _ in steps)
    check(most < size, f"{most} bytes were in use when a job started")
    yield "in use at a job's start, the most", gibibytes(most)
    yield "from one job's end to the next one's start", f"{max(gaps):.2f} s at the most"


def gives_way(host):
    """A job that can pause gives its memory to one that is more urgent, and gets it back."""
    usage = subprocess.run([host.binary, "run", "--help"], capture_output=True, text=True, timeout=SOON_SECONDS)
    if "--on-pause <" not in usage.stdout:
        raise Skipped("gpulease run has no --on-pause yet")
    folder = host.folder / "pausing"
    folder.mkdir()
    tell = f"'{sys.executable}' '{HERE / 'job.py'}' tell '{folder}'"
    size = 40 * GIB if host.is_fake else host.device()["memory_total_bytes"] // 2
    words = ["--exclusive", "--priority", "background", "--preemptible", "pause"]
    words += ["--on-pause", f"{tell} pause", "--on-resume", f"{tell} resume"]
    patient = host.run(words, host.hold(size, 120, folder))
    patient.until("holds")
    asked = time.monotonic()
    urgent = host.run(["--exclusive", "--priority", "immediate", "--wait", "60s"], host.hold(size, 1))
    paused, starts = patient.until("paused"), urgent.until("starts")
    check(starts["at"] > paused["at"], "the second started before the first had freed its memory")
    check(starts["used_before_bytes"] < size, f"it was in use: {starts['used_before_bytes']} bytes")
    ends, resumed = urgent.until("ends"), patient.until("resumed")
    check(urgent.end() == 0, "the urgent job failed")
    patient.process.terminate()
    patient.end()
    yield "from the urgent request to the first job's pause", f"{paused['at'] - asked:.2f} s"
    yield "from the pause to the urgent job's start", f"{starts['at'] - paused['at']:.2f} s"
    yield "from the urgent job's end to the resume", f"{resumed['at'] - ends['at']:.2f} s"


def race(host):
    """Eight jobs that together want more than there is: some run out of memory without leases, and none with them."""
    total = host.device()["memory_total_bytes"]
    size = total // 5 - CONTEXT_BYTES
    free = [Job(host, host.hold(size, 2)) for _ in range(RACERS)]
    without = sum(job.end() == 3 for job in free)
    check(without > 0, "without leases there was enough for all")
    began = time.monotonic()
    options = ["--memory", str(size + CONTEXT_BYTES), "--wait", "120s"]
    leased = [host.run(options, host.hold(size, 0.5)) for _ in range(RACERS)]
    codes = [job.end() for job in leased]
    check(codes == [0] * RACERS, f"jobs under leases ended with {codes}")
    yield "each wants", gibibytes(size)
    yield "out of memory without leases", f"{without} of {RACERS}"
    yield "out of memory under leases", f"0 of {RACERS}, all done after {time.monotonic() - began:.1f} s"


def has_device():
    """Whether the driver's own library finds one."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    count = ctypes.c_uint()
    return nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 and count.value > 0


SCENARIOS = (attributed, next_in_line, gives_way, race)


def play(host):
    """All of it; how many passed, failed and were skipped."""
    passed = failed = skipped = 0
    for scenario in SCENARIOS:
        print(f"\n{scenario.__doc__}")
        try:
            for what, figure in scenario(host):
                print(f"  {what:<52} {figure}", flush=True)
            passed += 1
        except Skipped as why:
            skipped += 1
            print(f"skipped: {scenario.__name__}: {why}")
        except AssertionError as error:
            failed += 1
            print(f"  FAILED: {error}")
    return passed, failed, skipped


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--fake", metavar="LIBRARY", help="play on a fake driver")
    fake = options.parse_args().fake
    passed, failed, skipped = 0, 0, len(SCENARIOS)
    if fake is None and not has_device():
        print("skipped: no GPU")
    else:
        with tempfile.TemporaryDirectory(prefix="gpulease-gpu-") as folder, Host(pathlib.Path(folder), fake) as host:
            device = host.device()
            print(f"{device['model']}, {gibibytes(device['memory_total_bytes'])}")
            passed, failed, skipped = play(host)
    # As tests/run counts it.
    print(f"test result: {passed} passed; {failed} failed; {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
