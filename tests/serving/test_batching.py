"""The queue of an endpoint: who is answered together, what is turned away, and that nothing is ever mixed."""

import asyncio
import threading

import pytest

from bigger_boat.errors import RequestError
from bigger_boat.serving import batching
from bigger_boat.serving.batching import Batcher
from bigger_boat.serving.contract import PredictionRequest, Session

BAD = "a poisoned product"


class Predictor:
    """Answers with what it was asked and its name, and notes how many came together. ``gate`` can be shut."""

    def __init__(self, name: str = "first"):
        self.name = name
        self.calls: list[int] = []
        self.threads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def predict(self, request: PredictionRequest) -> list[dict]:
        self.began.set()
        assert self.gate.wait(20)
        self.calls.append(len(request.sessions))
        self.threads.append(threading.get_ident())
        if any(BAD in session.skus for session in request.sessions):
            raise ValueError("this session breaks the model")
        return [{"skus": session.skus[: request.k], "by": self.name} for session in request.sessions]


@pytest.fixture
def batcher():
    batcher = Batcher("recommendation", queue_sessions=100)
    yield batcher
    batcher.close()


@pytest.fixture
def quick(monkeypatch):
    """A call counts as quick however busy the machine is."""
    monkeypatch.setattr(batching, "_QUICK_S", 60.0)


async def is_known(batcher: Batcher, predictor: Predictor) -> None:
    """Let a thread find out how quick a version is, and rest again: the next call is for the event loop to take."""
    await batcher.answer(predictor, asking("first"))
    async with asyncio.timeout(120):
        while batcher._busy_threads:
            await asyncio.sleep(0.001)


def asking(*skus: str, k: int = 5, sessions: int = 1, exclude_seen: bool = False) -> PredictionRequest:
    one = Session(["detail"] * len(skus), list(skus), [-1] * len(skus))
    return PredictionRequest([one] * sessions, [-1] * sessions, k, exclude_seen)


async def behind_a_shut_gate(batcher: Batcher, predictor: Predictor, requests: list, meanwhile=None) -> list:
    """Hold the model on a first request, queue the others, let go; return their answers or errors."""
    predictor.gate.clear()
    first = asyncio.create_task(batcher.answer(predictor, asking("first")))
    await asyncio.to_thread(predictor.began.wait, 20)
    tasks = [asyncio.create_task(batcher.answer(which, request)) for which, request in requests]
    await asyncio.sleep(0)  # each has put its job into the queue
    if meanwhile:
        meanwhile(tasks)
    await asyncio.sleep(0)
    predictor.gate.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_together_is_answered_together(batcher):
    predictor = Predictor()
    requests = [(predictor, asking(f"sku-{number}")) for number in range(30)]
    answers = asyncio.run(behind_a_shut_gate(batcher, predictor, requests))
    assert [answer[0]["skus"] for answer in answers] == [[f"sku-{number}"] for number in range(30)]
    assert predictor.calls == [1, 30]


def test_versions_and_rules_are_never_in_one_call(batcher):
    old, new = Predictor("old"), Predictor("new")
    requests = []
    for number in range(24):
        which = (old, new)[number % 2]
        request = asking(f"sku-{number}", k=1 + number % 3, exclude_seen=number % 4 == 0)
        requests.append((which, request))
    answers = asyncio.run(behind_a_shut_gate(batcher, old, requests))
    for (which, request), answer in zip(requests, answers, strict=True):
        assert answer == [{"skus": request.sessions[0].skus[: request.k], "by": which.name}]


def test_several_workers_mix_nothing_either():
    batcher, predictor = Batcher("recommendation", queue_sessions=500, workers=4), Predictor()

    async def ask() -> list:
        asked = [asking(f"sku-{number}", k=1 + number % 2) for number in range(300)]
        return await asyncio.gather(*(batcher.answer(predictor, request) for request in asked))

    answers = asyncio.run(ask())
    batcher.close()
    assert [answer[0]["skus"] for answer in answers] == [[f"sku-{number}"] for number in range(300)]
    assert sum(predictor.calls) == 300


