"""What observations are about: every table of words that classification and semantic relevance read.

Phrases match whole words (`lexicon`). Rows stand in order of precedence: of the rows found in a title the first
decides signal_type, category and direction; only if the title has none of them the rest of the text is asked.
A change here is a change of the ruleset: it needs a new RULESET_VERSION.
"""

from typing import NamedTuple

from omen.v1 import signal_pb2 as pb

Phrases = tuple[str, ...]

# What semantic_relevance counts.
RELEVANCE_CATEGORIES = ("climate", "conflict", "infrastructure", "labor", "regulatory", "sanctions")


class Topic(NamedTuple):
    """One subject. `relevance` is one of RELEVANCE_CATEGORIES, or empty: it sorts signals but does not make one."""

    name: str
    relevance: str
    signal_type: pb.SignalType.ValueType
    category: pb.SignalCategory.ValueType
    domains: Phrases
    phrases: Phrases


TOPICS = (
    Topic(
        "vessel attack",
        "conflict",
        pb.SIGNAL_TYPE_GEOPOLITICAL_CONFLICT,
        pb.SIGNAL_CATEGORY_SECURITY,
        ("insurance", "security", "shipping"),
        (
            *("houthi", "houthis", "piracy", "pirate", "pirates", "hijack", "hijacked", "hijacking", "naval mine"),
            *("naval mines", "sea mines", "attack on shipping", "attacks on shipping", "ship attack", "vessel attack"),
            *("attack on vessels", "attacks on vessels", "vessel seizure", "seize a tanker", "tanker seizure"),
        ),
    ),
    Topic(
        "cyber attack",
        "conflict",
        pb.SIGNAL_TYPE_SUPPLY_CHAIN_DISRUPTION,
        pb.SIGNAL_CATEGORY_SECURITY,
        ("logistics", "security"),
        ("cyberattack", "cyberattacks", "cyber attack", "cyber attacks", "ransomware", "gps jamming"),
    ),
    Topic(
        "sanctions",
        "sanctions",
        pb.SIGNAL_TYPE_GEOPOLITICAL_SANCTIONS,
        pb.SIGNAL_CATEGORY_GEOPOLITICAL,
        ("compliance", "trade"),
        (
            *("sanction", "sanctions", "sanctioned", "embargo", "embargoes", "price cap", "asset freeze", "blacklist"),
            *("entity list", "snapback", "secondary sanctions", "shadow fleet", "ofac"),
        ),
    ),
    Topic(
        "export ban",
        "sanctions",
        pb.SIGNAL_TYPE_GEOPOLITICAL_SANCTIONS,
        pb.SIGNAL_CATEGORY_ECONOMIC,
        ("commodities", "compliance", "trade"),
        (
            *("export ban", "export bans", "ban exports", "ban on exports", "export control", "export controls"),
            *("export restriction", "export restrictions", "export quota", "export quotas", "export licence"),
            *("export licences", "export license", "export licenses", "import ban", "import bans"),
        ),
    ),
    Topic(
        "energy infrastructure",
        "infrastructure",
        pb.SIGNAL_TYPE_ENERGY_INFRASTRUCTURE,
        pb.SIGNAL_CATEGORY_ENERGY,
        ("energy",),
        (
            *("pipeline", "pipelines", "refinery", "refineries", "lng terminal", "lng terminals", "oil terminal"),
            *("oil terminals", "export terminal", "power grid", "blackout", "substation", "undersea cable", "druzhba"),
            *("undersea cables", "subsea cable", "subsea cables", "nord stream", "oil depot", "interconnector"),
        ),
    ),
    Topic(
        "armed conflict",
        "conflict",
        pb.SIGNAL_TYPE_GEOPOLITICAL_CONFLICT,
        pb.SIGNAL_CATEGORY_GEOPOLITICAL,
        ("insurance", "security"),
        (
            *("war", "invasion", "invade", "invades", "missile", "missiles", "missile strike", "missile strikes"),
            *("airstrike", "airstrikes", "air strike", "air strikes", "drone strike", "drone strikes", "drone attack"),
            *("drone attacks", "military strike", "military strikes", "retaliatory strike", "retaliatory strikes"),
            *("strike iran", "strikes iran", "strike israel", "strike on iran", "strikes on iran", "strikes in yemen"),
            *("strikes on yemen", "armed conflict", "military clash", "military exercise", "military exercises"),
            *("blockade", "quarantine of taiwan", "warship", "warships", "navy", "shelling", "attack", "attacks"),
        ),
    ),
    Topic(
        "labor dispute",
        "labor",
        pb.SIGNAL_TYPE_LABOR,
        pb.SIGNAL_CATEGORY_LABOR,
        ("labor", "logistics"),
        (
            *("strike", "strikes", "on strike", "walkout", "walkouts", "walk out", "walk off", "lockout", "lock out"),
            *("work stoppage", "work stoppages", "industrial action", "go slow", "overtime ban", "picket", "pickets"),
            *("dockworker", "dockworkers", "docker", "dockers", "longshore", "longshoremen", "longshore workers"),
            *(
                "stevedore",
                "stevedores",
                "trade union",
                "trade unions",
                "labor union",
                "collective agreement",
                "labor contract",
                "labour dispute",
            ),
            *(
                "labor dispute",
                "strike notice",
                "strike vote",
                "strike ballot",
                "warning strike",
                "ila",
                "ilwu",
                "verdi",
            ),
        ),
    ),
    Topic(
        "tariffs",
        "regulatory",
        pb.SIGNAL_TYPE_REGULATORY,
        pb.SIGNAL_CATEGORY_REGULATORY,
        ("compliance", "trade"),
        (
            *(
                "tariff",
                "tariffs",
                "trade war",
                "tariff war",
                "import duty",
                "import duties",
                "customs duty",
                "customs duties",
                "port fee",
            ),
            *("port fees", "section 301", "section 232", "countervailing duty", "antidumping", "anti dumping", "quota"),
            *("quotas", "de minimis", "transit fee", "transit fees", "canal toll", "canal tolls"),
        ),
    ),
    Topic(
        "storm",
        "climate",
        pb.SIGNAL_TYPE_NATURAL_DISASTER,
        pb.SIGNAL_CATEGORY_WEATHER,
        ("insurance", "shipping", "weather"),
        (
            *("storm", "storms", "typhoon", "typhoons", "super typhoon", "hurricane", "hurricanes", "cyclone"),
            *("cyclones", "tropical storm", "storm surge", "gale", "gales", "gale force", "wind gust", "wind gusts"),
            *("gusts", "wind speed", "wave height", "significant wave height", "high winds", "nor easter", "blizzard"),
            *("medicane", "monsoon depression"),
        ),
    ),
    Topic(
        "natural disaster",
        "climate",
        pb.SIGNAL_TYPE_NATURAL_DISASTER,
        pb.SIGNAL_CATEGORY_WEATHER,
        ("insurance", "logistics"),
        (
            *("earthquake", "earthquakes", "tsunami", "flood", "floods", "flooding", "landslide", "wildfire"),
            *("wildfires", "eruption", "volcanic eruption", "volcano"),
        ),
    ),
    Topic(
        "slow weather",
        "climate",
        pb.SIGNAL_TYPE_CLIMATE,
        pb.SIGNAL_CATEGORY_WEATHER,
        ("shipping", "weather"),
        (
            *("drought", "droughts", "water level", "water levels", "low water", "lake level", "draft restriction"),
            *("draft restrictions", "draught", "draft limit", "el nino", "la nina", "heatwave", "heat wave", "sea ice"),
            *("ice cover", "fog", "visibility", "rainfall", "gauge"),
        ),
    ),
    Topic(
        "diplomacy",
        "conflict",
        pb.SIGNAL_TYPE_GEOPOLITICAL_DIPLOMATIC,
        pb.SIGNAL_CATEGORY_GEOPOLITICAL,
        ("trade",),
        (
            *("ceasefire", "truce", "peace deal", "peace agreement", "peace talks", "strike a deal", "nuclear deal"),
            *("treaty", "summit", "diplomatic", "ambassador", "embassy", "negotiations", "security guarantee"),
            *("grain corridor", "black sea initiative", "recognise", "recognize"),
        ),
    ),
    Topic(
        "customs",
        "regulatory",
        pb.SIGNAL_TYPE_REGULATORY,
        pb.SIGNAL_CATEGORY_REGULATORY,
        ("compliance", "logistics"),
        (
            *("customs", "inspection", "inspections", "cbam", "emissions trading", "fueleu", "imo", "regulation"),
            *("regulations", "regulator", "regulators", "border control", "border controls", "trade agreement"),
            *("trade deal", "usmca", "wto", "phytosanitary", "jones act"),
        ),
    ),
    Topic(
        "sea lane",
        "infrastructure",
        pb.SIGNAL_TYPE_SHIPPING_ROUTE_RISK,
        pb.SIGNAL_CATEGORY_INFRASTRUCTURE,
        ("shipping",),
        (
            *("canal", "strait", "straits", "transit", "transits", "chokepoint", "chokepoints", "shipping lane"),
            *("shipping lanes", "sea lane", "sea lanes", "reroute", "rerouting", "rerouted", "diversion", "diversions"),
            *("grounding", "ran aground", "run aground", "vessel traffic", "ship traffic", "commercial shipping"),
            *("merchant shipping", "convoy", "convoys", "northern sea route"),
        ),
    ),
    Topic(
        "port",
        "infrastructure",
        pb.SIGNAL_TYPE_PORT_OPERATIONS,
        pb.SIGNAL_CATEGORY_INFRASTRUCTURE,
        ("logistics", "ports"),
        (
            *("port", "ports", "seaport", "seaports", "container terminal", "container terminals", "berth", "berths"),
            *("harbor", "harbour", "anchorage", "vessels at anchor", "port closure", "port congestion", "quay", "dock"),
            *("docks", "lock gates", "crane", "cranes", "dwell time", "port calls"),
        ),
    ),
    Topic(
        "land link",
        "infrastructure",
        pb.SIGNAL_TYPE_SUPPLY_CHAIN_DISRUPTION,
        pb.SIGNAL_CATEGORY_INFRASTRUCTURE,
        ("logistics",),
        (
            *("railway", "rail freight", "freight rail", "freight train", "freight trains", "bridge collapse"),
            *("bridge", "border crossing", "border crossings", "trucking", "airspace", "air cargo"),
        ),
    ),
    Topic(
        "supply chain",
        "infrastructure",
        pb.SIGNAL_TYPE_SUPPLY_CHAIN_DISRUPTION,
        pb.SIGNAL_CATEGORY_ECONOMIC,
        ("logistics", "trade"),
        (
            *("supply chain", "supply chains", "shortage", "shortages", "container rates", "freight rate"),
            *("freight rates", "container throughput", "stockpile", "stockpiles", "shipments", "force majeure"),
        ),
    ),
    Topic(
        "energy supply",
        "infrastructure",
        pb.SIGNAL_TYPE_ENERGY_SUPPLY,
        pb.SIGNAL_CATEGORY_ENERGY,
        ("commodities", "energy"),
        (
            *(
                "crude",
                "crude oil",
                "oil production",
                "oil exports",
                "oil output",
                "oil supply",
                "opec",
                "lng",
                "gas flow",
            ),
            *("gas flows", "gas supply", "gas storage", "diesel", "bunker fuel", "barrels", "natural gas", "brent"),
        ),
    ),
    Topic(
        "economy",
        "",
        pb.SIGNAL_TYPE_UNCLASSIFIED,
        pb.SIGNAL_CATEGORY_ECONOMIC,
        ("trade",),
        (
            "recession",
            "gdp",
            "inflation",
            "interest rate",
            "interest rates",
            "strike price",
            "trade balance",
        ),
    ),
)

