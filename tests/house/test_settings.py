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


def methods(source: Path) -> set[str]:
    """Of the same classes: what is gathered of several settings."""
    return {
        statement.name
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_")
    }


def attributes_read(maybe_excluded: Path | None = None) -> set[str]:
    return {
        node.attr
        for path in python_files(*PRODUCT)
        if path != maybe_excluded
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("where", ["serving", "omen_server", "riskcast_server"])
def test_every_setting_is_read_and_whatever_gathers_several_is_used(where: str) -> None:
    source = ROOT / where / "settings.py"
    settings = declared_settings(source)
    assert settings, f"{where}/settings.py declares no settings"
    assert sorted(settings - attributes_read()) == []
    assert sorted(methods(source) - attributes_read(source)) == []
