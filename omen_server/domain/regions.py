"""Regions: what ports and chokepoints lie in, and what a country code or a name of a sea stands for.

A region counts by its words or by the country of a location, never by distance: its coordinates are a point to show
on a map, not its extent. A country belongs to one region.
"""

from typing import NamedTuple


class Region(NamedTuple):
    """`countries` are ISO 3166-1 alpha-2 codes; degrees north and east, WGS 84, of a point in its middle."""

    name: str
    latitude: float
    longitude: float
    countries: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def point(self) -> tuple[float, float]:
        return self.latitude, self.longitude


REGIONS = (
    Region("Arctic", 75.0, 60.0, ("GL", "IS"), ("Northern Sea Route", "Barents Sea")),
    Region("Baltic Sea", 58.0, 20.0, ("DK", "EE", "FI", "LT", "LV", "PL", "SE"), ("Baltic", "Poland", "Finland")),
    Region("Black Sea", 43.5, 34.0, ("BG", "GE", "RO"), ("Romania", "Bulgaria")),
    Region("Canada", 52.0, -100.0, ("CA",), ("Canadian", "British Columbia")),
    Region("Central America", 13.0, -85.0, ("CR", "GT", "HN", "MX", "NI", "PA", "SV"), ("Panama", "Mexico")),
    Region("China", 33.0, 112.0, ("CN", "HK", "MO"), ("Chinese", "Beijing")),
    Region("East Asia", 36.0, 128.0, ("KP", "KR"), ("South Korea", "North Korea", "East China Sea", "Yellow Sea")),
    Region("European Union", 50.0, 10.0, ("AT", "CZ", "HU", "LU", "SK"), ("EU", "Europe", "European", "Danube")),
    Region("Horn of Africa", 8.0, 46.0, ("DJ", "ER", "ET", "KE", "SO", "TZ"), ("Somalia", "Somali", "Gulf of Aden")),
    Region("Indian Ocean", -5.0, 75.0, ("MU", "MV", "SC"), ()),
    Region("Iran", 32.0, 54.0, ("IR",), ("Iranian", "Tehran", "IRGC")),
    Region("Japan", 36.0, 138.0, ("JP",), ("Japanese",)),
    Region(
        "Mediterranean",
        36.0,
        18.0,
        ("CY", "DZ", "ES", "GR", "IL", "IT", "LB", "LY", "MA", "MT", "PT", "TN"),
        ("Israel", "Italy", "Spain", "Greece", "Libya", "Lebanon"),
    ),
    Region(
        "North Europe",
        52.5,
        5.0,
        ("BE", "CH", "DE", "FR", "GB", "IE", "NL", "NO"),
        ("North Sea", "Germany", "German", "Netherlands", "Dutch", "Belgium", "France", "United Kingdom", "Rhine"),
    ),
    Region("Oceania", -27.0, 140.0, ("AU", "NZ", "PG"), ("Australia", "Australian", "New Zealand")),
    Region(
        "Persian Gulf",
        26.5,
        52.0,
        ("AE", "BH", "IQ", "KW", "OM", "QA", "SA"),
        ("Arabian Gulf", "Middle East", "Saudi Arabia", "Qatar", "Iraq", "Kuwait", "UAE", "Oman"),
    ),
    Region(
        "Red Sea", 20.0, 38.5, ("EG", "JO", "SD", "YE"), ("Egypt", "Egyptian", "Yemen", "Yemeni", "Houthi", "Houthis")
    ),
    Region("Russia", 58.0, 50.0, ("RU",), ("Russian", "Moscow", "Kremlin")),
    Region(
        "South America",
        -20.0,
        -60.0,
        ("AR", "BO", "BR", "CL", "CO", "EC", "PE", "UY", "VE"),
        ("Brazil", "Brazilian", "Argentina", "Chile", "Peru", "Venezuela", "Venezuelan", "Colombia"),
    ),
    Region(
        "South Asia", 20.0, 78.0, ("BD", "IN", "LK", "PK"), ("India", "Indian", "Pakistan", "Bangladesh", "Sri Lanka")
    ),
    Region("South China Sea", 13.0, 114.0, (), ("Scarborough Shoal", "Spratly", "Paracel")),
    Region(
        "Southeast Asia",
        5.0,
        110.0,
        ("ID", "KH", "MM", "MY", "PH", "SG", "TH", "VN"),
        ("Indonesia", "Indonesian", "Malaysia", "Philippines", "Thailand", "Vietnam", "Vietnamese"),
    ),
    Region("Southern Africa", -30.0, 25.0, ("AO", "MG", "MZ", "NA", "ZA"), ("South Africa", "Mozambique")),
    Region("Taiwan", 23.7, 121.0, ("TW",), ("Taiwanese", "Taipei", "Kinmen")),
    Region("Turkey", 39.0, 35.0, ("TR",), ("Türkiye", "Turkish", "Ankara")),
    Region("Ukraine", 49.0, 32.0, ("UA",), ("Ukrainian", "Kyiv")),
    Region("United States", 39.0, -98.0, ("US",), ("USA", "U.S.", "American", "White House", "Washington")),
    Region("US East Coast", 36.0, -76.0, (), ("East Coast", "US Atlantic coast")),
    Region("US Gulf Coast", 29.0, -92.0, (), ("Gulf Coast", "Gulf of Mexico", "US Gulf")),
    Region("US West Coast", 40.0, -123.5, (), ("West Coast", "US Pacific coast")),
    Region("West Africa", 5.0, 0.0, ("BJ", "CI", "CM", "GH", "NG", "SN", "TG"), ("Gulf of Guinea", "Nigeria", "Ghana")),
)
