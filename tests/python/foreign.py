"""A foreign client: grpcio and the .proto files, nothing of gpulease's own.

As a module it gives the stubs, generated anew from proto/ into a temporary directory. As a program it does one verb,
for tests in which several clients share a lease:

    foreign.py ENDPOINT acquire BYTES TTL_SECONDS      prints "ID TOKEN"
    foreign.py ENDPOINT renew ID TOKEN                 prints "ID TOKEN"
    foreign.py ENDPOINT release ID TOKEN               prints the state, such as LEASE_STATE_ENDED
"""

import atexit
import pathlib
import shutil
import sys
import tempfile
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

from gpulease.v1 import event_pb2_grpc, lease_pb2, lease_service_pb2_grpc  # noqa: E402


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


def _verb(endpoint: str, verb: str, first: int, second: int) -> str:
    stub = leases(channel(endpoint))
    if verb == "acquire":
        lease = stub.Acquire(request(first, second), timeout=CALL_SECONDS_MAX).lease
        return f"{lease.id} {lease.fencing_token}"
    if verb == "renew":
        renewed = stub.Renew(lease_pb2.RenewRequest(lease_id=first, fencing_token=second), timeout=CALL_SECONDS_MAX)
        return f"{renewed.lease_id} {renewed.fencing_token}"
    if verb == "release":
        released = stub.Release(lease_pb2.ReleaseRequest(lease_id=first, fencing_token=second), timeout=CALL_SECONDS_MAX)
        return lease_pb2.LeaseState.Name(released.lease.state)
    raise SystemExit(f"foreign.py: unknown verb {verb}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    print(_verb(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
