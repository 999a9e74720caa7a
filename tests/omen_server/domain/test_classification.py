"""Tables of words, row by row, and the words that only look like one of theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omen.v1 import signal_pb2 as pb
from omen_server.domain.case import case_of
from omen_server.domain.classification import classify, first_row, labels
from omen_server.domain.lexicon import WORD, Lexicon, words_of
from omen_server.domain.ruleset import RULESET
from omen_server.domain.topics import ASSETS, BLOCKED, DIRECTIONS, RELEVANCE_CATEGORIES, TOPICS, Topic
from tests.omen_server.domain.observations import NEWS, made, verdict

# One title per row of the topic table, in its order: signal type, category, direction.
TITLES = [
    ("Houthis fire at two tankers", "GEOPOLITICAL_CONFLICT", "SECURITY", "NEUTRAL"),
    ("Ransomware at a terminal operator", "SUPPLY_CHAIN_DISRUPTION", "SECURITY", "DISRUPTION"),
    ("New sanctions on Iranian shipping", "GEOPOLITICAL_SANCTIONS", "GEOPOLITICAL", "DISRUPTION"),
    ("India extends its export ban on sugar", "GEOPOLITICAL_SANCTIONS", "ECONOMIC", "DISRUPTION"),
    ("Druzhba pipeline shut", "ENERGY_INFRASTRUCTURE", "ENERGY", "DISRUPTION"),
    ("Missile strikes near Odesa", "GEOPOLITICAL_CONFLICT", "GEOPOLITICAL", "DISRUPTION"),
    ("Dockers on strike in Antwerp", "LABOR", "LABOR", "DISRUPTION"),
    ("Tariffs on steel", "REGULATORY", "REGULATORY", "DISRUPTION"),
    ("Typhoon near Kaohsiung", "NATURAL_DISASTER", "WEATHER", "DISRUPTION"),
    ("Tsunami in Chile", "NATURAL_DISASTER", "WEATHER", "NEUTRAL"),
    ("Low water at Kaub", "CLIMATE", "WEATHER", "NEUTRAL"),
    ("Ceasefire holds", "GEOPOLITICAL_DIPLOMATIC", "GEOPOLITICAL", "RELIEF"),
    ("CBAM comes in January", "REGULATORY", "REGULATORY", "NEUTRAL"),
    ("Suez Canal reopens", "SHIPPING_ROUTE_RISK", "INFRASTRUCTURE", "RELIEF"),
    ("Port of Durban closes", "PORT_OPERATIONS", "INFRASTRUCTURE", "DISRUPTION"),
    ("Rail freight through the tunnel resumes", "SUPPLY_CHAIN_DISRUPTION", "INFRASTRUCTURE", "RELIEF"),
    ("Chip shortage in the autumn", "SUPPLY_CHAIN_DISRUPTION", "ECONOMIC", "DISRUPTION"),
    ("OPEC meets in March", "ENERGY_SUPPLY", "ENERGY", "NEUTRAL"),
    ("Recession in Germany", "UNCLASSIFIED", "ECONOMIC", "NEUTRAL"),
    ("Nothing of note", "UNCLASSIFIED", "OTHER", "NEUTRAL"),
]


@pytest.mark.parametrize(("title", "signal_type", "category", "direction"), TITLES)
def test_a_title_is_classified(title: str, signal_type: str, category: str, direction: str) -> None:
    found = classify(case_of(made(NEWS, title=title), RULESET.thresholds))
    assert (
        pb.SignalType.Name(found.signal_type),
        pb.SignalCategory.Name(found.category),
        pb.RoutingDirection.Name(found.direction),
    ) == (f"SIGNAL_TYPE_{signal_type}", f"SIGNAL_CATEGORY_{category}", f"ROUTING_DIRECTION_{direction}")


def test_every_type_category_and_direction_has_a_title() -> None:
    assert {f"SIGNAL_TYPE_{row[1]}" for row in TITLES} == set(pb.SignalType.keys()) - {"SIGNAL_TYPE_UNSPECIFIED"}
    assert {f"SIGNAL_CATEGORY_{row[2]}" for row in TITLES} == set(pb.SignalCategory.keys()) - {
        "SIGNAL_CATEGORY_UNSPECIFIED"
    }
    assert len(TITLES) == len(TOPICS) + 1


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_phrase_of_a_topic_decides_for_it(topic: Topic) -> None:
    decided = {
        phrase: first_row(
            "topic", [each.name for each in TOPICS], case_of(made(NEWS, title=phrase), RULESET.thresholds)
        )
        for phrase in topic.phrases
    }
    assert decided == dict.fromkeys(topic.phrases, topic.name)
    assert topic.relevance in {"", *RELEVANCE_CATEGORIES}


@pytest.mark.parametrize(("table", "rows"), [("direction", DIRECTIONS), ("asset", ASSETS), ("blocked", BLOCKED)])
def test_every_phrase_of_a_table_is_found_for_its_row(table: str, rows: dict[str, tuple[str, ...]]) -> None:
    for label, phrases in rows.items():
        for phrase in phrases:
            assert case_of(made(NEWS, title=phrase), RULESET.thresholds).labels(table) == {label}, phrase


def test_every_relevance_category_has_a_topic() -> None:
    assert {topic.relevance for topic in TOPICS} - {""} == set(RELEVANCE_CATEGORIES)


@pytest.mark.parametrize(
    "title",
    [
        "European port strike spreads",
        "Champions of free trade fear a strike",
        "Strike at a maker of paper cups in Sydney",
        "Gulf of Guinea: pirates strike again",
        "Golfo Aranci port closes",
        "Boxing Day strike at Felixstowe",
        "Fire at a Marathon refinery",
    ],
)
def test_words_of_trade_are_not_taken_for_sports_or_entertainment(title: str) -> None:
    assert verdict("semantic_relevance", made(NEWS, title=title)).outcome == pb.RULE_OUTCOME_PASSED


@pytest.mark.parametrize(
    ("title", "topics"),
    [
        ("European Union answers tariffs", {"tariffs"}),
        ("The trade war goes on", {"tariffs"}),
        ("A missile strike", {"armed conflict"}),
        ("Ministers strike a deal", {"diplomacy"}),
        ("Oil moves away from the strike price", {"economy"}),
    ],
)
def test_a_word_inside_a_set_phrase_does_not_count_by_itself(title: str, topics: set[str]) -> None:
    assert case_of(made(NEWS, title=title), RULESET.thresholds).labels("topic") == topics


@pytest.mark.parametrize(
    "title",
    [
        "Striker leaves for Portugal",
        "Transport ministry in Warsaw",
        "A portfolio of warm stormwear",
        "Canaletto and the straitjacket",
        "Unionised, attackable, sanctioning",
    ],
)
def test_parts_of_words_are_not_words(title: str) -> None:
    assert not case_of(made(NEWS, title=title), RULESET.thresholds).labels("topic")


@pytest.mark.parametrize("title", ["A Panamanian flag", "Suezmax rates", "Iranians vote", "The Chinatown gate"])
def test_parts_of_names_are_not_places(title: str) -> None:
    assert not case_of(made(NEWS, title=title), RULESET.thresholds).places.is_known


@pytest.mark.parametrize("text", ["Bab-el-Mandeb", "BAB EL MANDEB", "Bāb el-Mandeb", "bab  el, mandeb!"])
def test_case_accents_and_punctuation_do_not_matter(text: str) -> None:
    assert words_of(text) == ["bab", "el", "mandeb"]


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_text_has_the_words_that_the_general_rule_gives(text: str) -> None:
    assert words_of(text) == WORD.findall(text.casefold())


def test_the_title_decides_before_the_rest() -> None:
    observation = made(NEWS, title="Port of Durban closes", description="Dockers are on strike.")
    found = classify(case_of(observation, RULESET.thresholds))
    assert found.signal_type == pb.SIGNAL_TYPE_PORT_OPERATIONS
    assert found.tags == ["labor dispute", "port"]


def test_no_phrase_runs_from_one_text_into_the_next() -> None:
    observation = made(NEWS, title="The cargo of Suez", description="Cup of tea", keywords=["world", "cup"])
    assert not case_of(observation, RULESET.thresholds).blocked


def test_the_longest_phrase_takes_its_words() -> None:
    lexicon = Lexicon({"a": {"x": ("strike",), "y": ("missile strike",)}, "b": {"z": ("strike",)}})
    assert [(hit.table, hit.label) for hit in lexicon.hits(["missile", "strike"])] == [("a", "y"), ("b", "z")]
    assert [(hit.table, hit.label) for hit in lexicon.hits(["strike"])] == [("a", "x"), ("b", "z")]


@pytest.mark.parametrize("table", [{"x": ("Strike", "strike!")}, {"x": ("a b",), "y": ("A-B",)}, {"x": ("...",)}])
def test_a_phrase_that_cannot_decide_is_refused(table: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="stands there twice"):
        Lexicon({"table": table})


def test_too_many_labels_lose_the_sources_own_first() -> None:
    theirs = [f"label {number:03}" for number in range(64)]
    assert labels(["zinc", "alum"], theirs) == ["alum", *theirs[:62], "zinc"]


def test_a_label_that_grows_in_lower_case_is_cut() -> None:
    assert [len(label) for label in labels([], ["İ" * 64])] == [64]
