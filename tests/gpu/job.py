"""A job that takes device memory and holds it: what the GPU suite (suite.py) runs under leases, and without.

    job.py hold BYTES SECONDS [FOLDER]   takes them bit by bit, holds them so long, frees them
    job.py tell FOLDER pause|resume      lets a job that was given this folder free its memory, or take it again

It tells each step as a line of JSON, and ends with exit code 3 when the device has no more memory. On a GPU it takes
memory through torch, cupy or the driver alone, whichever is there first. Where GPULEASE_SUITE_FAKE names the state of a
fake driver, it enters there what it uses, as a driver would, and there is no GPU.
"""

import contextlib
import ctypes
import fcntl
import importlib
import json
import os
import pathlib
import signal
import sys
import time

PARTS = 10
LOOK_SECONDS = 0.02
TELL_SECONDS_MAX = 30
OUT_OF_MEMORY = 3


class OutOfMemory(Exception):
    """The device has no more."""


class Fake:
    """Memory that exists in the state of the fake driver alone."""

    name = "fake"

    def __init__(self, path):
        self.path = pathlib.Path(path)

    @contextlib.contextmanager
    def _device(self):
        with open(self.path.with_suffix(".lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(self.path.read_text(encoding="utf-8"))
            yield state["devices"][0]
            draft = self.path.with_suffix(".new")
            draft.write_text(json.dumps(state), encoding="utf-8")
            draft.rename(self.path)

    def take(self, size):
        with self._device() as device:
            memory = device["memory"]
            if memory["reserved_bytes"] + memory["used_bytes"] + size > memory["total_bytes"]:
                raise OutOfMemory
            own = [process for process in device["processes"] if process["pid"] == os.getpid()]
            if not own:
                own = [{"pid": os.getpid(), "memory_used_bytes": 0}]
                device["processes"].extend(own)
            own[0]["memory_used_bytes"] += size
            memory["used_bytes"] += size

    def free(self):
        with self._device() as device:
            own = [process for process in device["processes"] if process["pid"] == os.getpid()]
            device["processes"] = [process for process in device["processes"] if process["pid"] != os.getpid()]
            device["memory"]["used_bytes"] -= sum(process["memory_used_bytes"] for process in own)

    def used_bytes(self):
        with self._device() as device:
            return device["memory"]["used_bytes"]


class Torch:
    """Memory through torch."""

    name = "torch"

    def __init__(self):
        self.torch = importlib.import_module("torch")
        self.torch.cuda.init()
        self.kept = []

    def take(self, size):
        try:
            self.kept.append(self.torch.ones(size, dtype=self.torch.uint8, device="cuda"))
            self.torch.cuda.synchronize()
        except self.torch.cuda.OutOfMemoryError as error:
            raise OutOfMemory from error

    def free(self):
        self.kept.clear()
        self.torch.cuda.empty_cache()

    def used_bytes(self):
        free, total = self.torch.cuda.mem_get_info()
        return total - free


class Cupy:
    """Memory through cupy."""

    name = "cupy"

    def __init__(self):
        self.cupy = importlib.import_module("cupy")
        self.cupy.cuda.Device(0).use()
        self.kept = []

    def take(self, size):
        try:
            self.kept.append(self.cupy.ones(size, dtype=self.cupy.uint8))
            self.cupy.cuda.Device(0).synchronize()
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            raise OutOfMemory from error

    def free(self):
        self.kept.clear()
        self.cupy.get_default_memory_pool().free_all_blocks()

    def used_bytes(self):
        free, total = self.cupy.cuda.runtime.memGetInfo()
        return total - free


class Driver:
    """Memory through the CUDA driver alone, which is there wherever a GPU is."""

    name = "libcuda"

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.context = None
        self._check(self.cuda.cuInit(0))

    @staticmethod
    def _check(code):
        if code == 2:
            raise OutOfMemory
        if code != 0:
            raise OSError(f"the CUDA driver answered {code}")

    def _enter(self):
        if self.context is None:
            device, context = ctypes.c_int(), ctypes.c_void_p()
            self._check(self.cuda.cuDeviceGet(ctypes.byref(device), 0))
            self._check(self.cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device))
            self.context = context

    def take(self, size):
        self._enter()
        place = ctypes.c_uint64()
        self._check(self.cuda.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(size)))
        self._check(self.cuda.cuMemsetD8_v2(place, ctypes.c_ubyte(1), ctypes.c_size_t(size)))
        self._check(self.cuda.cuCtxSynchronize())

    def free(self):
        if self.context is not None:
            self._check(self.cuda.cuCtxDestroy_v2(self.context))
            self.context = None

    def used_bytes(self):
        self._enter()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._check(self.cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
        return total.value - free.value


def memory():
    """The first way to device memory that is there."""
    if state := os.environ.get("GPULEASE_SUITE_FAKE"):
        return Fake(state)
    for way in (Torch, Cupy):
        try:
            return way()
        except (ImportError, RuntimeError, AssertionError):
            pass
    return Driver()


def say(event, **facts):
    """One line; clocks of one host agree on its time."""
    print(json.dumps({"event": event, "pid": os.getpid(), "at": time.monotonic(), **facts}), flush=True)


def take_all(device, size):
    """In parts, as programs do, so that several that start together share what there is unknowingly."""
    for part in range(PARTS, 0, -1):
        device.take(size // part)
        size -= size // part
        time.sleep(LOOK_SECONDS)


def hold(size, seconds, folder):
    # Else memory of a fake driver would outlive the job.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    device = memory()
    say("starts", way=device.name, used_before_bytes=device.used_bytes())
    try:
        take_all(device, size)
        say("holds")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if folder and (folder / "pause").exists():
                device.free()
                say("paused")
                (folder / "paused").touch()
                while not (folder / "resume").exists():
                    time.sleep(LOOK_SECONDS)
                take_all(device, size)
                say("resumed")
                for name in ("pause", "paused", "resume"):
                    (folder / name).unlink(missing_ok=True)
                (folder / "resumed").touch()
            time.sleep(LOOK_SECONDS)
    except OutOfMemory:
        say("out_of_memory")
        return OUT_OF_MEMORY
    finally:
        device.free()
    say("ends")
    return 0


def tell(folder, what):
    done = folder / f"{what}d"
    done.unlink(missing_ok=True)
    (folder / what).touch()
    until = time.monotonic() + TELL_SECONDS_MAX
    while not done.exists():
        if time.monotonic() > until:
            return 1
        time.sleep(LOOK_SECONDS)
    return 0


def main(arguments):
    match arguments:
        case ["hold", size, seconds, *rest]:
            return hold(int(size), float(seconds), pathlib.Path(rest[0]) if rest else None)
        case ["tell", folder, ("pause" | "resume") as what]:
            return tell(pathlib.Path(folder), what)
    sys.stderr.write(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
