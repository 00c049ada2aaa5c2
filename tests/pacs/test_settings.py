"""Settings as one writes them, and what is said of those that will not do."""

from pathlib import Path

import pytest

from conftest import Typed
from mammolens.errors import DataError
from mammolens.pacs.settings import read_settings

PEER = '[store]\ntitle = "PACS"\nhost = "pacs"\nport = 104\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file_and_it_listens_here_alone(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, f'folder = "kept"\n{PEER}'))
    assert settings.folder == tmp_path / "kept"
    assert settings.receive.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('folder = "kept"', r"results go to one peer"),
        (f'folder = "kept"\n{PEER}[stow]\nurl = "http://pacs/web"', r"results go to one peer"),
        (f'folder = "kept"\nsetle = 3\n{PEER}', r"setle: Extra inputs"),
        (f'folder = "kept"\nsettle = 0\n{PEER}', r"settle: Input should be greater than 0"),
        (
            f'folder = "kept"\n{PEER}[receive]\ntitle = "SEVENTEEN LETTERS"',
            r"receive\.title: String should have at most",
        ),
        (f'folder = "kept"\n{PEER}[receive]\ntitle = "BACK\\\\SLASH"', r"receive\.title: String should match"),
        ('folder = "kept"\n[stow]\nurl = "https://me:secret@pacs/web"', r"stow\.url: String should match"),
        (PEER, r"folder: Field required"),
        ("folder = ", r"not valid TOML"),
    ],
)
def test_what_will_not_do_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as told:
        read_settings(written(tmp_path, text))
    assert str(told.value).startswith(str(tmp_path / "settings.toml"))
    assert "secret" not in str(told.value)


def test_a_check_says_that_the_peer_is_away(tmp_path: Path, mammolens: Typed) -> None:
    there = PEER.replace('"pacs"', '"127.0.0.1"').replace("104", "9")
    said = mammolens("listen", written(tmp_path, f'folder = "kept"\nmodel = "phantom"\n{there}'), "--check")
    assert said.code == 1
    assert "the peer cannot be reached" in said.err
    assert not (tmp_path / "kept").exists()


def test_a_check_opens_certificates_of_both_ways_and_looks_for_a_place(tmp_path: Path, mammolens: Typed) -> None:
    begun = f'folder = "kept"\nmodel = "phantom"\n{PEER}'
    tls = '[receive.tls]\ncertificate = "a.pem"\nkey = "a.key"\nauthorities = "b.pem"\n'
    said = mammolens("listen", written(tmp_path, begun + tls), "--check")
    assert (said.code, "a.pem" in said.err) == (1, True)
    (tmp_path / "kept").write_text("in the way")
    said = mammolens("listen", written(tmp_path, begun), "--check")
    assert (said.code, "cannot be written here" in said.err) == (1, True)


def test_a_check_says_that_the_peer_has_no_such_name(tmp_path: Path, mammolens: Typed) -> None:
    there = PEER.replace('"pacs"', '"nowhere.invalid"')
    said = mammolens("listen", written(tmp_path, f'folder = "kept"\nmodel = "phantom"\n{there}'), "--check")
    assert said.code == 1
    assert "the peer cannot be found by its name" in said.err
