"""`python -m serving.certificates`: an authority and what it signs, in a directory."""

from pathlib import Path
from typing import Annotated

import typer

from serving.certificates.authority import Authority, issued, keep, kept, new_authority, pair_in, write
from serving.console import Exit, say
from serving.files import keep_private


def make(
    directory: Annotated[Path, typer.Argument(help="Of ca.pem and ca.key, which are made when missing.")],
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[=HOST,HOST…]",
            help="NAME.pem and NAME.key, and the names and addresses by which clients dial it; NAME itself by default.",
        ),
    ],
    days: Annotated[int, typer.Option(min=1, help="How long the certificates are valid.")] = 90,
) -> None:
    """Issue certificates, each for a server or a client, by an authority of one's own.

    Those that are there are replaced; the authority stays as it is.
    """
    try:
        authority = authority_in(directory)
        for each in wanted:
            name, _, hosts = each.partition("=")
            write(pair_in(directory, name), *issued(authority, name, (hosts or name).split(","), days))
    except OSError as error:
        say(f"{error.filename}: {error.strerror}")
        raise typer.Exit(Exit.USAGE) from error
    except ValueError as error:
        say(str(error))
        raise typer.Exit(Exit.USAGE) from error


def authority_in(directory: Path) -> Authority:
    """Raises OSError, ValueError."""
    directory.mkdir(parents=True, exist_ok=True)
    if not any(path.exists() for path in (pair_in(directory, "ca").cert_file, pair_in(directory, "ca").key_file)):
        keep(new_authority(f"authority of {directory.name}"), directory)
        say(f"{directory / 'ca.pem'} is a new authority")
    return kept(directory)


if __name__ == "__main__":
    keep_private()
    typer.run(make)
