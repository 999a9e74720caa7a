"""What is put on a stream when, on a stream that does what the test says."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from contract.limits import BATCH_ITEMS_MAX
from ledger import Position, Record
from omen_server.delivery.backlog import Backlog, Run, Segment
from omen_server.delivery.failing import ATTEMPTS_MAX, Failing
from omen_server.delivery.newest import Newest
from omen_server.delivery.pace import Pace
from omen_server.delivery.sending import Sending
from omen_server.delivery.stream import RiskCastStream

SEGMENT_ID = b"s" * 16
TURNS = 50  # of the loop: more than anything here takes


class FakeStream:
    """Takes messages, and answers none until told."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.is_waiting = False
        self.unreadable: set[int] = set()

    async def window(self) -> None:
        """There is always room."""

    def leave_window(self) -> None:
        """It was nothing to send."""

    async def read(self, run: Run, bytes_max: int) -> list[Record]:
        indexes = sorted({*range(run.first, run.last + 1)} - self.unreadable)
        positions = [Position("2026-01-29", SEGMENT_ID, 1 << 32 | index) for index in indexes]
        return [Record(position, 0, 0, b"x") for position in positions]

    async def send(self, records: list[Record]) -> None:
        self.sent.append([record.position.record_index for record in records])
        self.is_waiting = True


class CountedEvent(asyncio.Event):
    """How often somebody began to wait for it."""

    waits = 0

    async def wait(self) -> Any:
        self.waits += 1
        return await super().wait()


class Scene:
    def __init__(self, record_count: int, apart: tuple[int, ...]) -> None:
        segment = Segment("2026-01-29", 1, SEGMENT_ID, record_count)
        places = [(SEGMENT_ID, index) for index in apart]
        failing = Failing()
        for place in places:
            for _ in range(ATTEMPTS_MAX):
                failing.broke([place], 0.0)
        self.stream, self.work = FakeStream(), CountedEvent()
        self.backlog = Backlog([segment], {}, apart=failing.apart)
        stream = cast(RiskCastStream, self.stream)
        self.sending = Sending(stream, self.backlog, Newest(), Pace(), failing, self.work)
        self.failing = failing

    @contextmanager
    def running(self) -> Iterator[None]:
        task = asyncio.create_task(self.sending.run())
        try:
            yield
        finally:
            task.cancel()

    def answer(self) -> None:
        """The message that is under way."""
        self.failing.answered([(SEGMENT_ID, index) for index in self.stream.sent[-1]])
        self.backlog.answer()
        self.stream.is_waiting = False
        self.work.set()


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_what_is_failing_is_sent_by_itself_and_nothing_beside_it_however_much_there_is() -> None:
    scene = Scene(3 * BATCH_ITEMS_MAX, apart=(5, 6))
    with scene.running():
        await turns()
        assert [len(message) for message in scene.stream.sent] == 2 * [BATCH_ITEMS_MAX], "others first"
        scene.answer()
        scene.answer()
        await turns()
        assert scene.stream.sent[2:] == [[5]]
        scene.answer()
        await turns()
        assert scene.stream.sent[2:] == [[5], [6]]
        scene.answer()
        await turns()
        assert len(scene.stream.sent[4]) == BATCH_ITEMS_MAX - 2  # and on as usual


async def test_while_some_are_in_doubt_one_message_is_under_way_and_has_only_as_many_of_what_is_as_doubtful() -> None:
    scene = Scene(3 * BATCH_ITEMS_MAX, apart=())
    scene.failing.broke([(SEGMENT_ID, index) for index in range(1, 70)], 0.0)
    with scene.running():
        for message_count in (1, 2):
            await turns()
            assert len(scene.stream.sent) == message_count
            scene.answer()
        await turns()
    sent = [(message[0], message[-1]) for message in scene.stream.sent]
    assert sent == [(1, 64), (65, 128), (129, 384), (385, 640)]


async def test_what_is_in_doubt_and_cannot_be_read_is_left_out_and_in_doubt_no_more() -> None:
    scene = Scene(2, apart=())
    scene.failing.broke([(SEGMENT_ID, 1)], 0.0)
    scene.stream.unreadable = {1}
    with scene.running():
        await turns()
    assert scene.stream.sent == [[2]]
    assert not scene.failing.is_in_doubt


async def test_while_an_answer_is_to_come_nothing_wakes_it_up_for_what_is_failing() -> None:
    scene = Scene(2, apart=(1, 2))
    with scene.running():
        await turns()
        assert scene.stream.sent == [[1]]
        begun = scene.work.waits
        await turns()
        assert scene.work.waits == begun == 1
