"""A lease's whole life through grpcio: what the .proto files say is enough to use gpulease."""

import queue

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import foreign
from foreign import CALL_SECONDS_MAX
from gpulease.v1 import acknowledge_pb2, event_pb2, lease_pb2, session_pb2

GIB = 1 << 30


@pytest.fixture(name="channel")
def _channel(endpoint):
    with foreign.channel(endpoint) as channel:
        yield channel


def _acquire(channel, **fields) -> lease_pb2.Lease:
    return foreign.leases(channel).Acquire(foreign.request(GIB, 30, **fields), timeout=CALL_SECONDS_MAX).lease


def _release(channel, lease) -> lease_pb2.Lease:
    message = lease_pb2.ReleaseRequest(lease_id=lease.id, fencing_token=lease.fencing_token)
    return foreign.leases(channel).Release(message, timeout=CALL_SECONDS_MAX).lease


def _details(error: grpc.RpcError, kind):
    """The one detail of a kind that the error carries."""
    found = []
    for detail in rpc_status.from_call(error).details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            detail.Unpack(message)
            found.append(message)
    assert len(found) == 1, rpc_status.from_call(error)
    return found[0]


def test_a_lease_is_acquired_renewed_shown_and_released(channel):
    lease = _acquire(channel)
    assert lease.state == lease_pb2.LEASE_STATE_ACTIVE
    assert lease.fencing_token > 0
    assert [device.memory_bytes for device in lease.devices] == [GIB]

    renewal = lease_pb2.RenewRequest(lease_id=lease.id, fencing_token=lease.fencing_token)
    renewed = foreign.leases(channel).Renew(renewal, timeout=CALL_SECONDS_MAX)
    assert renewed.fencing_token == lease.fencing_token
    assert 25 < renewed.remaining.ToTimedelta().total_seconds() <= 30

    shown = foreign.leases(channel).Get(lease_pb2.LeaseServiceGetRequest(lease_id=lease.id), timeout=CALL_SECONDS_MAX)
    assert shown.lease.id == lease.id and shown.history

    released = _release(channel, lease)
    assert released.state == lease_pb2.LEASE_STATE_ENDED
    assert released.end_reason == lease_pb2.END_REASON_RELEASED


def test_repeating_a_request_returns_the_same_lease(channel):
    message = foreign.request(GIB, 30)
    stub = foreign.leases(channel)
    first = stub.Acquire(message, timeout=CALL_SECONDS_MAX).lease
    again = stub.Acquire(message, timeout=CALL_SECONDS_MAX).lease
    assert (again.id, again.fencing_token) == (first.id, first.fencing_token)
    _release(channel, first)


def test_a_watch_from_a_lists_revision_shows_the_grant_and_the_end_in_order(channel):
    listed = foreign.leases(channel).List(lease_pb2.LeaseServiceListRequest(), timeout=CALL_SECONDS_MAX)
    watch = foreign.events(channel).Watch(
        event_pb2.WatchRequest(after_revision=listed.revision), timeout=CALL_SECONDS_MAX
    )
    lease = _acquire(channel)
    _release(channel, lease)
    seen, last = [], listed.revision
    for batch in watch:
        assert batch.revision > last or not batch.events
        last = max(last, batch.revision)
        seen += [event.lease.kind for event in batch.events if event.lease.lease_id == lease.id]
        if event_pb2.LEASE_EVENT_KIND_ENDED in seen:
            break
    watch.cancel()
    granted = seen.index(event_pb2.LEASE_EVENT_KIND_GRANTED)
    assert granted < seen.index(event_pb2.LEASE_EVENT_KIND_ENDED)


def test_an_error_names_its_reason_and_the_field_at_fault(channel):
    message = foreign.request(GIB, 30)
    message.ttl.seconds = -1
    with pytest.raises(grpc.RpcError) as raised:
        foreign.leases(channel).Acquire(message, timeout=CALL_SECONDS_MAX)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    info = _details(raised.value, error_details_pb2.ErrorInfo)
    assert (info.domain, info.reason) == ("gpulease", "INVALID_FIELD")
    fields = _details(raised.value, error_details_pb2.BadRequest).field_violations
    assert [field.field for field in fields] == ["ttl"]


