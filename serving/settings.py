"""Reading a server's settings from its environment: an unknown name is refused, and no value ever reaches a message."""

import difflib
import os
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

S = TypeVar("S", bound=BaseSettings)


class SettingsRefused(Exception):
    """One line per setting that is unknown or wrong, by its name, without its value."""


def load(kind: type[S]) -> S:
    """The settings of one server. Raises SettingsRefused."""
    prefix = kind.model_config["env_prefix"]
    known = {f"{prefix}{name.upper()}" for name in kind.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(prefix) and name.upper() not in known)
    if unknown:
        raise SettingsRefused("\n".join(_unknown(name, prefix, kind) for name in unknown))
    try:
        return kind()
    except ValidationError as error:
        flaws = error.errors(include_input=False, include_context=False, include_url=False)
        raise SettingsRefused("\n".join(f"{prefix}{_name(flaw['loc'])}: {flaw['msg']}" for flaw in flaws)) from None


def _name(path: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in path).upper()


def _unknown(name: str, prefix: str, kind: type[BaseSettings]) -> str:
    """Compared without the prefix: with it every name resembles every other."""
    known = [field.upper() for field in kind.model_fields]
    close = difflib.get_close_matches(name.upper().removeprefix(prefix), known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {prefix}{close[0]}?" if close else "")
