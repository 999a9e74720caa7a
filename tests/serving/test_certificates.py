"""`python -m serving.certificates`: an authority that is made once, and what it signs."""

from pathlib import Path

import pytest
import typer
from cryptography import x509

from serving.certificates.__main__ import make
from serving.pem import read_pair


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_is_made_once_and_what_it_signs_is_made_anew_each_time(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "certs"
    make(directory, ["omen=127.0.0.1,omen.example", "operator"], days=30)
    authority, before = certificate(directory / "ca.pem"), certificate(directory / "omen.pem")
    make(directory, ["omen"], days=30)
    after = certificate(directory / "omen.pem")
    assert certificate(directory / "ca.pem") == authority
    for each in (before, after, certificate(directory / "operator.pem")):
        each.verify_directly_issued_by(authority)
    names = [
        list(each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) for each in (before, after)
    ]
    assert [[str(name.value) for name in each] for each in names] == [["127.0.0.1", "omen.example"], ["omen"]]
    assert before.serial_number != after.serial_number
    assert (after.not_valid_after_utc - after.not_valid_before_utc).days == 30
    read_pair(directory / "omen.pem", directory / "omen.key")


def no_key(directory: Path) -> None:
    (directory / "ca.key").unlink()


def another_key(directory: Path) -> None:
    (directory / "ca.key").write_bytes((directory / "omen.key").read_bytes())


def half_a_key(directory: Path) -> None:
    (directory / "ca.key").write_bytes((directory / "ca.key").read_bytes()[:100])


@pytest.mark.parametrize("broken", [no_key, another_key, half_a_key])
def test_half_an_authority_is_refused_in_a_line_and_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: object
) -> None:
    make(tmp_path, ["omen"], days=30)
    capsys.readouterr()
    assert callable(broken)
    broken(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(typer.Exit) as ended:
        make(tmp_path, ["omen"], days=30)
    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "ca.key") in said
    assert len(said.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
