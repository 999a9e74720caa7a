"""What kind of event a case is about, decided by the tables of `topics`."""

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from contract.limits import LABEL_CHARS_MAX, REPEATED_ITEMS_MAX
from omen.v1 import signal_pb2 as pb
from omen_server.domain.case import TOPICS_BY_NAME, Case
from omen_server.domain.lexicon import Hit
from omen_server.domain.topics import DIRECTIONS


class Classification(NamedTuple):
    """Labels are sorted and unique."""

    signal_type: pb.SignalType.ValueType
    category: pb.SignalCategory.ValueType
    direction: pb.RoutingDirection.ValueType
    domains: list[str]
    asset_types: list[str]
    tags: list[str]
    keywords_matched: list[str]
    routing_keywords: list[str]


def classify(case: Case) -> Classification:
    found = case.labels("topic")
    topics = [topic for name, topic in TOPICS_BY_NAME.items() if name in found]
    decisive = first_row("topic", TOPICS_BY_NAME, case)
    direction = first_row("direction", DIRECTIONS, case)
    return Classification(
        signal_type=TOPICS_BY_NAME[decisive].signal_type if decisive else pb.SIGNAL_TYPE_UNCLASSIFIED,
        category=TOPICS_BY_NAME[decisive].category if decisive else pb.SIGNAL_CATEGORY_OTHER,
        direction=pb.RoutingDirection.Value(direction) if direction else pb.ROUTING_DIRECTION_NEUTRAL,
        domains=labels(domain for topic in topics for domain in topic.domains),
        asset_types=labels(case.labels("asset")),
        tags=labels((topic.name for topic in topics), case.observation.keywords),
        keywords_matched=labels(hit.phrase.lower() for hit in case.hits if is_relevant(hit)),
        routing_keywords=labels(name.lower() for name in (*case.places.chokepoints, *case.places.ports)),
    )


def is_relevant(hit: Hit) -> bool:
    """Whether one of the relevance rules counts it."""
    return hit.table == "place" or (hit.table == "topic" and bool(TOPICS_BY_NAME[hit.label].relevance))


def first_row(table: str, rows: Iterable[str], case: Case) -> str | None:
    """The first row of a table that is found in the title, else the first found anywhere, else None."""
    order = tuple(rows)
    for hits in (case.title_hits, case.hits):
        found = {hit.label for hit in hits if hit.table == table}
        if found:
            return next(row for row in order if row in found)
    return None


def labels(ours: Iterable[str], theirs: Iterable[str] = ()) -> list[str]:
    """Sorted and unique within the contract's limits; when there are too many, ours stay and theirs go from the end."""
    own = sorted(set(ours))[:REPEATED_ITEMS_MAX]
    others = {label_of(text) for text in theirs}.difference(own, ("",))
    return sorted([*own, *sorted(others)[: REPEATED_ITEMS_MAX - len(own)]]) if others else own


def label_of(text: str) -> str:
    """A source's label in lower case, cut to the limit: lower case can be longer, and can leave NFC."""
    return unicodedata.normalize("NFC", text.lower())[:LABEL_CHARS_MAX].strip()