def test_a_call_stays_bounded(batcher):
    predictor = Predictor()
    requests = [(predictor, asking("a", sessions=10)) for _ in range(10)]
    asyncio.run(behind_a_shut_gate(batcher, predictor, requests))
    assert predictor.calls == [1, 60, 40]


def test_a_full_queue_turns_away_and_an_empty_one_takes_the_largest(batcher):
    predictor = Predictor()
    requests = [(predictor, asking("a", sessions=60)), (predictor, asking("b", sessions=41))]
    answers = asyncio.run(behind_a_shut_gate(batcher, predictor, requests))
    assert len(answers[0]) == 60
    assert isinstance(answers[1], RequestError)
    assert (answers[1].status, answers[1].code) == (503, "overloaded")
    assert len(asyncio.run(batcher.answer(predictor, asking("c", sessions=256)))) == 256
    assert batcher.waiting_sessions == 0


def test_many_events_fill_a_queue_too():
    batcher, predictor = Batcher("recommendation", queue_sessions=100, queue_events=50), Predictor()
    requests = [(predictor, asking(*["a"] * 40)), (predictor, asking(*["b"] * 11)), (predictor, asking(*["c"] * 10))]
    answers = asyncio.run(behind_a_shut_gate(batcher, predictor, requests))
    batcher.close()
    assert [isinstance(answer, RequestError) for answer in answers] == [False, True, False]


def test_one_requests_fault_is_not_its_neighbours(batcher):
    predictor = Predictor()
    requests = [(predictor, asking(sku)) for sku in ("a", BAD, "c")]
    answers = asyncio.run(behind_a_shut_gate(batcher, predictor, requests))
    assert [answers[0][0]["skus"], answers[2][0]["skus"]] == [["a"], ["c"]]
    assert isinstance(answers[1], ValueError)


def test_who_is_gone_is_not_answered(batcher):
    predictor = Predictor()
    requests = [(predictor, asking("a")), (predictor, asking("b"))]
    answers = asyncio.run(behind_a_shut_gate(batcher, predictor, requests, lambda tasks: tasks[0].cancel()))
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1][0]["skus"] == ["b"]
    assert predictor.calls == [1, 1]
    assert batcher.waiting_sessions == 0


@pytest.mark.parametrize("known", [False, True], ids=["by a thread", "on the event loop"])
def test_where_all_are_gone_nobody_is_asked_and_the_next_is_answered(batcher, quick, known, caplog):
    predictor = Predictor()

    async def play() -> list:
        if known:
            await is_known(batcher, predictor)
        tasks = [asyncio.create_task(batcher.answer(predictor, asking(sku))) for sku in "ab"]
        await asyncio.sleep(0)  # each has put its job into the queue; a look at it comes next
        for task in tasks:
            task.cancel()
        gone = await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(120):
            return [*gone, *await batcher.answer(predictor, asking("next"))]

    first, second, answered = asyncio.run(play())
    assert [type(one) for one in (first, second)] == [asyncio.CancelledError] * 2
    assert answered["skus"] == ["next"]
    assert predictor.calls == [1] * (1 + known)
    assert batcher.waiting_sessions == 0
    assert not caplog.records, "a fault in the event loop's own turn is only logged"


def test_what_is_left_of_a_quick_turn_has_a_thread_where_it_is_quick_no_more(batcher, quick, monkeypatch):
    """The first call takes its time; what could not share it must not be held on the event loop, nor forgotten."""
    predictor, here = Predictor(), threading.get_ident()
    answer = Predictor.predict

    def slower_from_now_on(self: Predictor, request: PredictionRequest) -> list[dict]:
        monkeypatch.setattr(batching, "_QUICK_S", 0.0)
        return answer(self, request)

    async def play() -> list:
        await is_known(batcher, predictor)
        monkeypatch.setattr(Predictor, "predict", slower_from_now_on)
        async with asyncio.timeout(120):
            return await together(batcher, [(predictor, asking(*"abc", k=1 + number)) for number in range(3)])

    answers = asyncio.run(play())
    assert [answer[0]["skus"] for answer in answers] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert predictor.threads[1] == here
    assert here not in predictor.threads[2:]
    assert batcher.waiting_sessions == 0


