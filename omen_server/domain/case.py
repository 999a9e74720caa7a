"""One observation with the facts that the rules share, read from it once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omen.v1.observation_pb2 import Observation
from omen_server.domain.lexicon import Hit, Lexicon, joined
from omen_server.domain.places import Places, place_table, places_of
from omen_server.domain.price import Price, price_of
from omen_server.domain.thresholds import Thresholds
from omen_server.domain.topics import ASSETS, BLOCKED, DIRECTIONS, TOPICS, Topic

TOPICS_BY_NAME: Mapping[str, Topic] = {topic.name: topic for topic in TOPICS}

TABLES = {
    "topic": {topic.name: topic.phrases for topic in TOPICS},
    "direction": DIRECTIONS,
    "asset": ASSETS,
    "blocked": BLOCKED,
    "place": place_table(),
}
LEXICON = Lexicon(TABLES)


@dataclass(frozen=True, slots=True)
class Case:
    """`title_hits` are what the lexicon found in the title, `hits` those and what it found in the rest."""

    observation: Observation
    title_hits: Sequence[Hit]
    hits: Sequence[Hit]
    blocked: Sequence[Hit]
    price: Price | None
    places: Places

    def labels(self, table: str) -> frozenset[str]:
        return frozenset(hit.label for hit in self.hits if hit.table == table)


def case_of(observation: Observation, thresholds: Thresholds) -> Case:
    """Resolution criteria are not read: they are boilerplate that names agreements, courts and newspapers."""
    title_hits = LEXICON.hits(joined([observation.title]))
    label_hits = LEXICON.hits(joined([observation.outcome_label, *observation.keywords]))
    text_hits = LEXICON.hits(joined([observation.description, *(place.name for place in observation.locations)]))
    hits = [*title_hits, *label_hits, *text_hits]
    return Case(
        observation=observation,
        title_hits=title_hits,
        hits=hits,
        blocked=[hit for hit in (*title_hits, *label_hits) if hit.table == "blocked"],
        price=price_of(observation, thresholds.spread_max),
        places=places_of(
            (hit.label for hit in hits if hit.table == "place"),
            observation.locations,
            thresholds.geographic_relevance_distance_km_max,
        ),
    )