# Relief stands first: its words qualify a disruption ("strike ends"). "No deal" is longer than "deal", so it wins.
DIRECTIONS: dict[str, Phrases] = {
    "ROUTING_DIRECTION_RELIEF": (
        *("reopen", "reopens", "reopened", "reopening", "resume", "resumes", "resumed", "resumption", "restore"),
        *("restored", "ceasefire", "truce", "peace deal", "peace agreement", "strike ends", "strike end", "end strike"),
        *("end the strike", "call off", "called off", "averted", "agreement", "deal", "settlement", "ratify"),
        *("lift sanctions", "sanctions relief", "lifted", "lift", "return to", "returns to", "recover", "recovers"),
        *("back above", "ease", "eased", "easing", "suspended tariffs", "exemption", "exemptions"),
    ),
    "ROUTING_DIRECTION_DISRUPTION": (
        *("no deal", "without a deal", "no agreement", "deal collapse", "agreement expire", "agreement expires"),
        *("close", "closes", "closed", "closing", "closure", "shut", "shuts", "shutdown", "halt", "halts", "halted"),
        *("suspend", "suspends", "suspended", "suspension", "block", "blocks", "blocked", "blockade", "disrupt"),
        *("disrupted", "disruption", "strike", "strikes", "walkout", "walk out", "walk off", "lockout", "stoppage"),
        *("attack", "attacks", "attacked", "missile strike", "missile strikes", "invade", "invasion", "war", "hijack"),
        *("hijacked", "seize", "seized", "ban", "bans", "embargo", "sanction", "sanctions", "tariff", "tariffs"),
        *("typhoon", "hurricane", "cyclone", "storm", "flood", "flooding", "earthquake", "drought", "outage", "gusts"),
        *(
            "cyberattack",
            "cyber attack",
            "ransomware",
            "congestion",
            "below",
            "restrict",
            "restriction",
            "restrictions",
        ),
        *("reroute", "rerouting", "diversion", "diversions", "aground", "shortage", "force majeure", "work stoppage"),
        *("export controls", "quota", "quotas", "wave height", "wind speed", "gale", "industrial action", "snapback"),
    ),
}

