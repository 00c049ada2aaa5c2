"""A short form of `make kills`."""

from pathlib import Path

from mishaps import DAMAGES, damaged, kills


def test_each_damaged_file_is_a_row_with_its_reason(tmp_path: Path) -> None:
    assert damaged(tmp_path, 60, every=6) == dict.fromkeys(DAMAGES, 1)


def test_after_kills_a_batch_ends_as_if_there_had_been_none(tmp_path: Path) -> None:
    assert kills(tmp_path, 2).total() >= 2
