"""`keys create | list | revoke` of both servers: they change the file that a server reads, and need no server."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from filelock import Timeout

from contract.scopes import Scope
from serving.access.editing import edit_keys
from serving.access.keys import KEY_ID, KEYS_MAX, RATE_MAX, RATE_MIN, ApiKey, new_key, read_keys, sha256_of
from serving.console import Exit, Output, Printer, say
from serving.settings import ServerSettings, SettingsRefused, load

COLUMNS = ("id", "state", "scopes", "expires_at", "rate")
DAYS = re.compile(r"(\d{1,5})d")
DAYS_MAX = 36_525  # a hundred years: beyond it somebody has mistyped, and the calendar ends soon after


def an_id(text: str) -> str:
    if not re.fullmatch(KEY_ID, text):
        raise typer.BadParameter("an id is 1 to 63 of a-z, 0-9, - and _, and begins with a letter or digit")
    return text


def an_expiry(text: str) -> datetime:
    """Of a number of days from now, or ISO 8601 with a zone; it is yet to come."""
    now = datetime.now(UTC)
    days = DAYS.fullmatch(text)
    try:
        at = now + timedelta(days=int(days[1])) if days else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is neither 90d nor a time such as 2027-01-29T12:00:00Z") from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone; write it as 2027-01-29T12:00:00Z")
    if not now < at <= now + timedelta(days=DAYS_MAX):
        raise typer.BadParameter(f"{text!r} is past, or more than {DAYS_MAX} days away")
    return at.astimezone(UTC).replace(microsecond=0)


Id = Annotated[str, typer.Argument(parser=an_id, metavar="ID", help="The key's id; a client's next key has another.")]
Scopes = Annotated[list[Scope], typer.Option("--scope", help="What it may do; repeatable.")]
Expires = Annotated[
    datetime | None,
    typer.Option("--expires", parser=an_expiry, metavar="TIME", help="Days such as 90d, or a time with a zone."),
]
Rate = Annotated[
    float | None,
    typer.Option("--rate", min=RATE_MIN, max=RATE_MAX, help="Requests a second, a message of a stream being one."),
]
File = Annotated[Path | None, typer.Option("--file", help="The file of keys; by default that of the settings.")]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


class KeysCommands(NamedTuple):
    """As a typer takes them."""

    create: Callable[..., None]
    list_keys: Callable[..., None]
    revoke: Callable[..., None]


def keys_commands(settings: type[ServerSettings]) -> KeysCommands:
    """The commands for the keys file of one server."""
    setting = f"{settings.model_config['env_prefix']}API_KEYS_FILE"

    def create(key_id: Id, scope: Scopes, expires: Expires = None, rate: Rate = None, file: File = None) -> None:
        """Add a key and print it, once: nobody can read it again. A running server lets it in within a second."""
        with refusals_told():
            sys.stdout.write(f"{created(the_file(file, settings, setting), key_id, scope, expires, rate)}\n")

    def list_keys(file: File = None, output: Format = Output.TABLE) -> None:
        """List the keys, without what would let anybody in."""
        with refusals_told(), Printer(output, COLUMNS) as printer:
            for key in read_keys(the_file(file, settings, setting)):
                printer.add(row(key), data(key))

    def revoke(key_id: Id, file: File = None) -> None:
        """Take a key away: its calls are refused and its streams end within seconds. Exit code 3 when there is none."""
        with refusals_told():
            revoked(the_file(file, settings, setting), key_id)
        say(f"{key_id} is revoked")

    return KeysCommands(create, list_keys, revoke)


class NoSuchKey(Exception):
    """The file holds no key of this id."""


class KeyRefused(Exception):
    """The key cannot be added; the text is one line for the operator."""


def created(path: Path, key_id: str, scopes: Sequence[Scope], expires: datetime | None, rate: float | None) -> str:
    """The key's text. Raises KeyRefused, and as `edit_keys`."""
    text = new_key(key_id)
    key = ApiKey(id=key_id, sha256=sha256_of(text), scopes=frozenset(scopes), expires_at=expires, rate=rate)

    def add(keys: Sequence[ApiKey]) -> Sequence[ApiKey]:
        if any(each.id == key_id for each in keys):
            raise KeyRefused(f"there is a key {key_id}; give a client's next key another id")
        if len(keys) == KEYS_MAX:
            raise KeyRefused(f"the file holds {KEYS_MAX} keys, the most there may be; revoke some first")
        return [*keys, key]

    edit_keys(path, add)
    return text


def revoked(path: Path, key_id: str) -> None:
    """Raises NoSuchKey, and as `edit_keys`."""
    if not path.exists():
        raise NoSuchKey(f"no file {path}")

    def remove(keys: Sequence[ApiKey]) -> Sequence[ApiKey]:
        left = [key for key in keys if key.id != key_id]
        if len(left) == len(keys):
            raise NoSuchKey(f"no key {key_id}")
        return left

    edit_keys(path, remove)


def data(key: ApiKey) -> dict[str, object]:
    """What JSON shows of a key."""
    return {
        "id": key.id,
        "state": "expired" if key.is_expired(datetime.now(UTC)) else "valid",
        "scopes": sorted(key.scopes),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "rate": key.rate,
    }


def row(key: ApiKey) -> dict[str, object]:
    """What the table shows of a key."""
    told = {name: "" if value is None else value for name, value in data(key).items()}
    return {**told, "scopes": " ".join(sorted(key.scopes))}


def the_file(option: Path | None, settings: type[ServerSettings], setting: str) -> Path:
    """Raises SettingsRefused."""
    path = option or load(settings).api_keys_file
    if path is None:
        raise SettingsRefused(f"{setting} names no file of keys; set it, or give --file")
    return path


@contextmanager
def refusals_told() -> Iterator[None]:
    """A refusal within ends the command with a line and an exit code."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (FileNotFoundError, NoSuchKey) as error:
        say(f"no file {error.filename}" if isinstance(error, FileNotFoundError) else str(error))
        raise typer.Exit(Exit.NOT_FOUND) from error
    except Timeout as error:
        say("another command is changing the keys")
        raise typer.Exit(Exit.UNAVAILABLE) from error
    except OSError as error:
        say(f"{error.filename or 'the file of keys'}: {error.strerror or error}")
        raise typer.Exit(Exit.UNEXPECTED) from error
    except (KeyRefused, SettingsRefused, ValueError) as error:
        say(str(error))
        raise typer.Exit(Exit.USAGE) from error
