"""The categories of signals by the names people write."""

from omen.v1.signal_pb2 import SignalCategory

CATEGORIES = {
    name.removeprefix("SIGNAL_CATEGORY_").lower(): number for name, number in SignalCategory.items() if number
}


def category_name(number: int) -> str:
    """The number itself where this program is older than the category."""
    return next((name for name, each in CATEGORIES.items() if each == number), str(number))