# Asset type -> words that name it.
ASSETS: dict[str, Phrases] = {
    "aircraft": ("air cargo", "airspace", "cargo flights"),
    "bulk carrier": ("bulk carrier", "bulk carriers", "dry bulk", "grain", "iron ore", "coal", "panamax", "capesize"),
    "cable": ("undersea cable", "undersea cables", "subsea cable", "subsea cables"),
    "container ship": ("container", "containers", "container ship", "container ships", "boxship", "teu", "liner"),
    "gas carrier": ("lng", "lpg", "lng carrier", "lng carriers"),
    "pipeline": ("pipeline", "pipelines", "nord stream", "druzhba"),
    "port": ("port", "ports", "terminal", "terminals", "berth", "berths", "harbor", "harbour", "dock", "docks"),
    "rail": ("railway", "rail freight", "freight rail", "freight train", "freight trains", "cn", "cpkc"),
    "refinery": ("refinery", "refineries"),
    "tanker": ("tanker", "tankers", "crude", "crude oil", "vlcc", "suezmax", "shadow fleet", "diesel", "oil exports"),
    "truck": ("truck", "trucks", "trucking", "drayage"),
    "vehicle carrier": ("car carrier", "car carriers", "ro ro", "roro", "vehicle carrier"),
    "warehouse": ("warehouse", "warehouses", "stockpile", "stockpiles"),
}

