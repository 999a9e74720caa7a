"""The gazetteer is consistent, and distances are great circles."""

import pytest

from omen.v1.observation_pb2 import Location
from omen_server.domain.case import case_of
from omen_server.domain.gazetteer import CHOKEPOINTS, PORTS, Place
from omen_server.domain.places import PLACES, REGION_NAMES, distance_km, nearest_place, place_table, places_of
from omen_server.domain.regions import REGIONS
from omen_server.domain.ruleset import RULESET
from tests.omen_server.domain.observations import NEWS, made

ALIASES = [(name, alias) for name, aliases in place_table().items() for alias in aliases]


def test_the_gazetteer_holds_the_worlds_chokepoints_and_ports() -> None:
    assert len(CHOKEPOINTS) >= 10
    assert len(PORTS) >= 30
    assert len(PLACES) + len(REGIONS) == len(place_table())


@pytest.mark.parametrize(("name", "alias"), ALIASES)
def test_every_name_of_a_place_finds_it_alone(name: str, alias: str) -> None:
    assert case_of(made(NEWS, title=f"News of {alias}'s harbour"), RULESET.thresholds).labels("place") == {name}


@pytest.mark.parametrize("place", PLACES.values(), ids=lambda place: place.name)
def test_a_place_is_nearest_to_itself_and_lies_in_known_regions(place: Place) -> None:
    near = nearest_place(place.latitude, place.longitude, 500)
    assert near == (0.0, place.name)
    assert place.regions
    assert set(place.regions) <= REGION_NAMES


def test_a_country_belongs_to_one_region() -> None:
    codes = [country for region in REGIONS for country in region.countries]
    assert len(codes) == len(set(codes))
    assert all(len(code) == 2 and code.isupper() for code in codes)


def test_every_coordinate_is_on_the_map() -> None:
    for entry in (*CHOKEPOINTS, *PORTS, *REGIONS):
        assert -90 <= entry.latitude <= 90
        assert -180 <= entry.longitude <= 180


@pytest.mark.parametrize(
    ("latitude", "longitude", "km"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 111.2),  # a degree of a meridian: pi * 6371.0088 / 180
        (0.0, 180.0, 20015.11),  # half the way round
        (90.0, 77.0, 10007.56),  # a quarter, whatever the longitude
        (0.0, -1.0, 111.2),
    ],
)
def test_distance_is_the_great_circle(latitude: float, longitude: float, km: float) -> None:
    assert distance_km(latitude, longitude, Place("origin", 0.0, 0.0, ())) == km


def test_distance_crosses_the_date_line() -> None:
    assert distance_km(0.0, -179.5, Place("east", 0.0, 179.5, ())) == 111.2


def test_of_two_places_at_one_point_the_first_by_name_is_taken() -> None:
    assert nearest_place(33.74, -118.22, 500) == min(
        (distance_km(33.74, -118.22, PLACES[name]), name) for name in ("Long Beach", "Los Angeles")
    )


def test_a_location_without_anything_is_no_place() -> None:
    assert not places_of([], [Location()], 500).is_given


def test_what_is_found_is_sorted_and_brings_its_regions() -> None:
    found = places_of(["Rotterdam", "Suez Canal", "Antwerp"], [Location(country="JP")], 500)
    assert found.chokepoints == ("Suez Canal",)
    assert found.ports == ("Antwerp", "Rotterdam")
    assert found.regions == ("Japan", "North Europe", "Red Sea")
