"""What a ledger knows after a kill at any moment: it is opened anew in between."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mammolens.errors import DataError
from mammolens.pacs.ledger import PICTURES, RESULTS, Kept, Ledger


def file(folder: Path, name: str) -> Kept:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return Kept(path.stem, path)


def test_a_study_is_received_answered_and_sent_through_restarts(tmp_path: Path) -> None:
    one, other = file(tmp_path, f"{PICTURES}/1.dcm"), file(tmp_path, f"{PICTURES}/2.dcm")
    report, heat = file(tmp_path, f"{RESULTS}/1-1/3.dcm"), file(tmp_path, f"{RESULTS}/1-1/4.dcm")
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.add(one, "A") == ledger.add(other, "A") == 1
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.has("1")
        assert ledger.receiving() == [1]
        assert ledger.pictures(1) == [one, other]
        assert ledger.answer(1, [one, other], [report, heat]) == [report, heat]
    with closing(Ledger(tmp_path)) as ledger:
        assert (ledger.receiving(), ledger.answered()) == ([], [1])
        ledger.sent(report.uid)
        assert ledger.unsent(1) == [heat]
        ledger.sent(heat.uid)
    with closing(Ledger(tmp_path)) as ledger:
        assert (ledger.receiving(), ledger.answered()) == ([], [])


def test_a_picture_that_comes_during_an_answer_waits_for_the_next(tmp_path: Path) -> None:
    one, other = file(tmp_path, f"{PICTURES}/1.dcm"), file(tmp_path, f"{PICTURES}/2.dcm")
    first, second = file(tmp_path, f"{RESULTS}/1-1/3.dcm"), file(tmp_path, f"{RESULTS}/1-2/4.dcm")
    with closing(Ledger(tmp_path)) as ledger:
        ledger.add(one, "A")
        looked_at = ledger.pictures(1)
        ledger.add(other, "A")
        ledger.answer(1, looked_at, [first])
        assert ledger.receiving() == [1]
        assert ledger.next_version(1) == 2
        again = Kept(first.uid, tmp_path / RESULTS / "1-2" / "3.dcm")
        assert ledger.answer(1, ledger.pictures(1), [again, second]) == [second], "what there was is not sent anew"
        assert ledger.receiving() == []


def test_files_that_no_row_names_are_swept(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        kept, lost = file(tmp_path, f"{PICTURES}/1.dcm"), file(tmp_path, f"{PICTURES}/.2.part-abcdefgh.dcm")
        ledger.add(kept, "A")
        unknown = file(tmp_path, f"{RESULTS}/1-1/3.dcm")
        ledger.sweep()
        assert kept.file.exists()
        assert not lost.file.exists()
        assert not unknown.file.exists()


def test_files_go_when_all_was_sent_and_their_names_stay(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        picture, result = file(tmp_path, f"{PICTURES}/1.dcm"), file(tmp_path, f"{RESULTS}/1-1/2.dcm")
        ledger.add(picture, "A")
        assert ledger.forget(0) == 0, "it has no answer"
        ledger.answer(1, [picture], [result])
        assert ledger.forget(0) == 0, "the peer has no result"
        ledger.sent(result.uid)
        assert ledger.forget(1) == 0, "it is new"
        assert ledger.forget(0) == 2
        assert not picture.file.exists()
        assert not result.file.exists()
        assert ledger.has(picture.uid)
        assert ledger.pictures(1) == []


def test_files_stay_for_as_long_after_a_result_was_sent_late(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        picture, result = file(tmp_path, f"{PICTURES}/1.dcm"), file(tmp_path, f"{RESULTS}/1-1/2.dcm")
        ledger.add(picture, "A")
        ledger.answer(1, [picture], [result])
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as rows, rows:
        rows.execute("UPDATE studies SET heard = 0")
    with closing(Ledger(tmp_path)) as ledger:
        ledger.sent(result.uid)
        assert ledger.forget(1) == 0
        assert ledger.forget(0) == 2


def test_a_ledger_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as rows, rows:
        rows.execute("PRAGMA user_version = 99")
    for _ in range(2):  # nor is it held
        with pytest.raises(DataError, match="a newer mammolens listened with this folder"):
            Ledger(tmp_path)


def test_a_folder_that_was_there_is_for_its_owner_alone_from_then_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Ledger(tmp_path).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_one_process_has_a_folder(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)), pytest.raises(DataError, match="another `mammolens listen`"):
        Ledger(tmp_path)


def test_a_ledger_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("no database" * 100)
    with pytest.raises(DataError, match=r"ledger\.sqlite cannot be used"):
        Ledger(tmp_path)