# What a question is about when it is not about trade. Asked of title, answer and labels only: a report of a strike may
# mention a match, a question about a match names it.
BLOCKED: dict[str, Phrases] = {
    "sports": (
        *("football", "football club", "soccer", "fc", "afc", "premier league", "champions league", "europa league"),
        *("la liga", "bundesliga", "serie a", "ligue 1", "fifa", "uefa", "caf", "world cup", "asian cup", "gulf cup"),
        *("super cup", "cup final", "suez cup", "super bowl", "nfl", "nba", "mlb", "nhl", "ncaa", "world series"),
        *("stanley cup", "playoff", "playoffs", "quarterback", "touchdown", "grand slam", "wimbledon", "formula 1"),
        *("grand prix", "olympics", "olympic", "paralympics", "cricket", "rugby", "tennis", "golf", "ufc"),
        *("esports", "regatta", "goalkeeper", "striker", "midfielder", "al ahly", "zamalek"),
    ),
    "entertainment": (
        *("movie", "movies", "film", "box office", "oscar", "oscars", "academy award", "academy awards", "grammy"),
        *("grammys", "emmy", "emmys", "golden globe", "netflix", "spotify", "album", "billboard", "celebrity"),
        *("celebrities", "kardashian", "taylor swift", "mrbeast", "youtuber", "influencer", "eurovision", "reality tv"),
        *("season finale", "video game", "bachelorette", "rapper", "pop star", "wedding"),
    ),
}
