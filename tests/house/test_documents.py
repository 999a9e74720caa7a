"""What is written here is true on any machine."""

import re

from tests.house.tree import ROOT, TEXT_SUFFIXES, place, written_files

# A path under one person's machine, never one that a reader could have.
MACHINE_PATH = re.compile(r"(?<![\w.}-])/(?:work|root|home|Users)/\w+")
CODE_IN_MARKDOWN = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
MAKE_TARGETS = re.compile(r"\bmake ([a-z-]+(?: [a-z-]+)*)")


def test_no_file_mentions_a_path_of_somebodys_machine() -> None:
    found = [
        f"{place(path, number)}: {line.strip()}"
        for path in written_files()
        if path.suffix in TEXT_SUFFIXES or path.name in ("Makefile", "run")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_every_make_target_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        f"{place(path)}: make {target}": target
        for path in written_files()
        if path.suffix == ".md"
        for code in CODE_IN_MARKDOWN.findall(path.read_text("utf-8"))
        for command in MAKE_TARGETS.findall(code)
        for target in command.split()
    }
    assert named
    assert [where for where, target in named.items() if target not in targets] == []


def test_every_make_target_is_phony_because_folders_share_their_names() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    declared = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert declared
    assert set(declared[1].split()) == set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
