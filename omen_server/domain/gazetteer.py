"""Chokepoints and ports: the places that make an observation geographically relevant.

Coordinates are degrees north and east, WGS 84, of the narrowest water or the harbour, to about 10 km. Names are
sources' common spellings; accents and hyphens do not matter (`lexicon`). Names that mean something else
as often, such as Mobile and Colon, are left out.
"""

from typing import NamedTuple


class Place(NamedTuple):
    """A place on the map. `regions` are names of `regions.REGIONS`; `name` is itself one of the ways to write it."""

    name: str
    latitude: float
    longitude: float
    regions: tuple[str, ...]
    aliases: tuple[str, ...] = ()

    @property
    def point(self) -> tuple[float, float]:
        return self.latitude, self.longitude


CHOKEPOINTS = (
    Place("Bab el-Mandeb", 12.58, 43.33, ("Horn of Africa", "Red Sea"), ("Bab al-Mandab", "Mandeb Strait")),
    Place("Bering Strait", 65.75, -168.98, ("Arctic",)),
    Place("Bosphorus", 41.12, 29.08, ("Black Sea", "Turkey"), ("Bosporus", "Turkish Straits", "Istanbul Strait")),
    Place("Cape of Good Hope", -34.36, 18.47, ("Southern Africa",), ("Good Hope", "Cape route")),
    Place("Danish Straits", 55.75, 12.70, ("Baltic Sea",), ("Oresund", "Øresund", "Great Belt", "Storebaelt")),
    Place("Dardanelles", 40.20, 26.40, ("Mediterranean", "Turkey"), ("Canakkale",)),
    Place("Kerch Strait", 45.27, 36.53, ("Black Sea",), ("Kerch", "Crimean Bridge")),
    Place("Kiel Canal", 54.13, 9.60, ("Baltic Sea", "North Europe"), ("Nord-Ostsee-Kanal",)),
    Place("Korea Strait", 34.60, 129.50, ("East Asia",), ("Tsushima Strait",)),
    Place("Lombok Strait", -8.77, 115.73, ("Southeast Asia",)),
    Place("Luzon Strait", 20.50, 121.30, ("South China Sea", "Southeast Asia"), ("Bashi Channel",)),
    Place("Panama Canal", 9.08, -79.68, ("Central America",), ("Gatun Lake", "Neopanamax locks", "Gatun")),
    Place("Strait of Dover", 51.00, 1.45, ("North Europe",), ("Dover Strait", "English Channel")),
    Place("Strait of Gibraltar", 35.97, -5.50, ("Mediterranean",), ("Gibraltar", "Gibraltar Strait")),
    Place("Strait of Hormuz", 26.57, 56.25, ("Persian Gulf",), ("Hormuz", "Hormuz Strait")),
    Place("Strait of Magellan", -53.47, -70.78, ("South America",), ("Magellan Strait",)),
    Place("Strait of Malacca", 2.50, 101.20, ("Southeast Asia",), ("Malacca", "Malacca Strait", "Singapore Strait")),
    Place("Suez Canal", 30.43, 32.35, ("Red Sea",), ("Suez", "Sumed")),
    Place("Sunda Strait", -5.95, 105.80, ("Southeast Asia",)),
    Place("Taiwan Strait", 24.50, 119.50, ("East Asia", "Taiwan"), ("Strait of Taiwan", "Formosa Strait")),
)

