"""Pages: bounded, and a token is good for the query that made it alone."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import ContractError, Reason
from contract.limits import PAGE_BYTES_MAX
from contract.pages import PageBytes, key_of_token, maybe_signal_key, page_size_of, page_token, signal_token

# All that UTF-8 can hold: hypothesis finds that out by encoding every character there is, once in each fresh clone.
text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(("requested", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_a_page_size_is_taken_as_asked_and_is_100_when_not_asked(requested: int, size: int) -> None:
    assert page_size_of(requested) == size


@pytest.mark.parametrize("requested", [-1, 1001, 2**31 - 1])
def test_a_page_size_outside_of_0_to_1000_is_refused_by_its_field(requested: int) -> None:
    with pytest.raises(ContractError) as caught:
        page_size_of(requested)
    assert caught.value.reason is Reason.INVALID_SIGNAL
    assert [violation.field for violation in caught.value.violations] == ["page_size"]


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ([PAGE_BYTES_MAX + 1, 1], [True, False]),
        ([PAGE_BYTES_MAX - 1, 1, 1], [True, True, False]),
        ([1, PAGE_BYTES_MAX], [True, False]),
    ],
)
def test_a_page_holds_1_mib_and_always_a_first_item(sizes: list[int], taken: list[bool]) -> None:
    held = PageBytes()
    assert [held.take(size) for size in sizes] == taken


def test_no_token_is_the_first_page() -> None:
    assert key_of_token("ListPartitions", "") == ""
    assert maybe_signal_key("ListSignals", "") is None


@given(text, st.integers(0, 10**18 - 1), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_signal_token_gives_back_its_key_to_its_own_query(query: str, emitted_at: int, signal_id: str) -> None:
    key = emitted_at, f"OMEN-{signal_id}"
    assert maybe_signal_key(query, signal_token(query, key)) == key


@pytest.mark.parametrize("key", ["", "x", "99|", "-1|S", f"{10**18}|S", "1|\0", "1|\ud800", "\u0661|S"])
def test_a_key_that_no_signal_has_is_refused(key: str) -> None:
    with pytest.raises(ContractError) as caught:
        maybe_signal_key("query", page_token("query", key))
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


@given(text, text)
def test_a_token_gives_back_the_key_to_its_own_query(query: str, key: str) -> None:
    assert key_of_token(query, page_token(query, key)) == key


@given(text, text, text)
def test_a_token_of_another_query_is_refused(query: str, other: str, key: str) -> None:
    if query != other:
        assert refused(other, page_token(query, key))


def encoded(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "abc",
        "ünïcode",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        encoded(None),
        encoded(7),
        encoded([]),
        encoded(["a", "b", "c"]),
        encoded({"a": 1, "b": 2}),
        encoded([json.loads(base64.urlsafe_b64decode(page_token("query", "key")))[0], 5]),
    ],
)
def test_a_token_that_was_never_given_is_refused(token: str) -> None:
    assert refused("query", token)


@given(text)
def test_no_text_does_worse_than_being_refused(token: str) -> None:
    if token:
        assert refused("query", token)


def refused(query: str, token: str) -> bool:
    with pytest.raises(ContractError) as caught:
        key_of_token(query, token)
    return caught.value.reason is Reason.INVALID_PAGE_TOKEN
