"""A foreign client: grpcio and the .proto files, nothing of gpulease's own.

As a module it gives the stubs, generated anew from proto/ into a temporary directory. As a program it does one verb,
for tests in which several clients share a lease:

    foreign.py ENDPOINT acquire BYTES TTL_SECONDS      prints "ID TOKEN"
    foreign.py ENDPOINT pausable BYTES TTL_SECONDS     the same, of a lease that may be paused for others
    foreign.py ENDPOINT renew ID TOKEN                 prints "ID TOKEN"
    foreign.py ENDPOINT acknowledge ID TOKEN           answers the notice that a renewal tells; prints the state
    foreign.py ENDPOINT resumed ID TOKEN               renews until the lease has a newer token; prints "ID TOKEN"
    foreign.py ENDPOINT release ID TOKEN               prints the state, such as LEASE_STATE_ENDED
"""

import atexit
import pathlib
import shutil
import sys
import tempfile
import time
import uuid

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
CALL_SECONDS_MAX = 20


def _generate() -> str:
    out = tempfile.mkdtemp(prefix="gpulease-python-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    files = [str(path) for path in sorted((PROTO / "gpulease" / "v1").glob("*.proto"))]
    well_known = str(pathlib.Path(protoc.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(arguments + files) != 0:
        raise RuntimeError(f"cannot generate Python from the .proto files in {PROTO}")
    return out


sys.path.insert(0, _generate())

from gpulease.v1 import acknowledge_pb2, event_pb2_grpc, lease_pb2, lease_service_pb2_grpc  # noqa: E402


def channel(endpoint: str) -> grpc.Channel:
    """A channel to http://HOST:PORT."""
    return grpc.insecure_channel(endpoint.removeprefix("http://"))


def leases(on: grpc.Channel) -> lease_service_pb2_grpc.LeaseServiceStub:
    """The lease service."""
    return lease_service_pb2_grpc.LeaseServiceStub(on)


def events(on: grpc.Channel) -> event_pb2_grpc.EventServiceStub:
    """The event service."""
    return event_pb2_grpc.EventServiceStub(on)


def request(memory_bytes: int, ttl_seconds: int, **fields) -> lease_pb2.AcquireRequest:
    """Bytes on one device, asked for by the holder "python" of the service "foreign"."""
    message = lease_pb2.AcquireRequest(service="foreign", holder="python", request_id=str(uuid.uuid4()))
    message.ask.memory_bytes = memory_bytes
    message.ttl.seconds = ttl_seconds
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def pausable(memory_bytes: int, ttl_seconds: int) -> lease_pb2.AcquireRequest:
    """The same for a lease that gives way to everybody, and resumes."""
    fields = {"preemptible": lease_pb2.PREEMPTIBLE_PAUSE, "priority": lease_pb2.PRIORITY_BACKGROUND}
    return request(memory_bytes, ttl_seconds, **fields)


def renew(stub, lease_id: int, token: int) -> lease_pb2.RenewResponse:
    """One renewal."""
    return stub.Renew(lease_pb2.RenewRequest(lease_id=lease_id, fencing_token=token), timeout=CALL_SECONDS_MAX)


def renew_until(stub, lease_id: int, token: int, is_so) -> lease_pb2.RenewResponse:
    """Renews until the answer is as it should be."""
    deadline = time.monotonic() + CALL_SECONDS_MAX
    while not is_so(renewed := renew(stub, lease_id, token)):
        assert time.monotonic() < deadline, f"it never came: {renewed}"
    return renewed


def acknowledge(stub, lease_id: int, token: int) -> lease_pb2.Lease:
    """Answers the notice that a renewal tells."""
    notice = renew_until(stub, lease_id, token, lambda renewed: renewed.HasField("notice")).notice
    answer = acknowledge_pb2.AcknowledgeRequest(lease_id=lease_id, fencing_token=token, notice_id=notice.id)
    return stub.Acknowledge(answer, timeout=CALL_SECONDS_MAX).lease


def _verb(endpoint: str, verb: str, first: int, second: int) -> str:
    stub = leases(channel(endpoint))
    if verb in ("acquire", "pausable"):
        make = request if verb == "acquire" else pausable
        lease = stub.Acquire(make(first, second), timeout=CALL_SECONDS_MAX).lease
        return f"{lease.id} {lease.fencing_token}"
    if verb == "renew":
        renewed = renew(stub, first, second)
        return f"{renewed.lease_id} {renewed.fencing_token}"
    if verb == "acknowledge":
        return lease_pb2.LeaseState.Name(acknowledge(stub, first, second).state)
    if verb == "resumed":
        renewed = renew_until(stub, first, second, lambda renewed: renewed.fencing_token > second)
        return f"{renewed.lease_id} {renewed.fencing_token}"
    if verb == "release":
        released = stub.Release(lease_pb2.ReleaseRequest(lease_id=first, fencing_token=second), timeout=CALL_SECONDS_MAX)
        return lease_pb2.LeaseState.Name(released.lease.state)
    raise SystemExit(f"foreign.py: unknown verb {verb}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    print(_verb(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