PORTS = (
    Place("Aden", 12.79, 44.98, ("Red Sea",)),
    Place("Alexandria", 31.19, 29.87, ("Mediterranean",)),
    Place("Algeciras", 36.13, -5.43, ("Mediterranean",)),
    Place("Antwerp", 51.27, 4.33, ("North Europe",), ("Antwerp-Bruges", "Antwerpen", "Zeebrugge")),
    Place("Auckland", -36.84, 174.78, ("Oceania",)),
    Place("Balboa", 8.96, -79.57, ("Central America",), ("Cristobal",)),
    Place("Baltimore", 39.26, -76.58, ("US East Coast",), ("Francis Scott Key Bridge",)),
    Place("Bandar Abbas", 27.14, 56.06, ("Iran", "Persian Gulf"), ("Shahid Rajaee",)),
    Place("Barcelona", 41.34, 2.16, ("Mediterranean",)),
    Place("Bremerhaven", 53.59, 8.52, ("North Europe",)),
    Place("Buenos Aires", -34.58, -58.37, ("South America",)),
    Place("Busan", 35.08, 128.83, ("East Asia",), ("Pusan",)),
    Place("Callao", -12.05, -77.15, ("South America",), ("Chancay",)),
    Place("Cape Town", -33.91, 18.43, ("Southern Africa",)),
    Place("Charleston", 32.83, -79.89, ("US East Coast",)),
    Place("Chittagong", 22.31, 91.80, ("South Asia",), ("Chattogram",)),
    Place("Colombo", 6.95, 79.84, ("South Asia",)),
    Place("Constanta", 44.13, 28.66, ("Black Sea",)),
    Place("Djibouti", 11.60, 43.14, ("Horn of Africa", "Red Sea"), ("Doraleh",)),
    Place("Durban", -29.87, 31.03, ("Southern Africa",)),
    Place("Felixstowe", 51.95, 1.31, ("North Europe",)),
    Place("Fujairah", 25.17, 56.36, ("Persian Gulf",)),
    Place("Gdansk", 54.40, 18.67, ("Baltic Sea",)),
    Place("Genoa", 44.40, 8.91, ("Mediterranean",), ("Genova",)),
    Place("Guangzhou", 22.80, 113.60, ("China",), ("Nansha",)),
    Place("Haifa", 32.82, 35.00, ("Mediterranean",)),
    Place("Haiphong", 20.84, 106.77, ("Southeast Asia",), ("Hai Phong",)),
    Place("Hamburg", 53.53, 9.95, ("North Europe",), ("HHLA",)),
    Place("Hodeidah", 14.83, 42.93, ("Red Sea",), ("Hudaydah", "Ras Isa")),
    Place("Hong Kong", 22.33, 114.13, ("China", "South China Sea")),
    Place("Houston", 29.73, -95.02, ("US Gulf Coast",)),
    Place("Jebel Ali", 25.01, 55.06, ("Persian Gulf",), ("Dubai",)),
    Place("Jeddah", 21.47, 39.16, ("Red Sea",)),
    Place("Kaohsiung", 22.57, 120.30, ("Taiwan",)),
    Place("Karachi", 24.83, 66.98, ("South Asia",)),
    Place("Kharg Island", 29.23, 50.32, ("Iran", "Persian Gulf"), ("Kharg",)),
    Place("Kobe", 34.67, 135.22, ("Japan",), ("Osaka",)),
    Place("Laem Chabang", 13.08, 100.90, ("Southeast Asia",)),
    Place("Le Havre", 49.47, 0.15, ("North Europe",)),
    Place("Long Beach", 33.75, -118.20, ("US West Coast",)),
    Place("Los Angeles", 33.73, -118.26, ("US West Coast",), ("San Pedro Bay",)),
    Place("Manila", 14.60, 120.95, ("Southeast Asia",)),
    Place("Manzanillo", 19.06, -104.30, ("Central America",)),
    Place("Marseille", 43.40, 4.90, ("Mediterranean",), ("Fos-sur-Mer",)),
    Place("Melbourne", -37.82, 144.92, ("Oceania",)),
    Place("Mombasa", -4.06, 39.65, ("Horn of Africa",)),
    Place("Montreal", 45.56, -73.52, ("Canada",)),
    Place("Mumbai", 18.95, 72.94, ("South Asia",), ("Nhava Sheva", "Jawaharlal Nehru Port")),
    Place("Mundra", 22.74, 69.70, ("South Asia",)),
    Place("New Orleans", 29.93, -90.06, ("US Gulf Coast",)),
    Place("New York", 40.67, -74.08, ("US East Coast",), ("New Jersey", "Port Newark")),
    Place("Ningbo", 29.93, 121.85, ("China",), ("Ningbo-Zhoushan", "Zhoushan")),
    Place("Norfolk", 36.93, -76.33, ("US East Coast",), ("Port of Virginia",)),
    Place("Novorossiysk", 44.68, 37.82, ("Black Sea", "Russia"), ("CPC terminal",)),
    Place("Oakland", 37.80, -122.32, ("US West Coast",)),
    Place("Odesa", 46.50, 30.75, ("Black Sea", "Ukraine"), ("Odessa", "Chornomorsk", "Pivdennyi")),
    Place("Piraeus", 37.94, 23.62, ("Mediterranean",)),
    Place("Port Hedland", -20.31, 118.58, ("Oceania",)),
    Place("Port Klang", 3.00, 101.38, ("Southeast Asia",), ("Klang",)),
    Place("Port Said", 31.25, 32.31, ("Mediterranean", "Red Sea")),
    Place("Primorsk", 60.34, 28.68, ("Baltic Sea", "Russia"), ("Ust-Luga",)),
    Place("Prince Rupert", 54.30, -130.33, ("Canada",)),
    Place("Qingdao", 36.07, 120.32, ("China",)),
    Place("Ras Tanura", 26.64, 50.16, ("Persian Gulf",), ("Dammam",)),
    Place("Rotterdam", 51.95, 4.14, ("North Europe",), ("Maasvlakte", "Europoort")),
    Place("Santos", -23.96, -46.30, ("South America",)),
    Place("Savannah", 32.13, -81.14, ("US East Coast",)),
    Place("Seattle", 47.58, -122.35, ("US West Coast",), ("Tacoma",)),
    Place("Shanghai", 31.34, 121.65, ("China",), ("Yangshan",)),
    Place("Shenzhen", 22.57, 114.28, ("China",), ("Yantian",)),
    Place("Singapore", 1.26, 103.75, ("Southeast Asia",), ("Tuas",)),
    Place("Sydney", -33.97, 151.22, ("Oceania",), ("Port Botany",)),
    Place("Tanger Med", 35.88, -5.50, ("Mediterranean",), ("Tangier",)),
    Place("Tanjung Pelepas", 1.36, 103.55, ("Southeast Asia",)),
    Place("Tanjung Priok", -6.10, 106.89, ("Southeast Asia",), ("Jakarta",)),
    Place("Tianjin", 38.98, 117.75, ("China",)),
    Place("Valencia", 39.44, -0.32, ("Mediterranean",)),
    Place("Vancouver", 49.29, -123.08, ("Canada",), ("Deltaport",)),
    Place("Yokohama", 35.43, 139.67, ("Japan",), ("Tokyo",)),
)
