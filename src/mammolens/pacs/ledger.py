"""What came, what was answered and what was sent, on disk: it outlives kills at any moment.

A study is *receiving* while it has pictures that no answer rests on; once it is quiet it has *settled*; it is
*answered* when results of all its pictures are here, and *sent* when the peer has taken these. No state is written
down: each follows from the rows.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from mammolens.errors import DataError
from mammolens.files import system_reason
from mammolens.locks import lock

PICTURES, RESULTS = "pictures", "results"
"""Folders of the files that rows name."""

_DAY = 24 * 60 * 60
_VERSION = 1  # of the tables, which say theirs: those of a later one mean something else
_TABLES = """
CREATE TABLE IF NOT EXISTS studies (
    number INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, version INTEGER NOT NULL DEFAULT 0, heard REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS pictures (
    uid TEXT PRIMARY KEY, study INTEGER NOT NULL REFERENCES studies, file TEXT, version INTEGER
);
CREATE TABLE IF NOT EXISTS results (
    uid TEXT PRIMARY KEY, study INTEGER NOT NULL REFERENCES studies, file TEXT, version INTEGER NOT NULL, sent REAL
);
CREATE INDEX IF NOT EXISTS unanswered ON pictures (study) WHERE version IS NULL;
CREATE INDEX IF NOT EXISTS unsent ON results (study) WHERE sent IS NULL;
"""
"""`version` counts the answers for a study; of a picture, it is the first that rests on it. A `file` may be deleted."""


class Kept(NamedTuple):
    """A picture or a result: its SOP Instance UID, and its file."""

    uid: str
    file: Path


class Ledger:
    """The rows of a folder, which one process has at a time. Any thread may call.

    Attributes:
        folder: where the files lie, each named relative to it.
    """

    def __init__(self, folder: Path) -> None:
        """Open the ledger of `folder`, or begin one.

        Raises:
            DataError: the folder cannot be written to, another process listens with it, or a newer version did.
        """
        self.folder = folder
        self._turn = RLock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)  # it may have been there
            self._held = (folder / "lock").open("w")
        except OSError as error:
            raise DataError(f"{folder}: cannot be written to ({system_reason(error)}). Name another folder.") from error
        if lock(self._held.fileno()) is False:
            self._held.close()
            raise DataError(f"{folder}: another `mammolens listen` works with this folder. Name another, or end it.")
        self._rows = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None, check_same_thread=False)
        try:
            ((version,),) = self._rows.execute("PRAGMA user_version").fetchall()
            if version <= _VERSION:
                ways = f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA user_version = {_VERSION};"
                self._rows.executescript(f"{ways} {_TABLES}")
        except sqlite3.Error as error:
            self.close()
            raise DataError(f"{folder}: its ledger.sqlite cannot be used ({error}).") from error
        if version > _VERSION:
            self.close()
            raise DataError(f"{folder}: a newer mammolens listened with this folder. Name another, or install that.")

    def close(self) -> None:
        """Let go of the folder."""
        with self._turn:
            self._rows.close()
            self._held.close()

    def has(self, picture: str) -> bool:
        """Tell whether a picture came before."""
        return bool(self._ask("SELECT 1 FROM pictures WHERE uid = ?", picture))

    def add(self, picture: Kept, study: str) -> int:
        """Note a picture, whose file is on disk, and return the number of its study."""
        with self._together():
            self._ask(
                "INSERT INTO studies (uid, heard) VALUES (?1, ?2) ON CONFLICT (uid) DO UPDATE SET heard = ?2",
                study,
                time.time(),
            )
            ((number,),) = self._ask("SELECT number FROM studies WHERE uid = ?", study)
            named = self._named(picture.file)
            self._ask("INSERT OR IGNORE INTO pictures (uid, study, file) VALUES (?, ?, ?)", picture.uid, number, named)
        return int(number)

    def receiving(self) -> list[int]:
        """Return the studies that have pictures without an answer, in the order in which they began."""
        return [study for (study,) in self._ask("SELECT DISTINCT study FROM pictures WHERE version IS NULL ORDER BY 1")]

    def pictures(self, study: int) -> list[Kept]:
        """Return all pictures of a study that are still here."""
        return self._kept("SELECT uid, file FROM pictures WHERE study = ? AND file IS NOT NULL ORDER BY uid", study)

    def next_version(self, study: int) -> int:
        """Return which answer for a study comes next: 1 is the first."""
        ((version,),) = self._ask("SELECT version FROM studies WHERE number = ?", study)
        return int(version) + 1

    def answer(self, study: int, pictures: Sequence[Kept], results: Iterable[Kept]) -> list[Kept]:
        """Note an answer for pictures, whose results are on disk; return those that there were not before."""
        version = self.next_version(study)
        with self._together():
            self._ask("UPDATE studies SET version = ? WHERE number = ?", version, study)
            for one in pictures:
                self._ask("UPDATE pictures SET version = ? WHERE uid = ? AND version IS NULL", version, one.uid)
            for one in results:
                row = one.uid, study, self._named(one.file), version
                self._ask("INSERT OR IGNORE INTO results (uid, study, file, version) VALUES (?, ?, ?, ?)", *row)
        return self._kept("SELECT uid, file FROM results WHERE study = ? AND version = ?", study, version)

    def answered(self) -> list[int]:
        """Return the studies that have results to be sent, the oldest first."""
        return [study for (study,) in self._ask("SELECT DISTINCT study FROM results WHERE sent IS NULL ORDER BY 1")]

    def unsent(self, study: int) -> list[Kept]:
        """Return the results of a study that are to be sent, in the order in which they were made."""
        return self._kept("SELECT uid, file FROM results WHERE study = ? AND sent IS NULL ORDER BY rowid", study)

    def sent(self, result: str) -> None:
        """Note that the peer has taken a result."""
        self._ask("UPDATE results SET sent = ? WHERE uid = ?", time.time(), result)

    def forget(self, days: float) -> int:
        """Delete the files of studies whose last picture came, and last result was sent, so many days ago.

        Their UIDs stay, so that a picture that comes again is no new work.

        Returns:
            How many files.
        """
        done = (
            "study IN (SELECT number FROM studies WHERE heard < ?1) AND file IS NOT NULL "
            "AND study NOT IN (SELECT study FROM pictures WHERE version IS NULL) "
            "AND study NOT IN (SELECT study FROM results WHERE sent IS NULL OR sent >= ?1)"
        )
        before, count = time.time() - days * _DAY, 0
        for table in (PICTURES, RESULTS):
            for uid, file in self._kept(f"SELECT uid, file FROM {table} WHERE {done}", before):  # noqa: S608 - ours
                file.unlink(missing_ok=True)
                with suppress(OSError):  # others lie there
                    file.parent.rmdir()
                self._ask(f"UPDATE {table} SET file = NULL WHERE uid = ?", uid)  # noqa: S608 - likewise
                count += 1
        return count

    def sweep(self) -> None:
        """Delete files that no row names: a kill came between, and who sent them heard of no success."""
        both = "SELECT uid, file FROM {} WHERE file IS NOT NULL"
        known = {file for table in (PICTURES, RESULTS) for _, file in self._kept(both.format(table))}
        for place in (PICTURES, RESULTS):
            for path in (self.folder / place).rglob("*"):
                if path not in known and not path.is_dir():
                    path.unlink()

    def _named(self, file: Path) -> str:
        return os.fspath(file.relative_to(self.folder))

    def _kept(self, question: str, *values: object) -> list[Kept]:
        return [Kept(uid, self.folder / file) for uid, file in self._ask(question, *values)]

    def _ask(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with self._turn, closing(self._rows.execute(question, values)) as answers:
                return answers.fetchall()
        except sqlite3.Error as error:
            raise DataError(f"{self.folder}: its ledger.sqlite cannot be used ({error}).") from error

    @contextmanager
    def _together(self) -> Iterator[None]:
        """All rows or none, and no other thread's among them."""
        with self._turn, self._rows:
            self._ask("BEGIN IMMEDIATE")
            yield
