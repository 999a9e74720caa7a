"""Finding phrases in text, word by word.

A phrase matches whole words only: "strike" is not in "striker", "Panama" is not in "Panamanian". Case, accents and
punctuation do not matter: "Bab-el-Mandeb", "bab el mandeb" and "Bāb el-Mandeb" are the same three words.
Within one table the longest phrase wins and its words are taken: "missile strike" is not also a "strike".
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

WORD = re.compile(r"[^\W_]+")
# The same for ASCII, at a third of the cost: what is neither letter nor digit becomes a space, then text is split.
ASCII_SPACED = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}

# Stands between two texts so that no phrase runs from one into the other; no phrase contains it.
BOUNDARY = ""

Table = Mapping[str, Sequence[str]]
"""Label -> the phrases that stand for it. A phrase stands for one label of its table."""


class Hit(NamedTuple):
    """A phrase that was found, as the table writes it."""

    table: str
    label: str
    phrase: str


class _Entry(NamedTuple):
    words: list[str]
    word_count: int
    table: str
    hit: Hit


def words_of(text: str) -> list[str]:
    """The words of a text, case-folded and without accents."""
    if text.isascii():
        return text.translate(ASCII_SPACED).split()
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return WORD.findall(plain.casefold())


def joined(texts: Iterable[str]) -> list[str]:
    """The words of several texts, kept apart."""
    words: list[str] = []
    for text in texts:
        if text:
            words += words_of(text)
            words.append(BOUNDARY)
    return words


class Lexicon:
    """Tables of phrases, compiled so that one pass over the words of a text finds the hits of all of them."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        """Raises ValueError for a phrase without words, or one that stands for two labels of its table."""
        self._by_first_word: dict[str, list[_Entry]] = {}
        for name, table in tables.items():
            for entry in _entries(name, table):
                self._by_first_word.setdefault(entry.words[0], []).append(entry)
        for entries in self._by_first_word.values():
            entries.sort(key=lambda entry: -entry.word_count)

    def hits(self, words: list[str]) -> list[Hit]:
        """What is found, from left to right; a phrase that occurs twice is listed twice."""
        by_first_word = self._by_first_word
        found: list[Hit] = []
        taken_until: dict[str, int] = {}
        # Few words of a text begin a phrase: the comprehension passes over the rest at a third of the cost.
        for index in [index for index, word in enumerate(words) if word in by_first_word]:
            for phrase, word_count, table, hit in by_first_word[words[index]]:
                if taken_until.get(table, 0) <= index and (
                    word_count == 1 or words[index : index + word_count] == phrase
                ):
                    taken_until[table] = index + word_count
                    found.append(hit)
        return found


def _entries(table_name: str, table: Table) -> list[_Entry]:
    seen: set[tuple[str, ...]] = set()
    entries = []
    for label, phrases in table.items():
        for phrase in phrases:
            words = words_of(phrase)
            if not words or tuple(words) in seen:
                raise ValueError(f"{table_name}: {phrase!r} has no words or stands there twice")
            seen.add(tuple(words))
            entries.append(_Entry(words, len(words), table_name, Hit(table_name, label, phrase)))
    return entries
