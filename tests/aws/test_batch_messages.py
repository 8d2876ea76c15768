"""Messages on S3 without a job: what belongs to one attempt is never taken for another's."""

import json
import uuid

import dagster as dg
import pytest
from batch_stand_in import BUCKET

from bigger_boat.errors import CloudError
from bigger_boat.resources import batch_worker
from bigger_boat.resources.batch_messages import EventBatch, Inbox, LaunchFolder


@pytest.fixture
def folder(aws) -> LaunchFolder:
    return LaunchFolder.new(aws.client("s3"), f"s3://{BUCKET}/messages/", "a-run", "a_step", 0)


def line(text: str) -> dg.EventLogEntry:
    return dg.EventLogEntry(None, 20, text, "a-run", 0.0, "a_step", "a_job", None)


def send(folder: LaunchFolder, attempt: int, number: int, text: str, last: bool = False) -> None:
    folder.send_batch(attempt, number, EventBatch([line(text)], last))


def received(inbox: Inbox) -> list[str]:
    return [entry.user_message for entry in inbox.receive()]


def test_events_come_once_and_in_order(folder):
    inbox = Inbox(folder)
    assert received(inbox) == []
    for number in range(12):
        send(folder, 1, number, str(number))
    assert received(inbox) == [str(number) for number in range(12)]
    assert received(inbox) == []
    send(folder, 1, 12, "end", last=True)
    assert not inbox.is_over
    assert received(inbox) == ["end"]
    assert inbox.is_over


def test_an_attempt_that_was_replaced_is_never_heard_again(folder):
    inbox = Inbox(folder)
    send(folder, 1, 0, "first")
    assert received(inbox) == ["first"]
    send(folder, 2, 0, "second")
    assert received(inbox) == ["second"]
    send(folder, 1, 1, "the first is a ghost", last=True)
    assert received(inbox) == []
    assert not inbox.is_over
    send(folder, 2, 1, "second ends", last=True)
    assert received(inbox) == ["second ends"]
    assert inbox.is_over


def test_an_attempt_that_brought_the_step_to_its_end_has_the_last_word(folder):
    send(folder, 1, 0, "done", last=True)
    send(folder, 2, 0, "too late")
    inbox = Inbox(folder)
    assert received(inbox) == ["done"]
    assert inbox.is_over


def test_what_was_printed_comes_with_its_attempt_before_the_events(folder):
    heard = []
    inbox = Inbox(folder, lambda *given: heard.append(given))
    folder.send_batch(1, 0, EventBatch([line("one")], False, stdout="ü1\n"))
    assert (received(inbox), heard) == (["one"], [(1, "ü1\n", "")])
    folder.send_batch(2, 0, EventBatch([], False, stderr="2\n"))
    assert (received(inbox), heard[1:]) == ([], [(2, "", "2\n")])
    folder.send_batch(1, 1, EventBatch([], False, stdout="a ghost's\n"))
    send(folder, 2, 1, "end", last=True)  # printed nothing
    assert (received(inbox), len(heard)) == (["end"], 2)


def test_launches_share_nothing(folder):
    other = LaunchFolder.new(folder.s3, f"s3://{BUCKET}/messages", "a-run", "a_step", 1)
    send(other, 1, 0, "elsewhere")
    assert received(Inbox(folder)) == []
    assert (folder.launch[:2], other.launch[:2]) == ("0-", "1-")
    assert folder.address == LaunchFolder.at(folder.s3, folder.address).address


def test_a_later_attempt_does_not_run_what_an_earlier_one_brought_to_its_end(aws, folder):
    send(folder, 1, 0, "done", last=True)
    before = aws.objects(folder.path)
    assert batch_worker.main(folder.address, attempt=2) == 0
    assert aws.objects(folder.path) == before


def test_a_job_without_a_message_is_a_fault_that_says_so(folder):
    assert batch_worker.main(folder.address, attempt=1) == batch_worker.FAULT
    [error] = folder.errors()
    assert "step.json cannot be read: AWS answered NoSuchKey" in error


def test_events_that_cannot_be_sent_are_a_fault_at_the_end_and_leave_no_gap(aws, folder):
    lost = LaunchFolder(folder.s3, f"no-such-bucket-{uuid.uuid4().hex}", folder.path)
    outbox = batch_worker.Outbox(lost, attempt=1, every_s=0.01)
    outbox.add(line("one"))
    outbox._thread.join(5)
    outbox.add(line("two"))
    with pytest.raises(CloudError, match="NoSuchBucket"):
        outbox.close()


def test_a_quiet_step_sends_its_end_and_nothing_else(aws, folder):
    batch_worker.Outbox(folder, attempt=1, every_s=0.01).close()
    [(key, body)] = aws.objects(f"{folder.path}events/").items()
    assert key.endswith("/events/01/000000.json")
    assert json.loads(body) == {"entries": [], "last": True}


def test_an_address_that_is_none_is_refused(aws):
    for address in ("", "boat/x", "s3://boat", "s3:///x", "https://boat/x"):
        with pytest.raises(CloudError, match="Expected an address like s3://bucket/path"):
            LaunchFolder.at(None, address)
