"""Which places of the gazetteer an observation is about: named in whole words, or close to a point it gives."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from omen.v1.observation_pb2 import Location
from omen_server.domain.gazetteer import CHOKEPOINTS, PORTS, Place
from omen_server.domain.lexicon import Table
from omen_server.domain.regions import REGIONS, Region

EARTH_RADIUS_KM = 6_371.0088  # mean radius, IUGG
KM_PER_DEGREE = 111.0  # of latitude, rounded down: a bound that never excludes what haversine includes

CHOKEPOINT_NAMES = frozenset(place.name for place in CHOKEPOINTS)
PLACES: Mapping[str, Place] = {place.name: place for place in (*CHOKEPOINTS, *PORTS)}
REGIONS_BY_NAME: Mapping[str, Region] = {region.name: region for region in REGIONS}
REGION_NAMES = frozenset(REGIONS_BY_NAME)
REGION_OF_COUNTRY: Mapping[str, str] = {country: region.name for region in REGIONS for country in region.countries}


class Near(NamedTuple):
    """The place of the gazetteer nearest to a point, and how far away it is."""

    distance_km: float
    name: str


class Places(NamedTuple):
    """What was found, each sorted and unique; regions also those of the chokepoints and ports.

    `is_given`: the observation says where it is, known or not. `named`: what its words and country codes stand for.
    """

    is_given: bool
    named: frozenset[str]
    chokepoints: tuple[str, ...]
    ports: tuple[str, ...]
    regions: tuple[str, ...]
    nearest: tuple[Near, ...]

    @property
    def is_known(self) -> bool:
        return bool(self.chokepoints or self.ports or self.regions or self.nearest)


def place_table() -> Table:
    """Every name and alias of chokepoints, ports and regions, by the name of what they stand for."""
    entries: tuple[Place | Region, ...] = (*CHOKEPOINTS, *PORTS, *REGIONS)
    return {entry.name: (entry.name, *entry.aliases) for entry in entries}


def places_of(named: Iterable[str], locations: Iterable[Location], distance_km_max: float) -> Places:
    """`named` are labels of `place_table` found in the text."""
    labels = set(named)
    is_given = False
    nearest = set()
    for location in locations:
        is_given = is_given or location.HasField("latitude") or bool(location.name or location.country)
        if location.country in REGION_OF_COUNTRY:
            labels.add(REGION_OF_COUNTRY[location.country])
        if location.HasField("latitude") and location.HasField("longitude"):
            near = nearest_place(location.latitude, location.longitude, distance_km_max)
            nearest |= {near} if near else set()
    found = (labels - REGION_NAMES) | {near.name for near in nearest}
    regions = (labels & REGION_NAMES) | {region for name in found for region in PLACES[name].regions}
    return Places(
        is_given=is_given,
        named=frozenset(labels),
        chokepoints=tuple(sorted(found & CHOKEPOINT_NAMES)),
        ports=tuple(sorted(found - CHOKEPOINT_NAMES)),
        regions=tuple(sorted(regions)),
        nearest=tuple(sorted(nearest)),
    )


def nearest_place(latitude: float, longitude: float, distance_km_max: float) -> Near | None:
    """The nearest chokepoint or port no further than `distance_km_max`; of equally near ones the first by name."""
    band = distance_km_max / KM_PER_DEGREE
    within = [
        near
        for place in PLACES.values()
        if abs(place.latitude - latitude) <= band
        and (near := Near(distance_km(latitude, longitude, place), place.name)).distance_km <= distance_km_max
    ]
    return min(within, default=None)


def distance_km(latitude: float, longitude: float, place: Place) -> float:
    """Great-circle distance by the haversine formula, rounded to 10 m."""
    phi_1, phi_2 = math.radians(latitude), math.radians(place.latitude)
    half_chord = (
        math.sin((phi_2 - phi_1) / 2) ** 2
        + math.cos(phi_1) * math.cos(phi_2) * math.sin(math.radians(place.longitude - longitude) / 2) ** 2
    )
    return round(2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, half_chord))), 2)