def test_no_capacity_says_when_to_try_again(channel):
    message = foreign.request(1, 30)
    message.ask.CopyFrom(lease_pb2.Ask(devices=2, exclusive=True))
    whole = foreign.leases(channel).Acquire(message, timeout=CALL_SECONDS_MAX).lease
    with pytest.raises(grpc.RpcError) as raised:
        _acquire(channel)
    _release(channel, whole)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert _details(raised.value, error_details_pb2.ErrorInfo).reason == "NO_CAPACITY"
    assert _details(raised.value, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds() > 0


def _urgent() -> lease_pb2.AcquireRequest:
    """Both devices whole, and before everybody else."""
    message = foreign.request(1, 30, priority=lease_pb2.PRIORITY_IMMEDIATE)
    message.ask.CopyFrom(lease_pb2.Ask(devices=2, exclusive=True))
    message.wait.seconds = 60
    return message


def test_a_lease_is_paused_for_another_request_and_resumed_with_a_new_token(channel):
    stub = foreign.leases(channel)
    listed = stub.List(lease_pb2.LeaseServiceListRequest(), timeout=CALL_SECONDS_MAX)
    lease = stub.Acquire(foreign.pausable(GIB, 30), timeout=CALL_SECONDS_MAX).lease
    urgent = stub.Acquire.future(_urgent(), timeout=CALL_SECONDS_MAX)
    paused = foreign.acknowledge(stub, lease.id, lease.fencing_token)
    assert paused.state == lease_pb2.LEASE_STATE_PAUSED and not paused.devices
    _release(channel, urgent.result().lease)

    resumed = foreign.renew_until(stub, lease.id, lease.fencing_token, lambda it: it.HasField("resumed"))
    assert resumed.state == lease_pb2.LEASE_STATE_ACTIVE and resumed.fencing_token > lease.fencing_token
    assert resumed.resumed.devices and resumed.resumed.fencing_token == resumed.fencing_token
    foreign.renew(stub, lease.id, resumed.fencing_token)
    with pytest.raises(grpc.RpcError) as raised:
        foreign.renew(stub, lease.id, lease.fencing_token)
    assert _details(raised.value, error_details_pb2.ErrorInfo).reason == "STALE_TOKEN"
    _release(channel, resumed.resumed)

    watch = foreign.events(channel).Watch(
        event_pb2.WatchRequest(after_revision=listed.revision), timeout=CALL_SECONDS_MAX
    )
    seen = []
    for batch in watch:
        own = [event.lease for event in batch.events if event.lease.lease_id == lease.id]
        seen += [event_pb2.LeaseEventKind.Name(event.kind).removeprefix("LEASE_EVENT_KIND_") for event in own]
        if "ENDED" in seen:
            break
    watch.cancel()
    steps = [kind for kind in seen if not kind.startswith("KE")]
    assert steps == ["REQUESTED", "GRANTED", "NOTICED", "PAUSED", "RESUMED", "ENDED"]


def test_a_session_is_told_of_its_notice_and_of_its_resume(channel):
    asked = queue.SimpleQueue()
    answers = foreign.leases(channel).Session(iter(asked.get, None), timeout=CALL_SECONDS_MAX)
    asked.put(session_pb2.SessionRequest(sequence=1, hello={"service": "foreign", "holder": "python"}))
    assert next(answers).WhichOneof("body") == "welcome"
    asked.put(session_pb2.SessionRequest(sequence=2, acquire=foreign.pausable(GIB, 30)))
    lease = next(answers).granted.lease

    urgent = foreign.leases(channel).Acquire.future(_urgent(), timeout=CALL_SECONDS_MAX)
    noticed = next(answers)
    assert (noticed.sequence, noticed.changed.state) == (0, lease_pb2.LEASE_STATE_PAUSING)
    notice = noticed.changed.notice
    assert 0 < notice.remaining.ToTimedelta().total_seconds() <= 30 and notice.causes
    answer = acknowledge_pb2.AcknowledgeRequest(
        lease_id=lease.id, fencing_token=lease.fencing_token, notice_id=notice.id
    )
    asked.put(session_pb2.SessionRequest(sequence=3, acknowledge=answer))
    answered = next(answers)
    assert (answered.sequence, answered.acknowledged.lease.state) == (3, lease_pb2.LEASE_STATE_PAUSED)
    _release(channel, urgent.result().lease)
    resumed = next(answers).changed
    assert resumed.state == lease_pb2.LEASE_STATE_ACTIVE and resumed.fencing_token > lease.fencing_token
    asked.put(None)
    _release(channel, resumed)
