"""Commands that are loaded when somebody chooses them: one waits for nothing that only others need.

A table says where each is, "module:function"; its texts and options stay beside the function.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True, slots=True)
class Group:
    """Commands under one name. `help` is what is said of them all."""

    help: str
    commands: Mapping[str, str]


Table: TypeAlias = Mapping[str, str | Group]


class Loaded(Mapping[str, Any]):
    """The commands of a table, each loaded when it is taken out."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Any:
        entry = self._table[name]
        return group_named(name, entry) if isinstance(entry, Group) else command_named(name, entry)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def chosen_from(table: Table) -> type[TyperGroup]:
    """The class (`cls=`) of a Typer that has the commands of the table."""

    class ChosenFrom(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**{**attributes, "commands": Loaded(table)})

    return ChosenFrom


def group_named(name: str, group: Group) -> TyperGroup:
    return get_group(typer.Typer(name=name, cls=chosen_from(group.commands), help=group.help, no_args_is_help=True))


def command_named(name: str, place: str) -> TyperCommand:
    app = typer.Typer(add_completion=False)
    app.command(name)(found(place))
    command = get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def found(place: str) -> Any:
    """What "module:name" names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
