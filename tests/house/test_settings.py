"""A setting nobody reads is a promise to operators that nothing keeps."""

import ast
from pathlib import Path

import pytest

from tests.house.tree import PRODUCT, ROOT, parsed, python_files


def declared_settings(source: Path) -> set[str]:
    """Field names of every class in a settings module."""
    return {
        statement.target.id
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and "ClassVar" not in ast.unparse(statement.annotation)
    }


def attributes_read(excluding: Path) -> set[str]:
    return {
        node.attr
        for path in python_files(*PRODUCT)
        if path != excluding
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("server", ["omen_server", "riskcast_server"])
def test_every_setting_of_a_server_is_read_by_its_code(server: str) -> None:
    source = ROOT / server / "settings.py"
    settings = declared_settings(source)
    assert settings, f"{server}/settings.py declares no settings"
    assert sorted(settings - attributes_read(excluding=source)) == []
