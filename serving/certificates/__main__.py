"""`python -m serving.certificates`: an authority and what it signs, in a directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from serving.certificates.authority import issued, keep, kept, new_authority, pair_in, write
from serving.console import Exit, say
from serving.files import keep_private

Directory = Annotated[Path, typer.Argument(help="Where ca.pem and ca.key are; readable by nobody else.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="An authority of one's own, and what it signs.")


@contextmanager
def refusals() -> Iterator[None]:
    """What the system says, or what a file is not, becomes one line."""
    try:
        yield
    except OSError as error:
        say(f"{error.filename}: {error.strerror}")
        raise typer.Exit(Exit.USAGE) from error
    except ValueError:
        say("ca.pem and ca.key are no authority")
        raise typer.Exit(Exit.USAGE) from None


@app.command("ca")
def make_authority(directory: Directory) -> None:
    """Make an authority; one that is there is left alone."""
    with refusals():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if pair_in(directory, "ca").cert_file.exists():
            say(f"{directory} has an authority")
            raise typer.Exit(Exit.USAGE)
        keep(new_authority(f"authority in {directory.name}"), directory)


@app.command("issue")
def issue(
    directory: Directory,
    name: Annotated[str, typer.Argument(help="Of the files: NAME.pem and NAME.key.")],
    hosts: Annotated[list[str], typer.Argument(help="Names and addresses that clients dial it by.")],
    days: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 90,
) -> None:
    """Issue a certificate for a server or a client; again it replaces the one of before."""
    with refusals():
        write(pair_in(directory, name), *issued(kept(directory), name, hosts, days))


if __name__ == "__main__":
    keep_private()
    app()
