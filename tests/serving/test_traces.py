"""Which `traceparent` is believed: what W3C Trace Context says, and nothing else."""

from contextvars import copy_context

import pytest

import serving
from serving.telemetry.traces import current_traceparent, join_trace, maybe_parent
from tests.serving.probe import Context, Probe, answers, open_call, served

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        (PARENT, PARENT),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"cc-{TRACE}-{SPAN}-01", PARENT),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", PARENT),
    ],
)
def test_a_traceparent_is_read_and_a_later_version_as_far_as_it_is_like_ours(text: str, read_as: str) -> None:
    assert str(maybe_parent(text)) == read_as


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-1-2-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01 ",
        f" {PARENT}",
        f"{PARENT}\n",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.what-will-be",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 100}",
    ],
)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    assert maybe_parent(text) is None


@pytest.mark.parametrize(
    ("metadata", "current"),
    [
        ([("traceparent", PARENT)], PARENT),
        ([("traceparent", "00-1-2-01")], ""),
        ([("traceparent-bin", PARENT)], ""),
        ([], ""),
    ],
)
async def test_a_call_goes_on_with_the_trace_that_its_metadata_names(
    metadata: list[tuple[str, str]], current: str
) -> None:
    seen = []

    async def script(_context: Context) -> None:
        seen.append(current_traceparent())

    sent = [(name, value.encode() if name.endswith("-bin") else value) for name, value in metadata]
    async with served(Probe(script)) as running, serving.channel(running.target) as channel:
        await answers(open_call(channel, "UnaryUnary", metadata=sent))
        await answers(open_call(channel, "UnaryUnary"))
    assert seen == [current, ""]
    assert current_traceparent() == ""


def test_of_two_traces_none_is_believed() -> None:
    """gRPC's core takes the last of them; what comes before it may not."""

    def joined(*values: str) -> str:
        join_trace([("traceparent", value) for value in values])
        return current_traceparent()

    assert copy_context().run(joined, PARENT) == PARENT
    assert copy_context().run(joined, PARENT, PARENT) == ""
