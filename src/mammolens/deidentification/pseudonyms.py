"""New names for old, by a key: the same key gives the same names, and without it nobody finds the way back."""

import hmac
import os
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path

from mammolens.errors import DataError
from mammolens.files import why_not_opened

_BYTES = 32


@dataclass(frozen=True)
class Pseudonyms:
    """Names made of names by HMAC-SHA-256 (RFC 2104), 64 bits or more of it: no two patients share one.

    Attributes:
        key: 32 bytes that only the owner of the originals has.
    """

    key: bytes

    def patient(self, patient_id: str) -> str:
        """Return who a patient is from now on."""
        return f"P{self.name('patient', patient_id)}"

    def uid(self, old: str) -> str:
        """Return a unique identifier that stands for an old one (PS3.5 B.2: derived from a UUID)."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', old)[:16], version=4).int}"

    def name(self, kind: str, old: str) -> str:
        """Return 16 hexadecimal digits that stand for a name, which differ between kinds of names."""
        return self._digest(kind, old)[:8].hex()

    def _digest(self, kind: str, old: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\0{old}".encode("utf-8", "surrogateescape"), "sha256")


def forgotten() -> Pseudonyms:
    """Return pseudonyms by a key that nobody will know: another run gives other names."""
    return Pseudonyms(secrets.token_bytes(_BYTES))


def kept(path: Path) -> Pseudonyms:
    """Return pseudonyms by the key in a file, which is made, for its owner's eyes alone, where there is none.

    Raises:
        DataError: the file cannot be read or made, holds no key, or others than its owner may read it.
    """
    try:
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{secrets.token_hex(_BYTES)}\n")
        except FileExistsError:
            pass
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise DataError(f"{path}: others may read this key. Keep it to yourself: chmod 600 {path}")
        key = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise DataError(f"{path}: {why_not_opened(path, error, 'a key')}") from error
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise DataError(f"{path}: holds no key ({2 * _BYTES} hexadecimal digits). Name another file, or a new one.")
    return Pseudonyms(key)
