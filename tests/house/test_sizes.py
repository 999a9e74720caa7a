"""Files and functions stay small enough to be read in one sitting."""

import ast

from tests.house.tree import CODE_SUFFIXES, definitions, place, python_files, written_files

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {
        place(path): len(path.read_text("utf-8").splitlines())
        for path in written_files()
        if path.suffix in CODE_SUFFIXES or path.name == "Makefile"
    }
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    lengths = {
        f"{place(path, node.lineno)} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in python_files()
        for node in definitions(path)
        if not isinstance(node, ast.ClassDef)
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}