def test_what_waits_at_the_end_is_answered():
    batcher, predictor = Batcher("intent", queue_sessions=10), Predictor()

    async def ask() -> list:
        predictor.gate.clear()
        tasks = [asyncio.create_task(batcher.answer(predictor, asking(sku))) for sku in "ab"]
        await asyncio.to_thread(predictor.began.wait, 20)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        predictor.gate.set()
        answers = await asyncio.gather(*tasks)
        await closing
        return answers

    assert [answer[0]["skus"] for answer in asyncio.run(ask())] == [["a"], ["b"]]
    with pytest.raises(RequestError, match="Too many"):
        asyncio.run(batcher.answer(predictor, asking("c")))


async def together(batcher: Batcher, requests: list) -> list:
    return await asyncio.gather(*(batcher.answer(which, request) for which, request in requests))


def test_a_version_known_to_be_quick_is_asked_on_the_event_loop_for_all_that_was_read(batcher, quick):
    predictor, here = Predictor(), threading.get_ident()

    async def ask() -> list:
        await is_known(batcher, predictor)
        return await together(batcher, [(predictor, asking(sku)) for sku in "abcde"])

    answers = asyncio.run(ask())
    assert [answer[0]["skus"] for answer in answers] == [[sku] for sku in "abcde"]
    assert predictor.calls == [1, 5]
    assert predictor.threads[0] != here
    assert predictor.threads[1] == here


def test_rules_and_versions_are_never_in_one_call_on_the_event_loop_either(batcher, quick):
    old, new = Predictor("old"), Predictor("new")
    requests = [((old, new)[number % 2], asking(*"abc", k=1 + number % 3)) for number in range(8)]

    async def ask() -> list:
        for predictor in (old, new):
            await is_known(batcher, predictor)
        return await together(batcher, requests)

    answers = asyncio.run(ask())
    for (which, request), answer in zip(requests, answers, strict=True):
        assert answer == [{"skus": ["a", "b", "c"][: request.k], "by": which.name}]
    assert {thread for which in (old, new) for thread in which.threads[1:]} == {threading.get_ident()}


@pytest.mark.parametrize("request_", [asking("a", sessions=9), asking(*["a"] * 257)], ids=["sessions", "events"])
def test_a_large_call_has_a_thread(batcher, quick, request_):
    predictor = Predictor()

    async def ask() -> None:
        await is_known(batcher, predictor)
        await batcher.answer(predictor, request_)

    asyncio.run(ask())
    assert threading.get_ident() not in predictor.threads


def test_a_version_that_takes_its_time_has_a_thread(batcher, monkeypatch):
    monkeypatch.setattr(batching, "_QUICK_S", 0.0)
    predictor = Predictor()

    async def ask() -> None:
        for sku in "abc":
            await batcher.answer(predictor, asking(sku))

    asyncio.run(ask())
    assert len(predictor.threads) == 3
    assert threading.get_ident() not in predictor.threads


def test_a_queue_of_threads_only_is_never_answered_on_the_event_loop():
    batcher, predictor = Batcher("shadow", queue_sessions=10, threads_only=True), Predictor()

    async def ask() -> None:
        for sku in "abc":
            await batcher.answer(predictor, asking(sku))

    asyncio.run(ask())
    batcher.close()
    assert len(predictor.threads) == 3
    assert threading.get_ident() not in predictor.threads


def test_a_fault_on_the_event_loop_is_one_requests_too(batcher, quick):
    predictor = Predictor()

    async def ask() -> list:
        await is_known(batcher, predictor)
        asked = (batcher.answer(predictor, asking(sku)) for sku in ("a", BAD, "c"))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    assert [answers[0][0]["skus"], answers[2][0]["skus"]] == [["a"], ["c"]]
    assert isinstance(answers[1], ValueError)
    assert predictor.threads[1] == threading.get_ident()
