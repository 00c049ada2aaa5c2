"""`listen`: pictures in, answers, results out, until somebody ends it. Each study once, whatever is killed meanwhile.

One thread answers and sends, by what the ledger says; those of the network note what comes.
"""

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from shutil import rmtree
from threading import Event

from mammolens.dicom_results.results import Results
from mammolens.errors import reason
from mammolens.files import synced, system_error
from mammolens.images.archives import pictures_in
from mammolens.pacs.ledger import RESULTS, Kept, Ledger
from mammolens.pacs.receiver import receiving
from mammolens.pacs.sender import Peer, peer_of
from mammolens.pacs.settings import Settings
from mammolens.serving.predictor import Predictor

_LOOK = 0.2
"""Seconds between two looks at the ledger, where nothing is to be done."""

_FORGET = 600
"""Seconds between two looks for files that are old."""

Tell = Callable[[str], None]


def listen(settings: Settings, predictor: Predictor, end: Event, tell: Tell) -> None:
    """Listen until `end` is set: what was begun is then finished, and all else waits on disk.

    Args:
        settings: where pictures come in and results go.
        predictor: that answers.
        end: set by another thread, or by a signal.
        tell: takes a line of what happens. It names studies by their number in the ledger, and nobody.

    Raises:
        DataError: the folder, the address or a certificate will not do.
    """
    # A library's remark on a file may quote what is in it, and the screen is a log.
    warnings.simplefilter("ignore")
    peer, ledger = peer_of(settings), Ledger(settings.folder)
    try:
        ledger.sweep()
        work = _Work(settings, predictor, ledger, peer, tell)
        with receiving(settings.receive, settings.timeout, ledger, work.hear):
            tell(f"listening at {settings.receive.address}:{settings.receive.port} as {settings.receive.title}")
            while not end.is_set():
                if not work.do_one():
                    end.wait(_LOOK)
    finally:
        ledger.close()


@dataclass
class _Retry:
    """When something that failed is tried again: after 1, 2, 4 seconds and so on."""

    delay: float = 0
    at: float = 0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.at

    def failed(self, longest: float) -> str:
        self.delay = min(longest, 2 * self.delay or 1)
        self.at = time.monotonic() + self.delay
        return f"tried again in {self.delay:g} s"


@dataclass
class _Work:
    """What is to be done, of what the ledger holds."""

    settings: Settings
    predictor: Predictor
    ledger: Ledger
    peer: Peer
    tell: Tell
    _heard: dict[int, float] = field(default_factory=dict)
    _answering: dict[int, _Retry] = field(default_factory=lambda: defaultdict(_Retry))
    _sending: dict[int, _Retry] = field(default_factory=lambda: defaultdict(_Retry))
    _peer: _Retry = field(default_factory=_Retry)
    _stumbled: int = 0  # the study at which the peer failed last: those after it go first, should it be its fault
    _forgotten: float = field(default_factory=lambda: time.monotonic() - _FORGET)

    def hear(self, study: int) -> None:
        """Note that a study has a new picture."""
        self._heard[study] = time.monotonic()

    def do_one(self) -> bool:
        """Answer a study that has settled, and send results of one; tell whether there was anything."""
        answered = next((study for study in self.ledger.receiving() if self._settled(study)), None)
        if answered is not None:
            self._try_to_answer(answered)
        turn = sorted(self.ledger.answered(), key=lambda study: study <= self._stumbled)
        sent = any(self._peer.due and self._send(study) for study in turn)
        self._forget()
        return answered is not None or sent

    def _settled(self, study: int) -> bool:
        """Tell whether a study is quiet; one that was here before this began has been heard of just then."""
        quiet = time.monotonic() - self._heard.setdefault(study, time.monotonic()) >= self.settings.settle
        return quiet and self._answering[study].due

    def _try_to_answer(self, study: int) -> None:
        try:
            self._answer(study)
            self._answering.pop(study, None)
            self._heard.pop(study, None)
        except Exception as error:  # noqa: BLE001 - one study must not stop the others, nor be lost
            again = self._answering[study].failed(self.settings.longest_retry)
            self.tell(f"study {study}: cannot be answered ({_cause(error)}), {again}")

    def _answer(self, study: int) -> None:
        began, pictures = time.monotonic(), self.ledger.pictures(study)
        version = self.ledger.next_version(study)
        folder = self.ledger.folder / RESULTS / f"{study}-{version}"
        rmtree(folder, ignore_errors=True)
        results = Results.begin(folder, self.predictor)
        answers = self.predictor.answers(pictures_in([one.file for one in pictures]), maps=False, also=results.add)
        failed = sum(one.error is not None for one in answers)
        results.finish()
        made = [Kept(path.stem.rpartition("-")[2], path) for path in results.written]
        for path in results.written:
            synced(path)
        if made:
            synced(folder)
        new = self.ledger.answer(study, pictures, made)
        for one in {*made} - {*new}:  # of pictures that were answered before
            one.file.unlink()
        self.tell(
            f"study {study}: answer {version}, of {len(pictures)} pictures, {failed} of them unread; {len(new)} new "
            f"results, {len(results.left_out)} could not be made; {time.monotonic() - began:.1f} s"
        )

    def _send(self, study: int) -> bool:
        """Send what is due of a study; tell whether the peer took anything."""
        if not self._sending[study].due:
            return False
        results, why = self.ledger.unsent(study), ""
        try:
            why = self._passed_on(results)
            self._peer = _Retry()
        except ConnectionError as error:
            self._stumbled = study
            self.tell(f"peer: {reason(error)}, {self._peer.failed(self.settings.longest_retry)}")
        except Exception as error:  # noqa: BLE001 - as of answers
            why = f"results cannot be sent ({_cause(error)})"
        if why:
            self.tell(f"study {study}: {why}, {self._sending[study].failed(self.settings.longest_retry)}")
        taken = len(results) - len(self.ledger.unsent(study))
        if taken == len(results):
            self._sending.pop(study, None)
        if taken:
            self.tell(f"study {study}: {taken} results sent")
        return taken > 0

    def _passed_on(self, results: Sequence[Kept]) -> str:
        """Send results, and note what was taken; return why something was refused, if anything."""
        why = ""
        for result, refusal in self.peer.send(results):
            if refusal is None:
                self.ledger.sent(result.uid)
            else:
                why = f"the peer refuses results ({refusal})"
        return why

    def _forget(self) -> None:
        if time.monotonic() - self._forgotten < _FORGET:
            return
        self._forgotten = time.monotonic()
        if count := self.ledger.forget(self.settings.keep):
            self.tell(f"{count} files deleted that were sent {self.settings.keep:g} days ago or more")


def _cause(error: Exception) -> str:
    """Say what went wrong by the system's words or the error's kind: names of files have UIDs."""
    system = system_error(error)
    return (system is not None and system.strerror) or type(error).__name__
