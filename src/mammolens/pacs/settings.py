"""How `listen` is set up: a TOML file, whose paths are relative to it."""

import socket
import ssl
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from mammolens.errors import DataError
from mammolens.files import why_not_opened

_HANDSHAKE = 5
"""Seconds."""


def _beside(path: Path, info: ValidationInfo) -> Path:
    """Take a path from the folder of the settings."""
    return Path(info.context or "", path)


Place = Annotated[Path, AfterValidator(_beside)]
Title = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$")]
"""A title of an application entity: 16 characters of ASCII, no backslash (PS3.5 6.2)."""

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(_Table):
    """TLS by which both sides show certificates (PS3.15 B), in PEM.

    Attributes:
        certificate: ours.
        key: of it.
        authorities: certificates by which the other side's is judged.
    """

    certificate: Place
    key: Place
    authorities: Place

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return what a connection is made with, as its server or its client.

        Raises:
            DataError: a file is not there, or is no certificate or key.
        """
        made = _Prompt(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        made.verify_mode = ssl.CERT_REQUIRED
        try:
            made.load_verify_locations(self.authorities)
            made.load_cert_chain(self.certificate, self.key, password="")  # nobody is there to be asked for one
        except OSError as error:
            raise DataError(
                f"{self.certificate}, {self.key}, {self.authorities}: no certificate with its key, and authorities, in "
                f"PEM ({error.strerror or error})."
            ) from error
        return made


class _Prompt(ssl.SSLContext):
    """Ends a caller's handshake that takes long: pynetdicom accepts no other meanwhile."""

    def wrap_socket(self, sock: socket.socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401
        before = sock.gettimeout()
        sock.settimeout(_HANDSHAKE)
        made = super().wrap_socket(sock, *arguments, **options)
        made.settimeout(before)
        return made


class Receive(_Table):
    """Where pictures come in.

    Attributes:
        title: of this application entity, which callers must name; results are sent by it, too.
        address: where it listens; others reach any but 127.0.0.1.
        port: likewise.
        callers: titles of those that may send; none: whoever reaches it.
        for_processing: take raw pictures, too.
        tls: without it, nothing is encrypted.
    """

    title: Title = "MAMMOLENS"
    address: str = "127.0.0.1"
    port: Port = 11112
    callers: tuple[Title, ...] = ()
    for_processing: bool = True
    tls: Tls | None = None


class Store(_Table):
    """Where results go by C-STORE.

    Attributes:
        title: of the peer.
        host: its name or address; with TLS, that of its certificate.
        port: its port.
        tls: without it, nothing is encrypted.
    """

    title: Title
    host: str
    port: Port
    tls: Tls | None = None


class Stow(_Table):
    """Where results go by STOW-RS.

    Attributes:
        url: of the DICOMweb service, such as ``https://pacs/dicom-web``.
        authorization_file: whose first line is the header ``Authorization``, such as ``Bearer …``.
        tls: certificates for https; without it, those of the system judge the peer.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^@]+$")]
    authorization_file: Place | None = None
    tls: Tls | None = None


class Settings(_Table):
    """Of `listen`.

    Attributes:
        folder: for pictures and results that wait, and the ledger; nobody but its owner may look into it.
        model: as `--model`.
        point: the operating point; none: the model's own.
        settle: seconds without a new picture after which a study is answered.
        timeout: seconds that the peer has for each answer.
        longest_retry: seconds between two tries to send, at most.
        keep: days that pictures and results stay in `folder` after all was sent.
        receive: where pictures come in.
        store: where results go, or
        stow: where they go: one of the two.
    """

    folder: Place
    model: str | None = None
    point: str | None = None
    settle: Seconds = 30
    timeout: Seconds = 30
    longest_retry: Seconds = 300
    keep: Annotated[float, Field(ge=0)] = 7
    receive: Receive = Receive()
    store: Store | None = None
    stow: Stow | None = None

    @model_validator(mode="after")
    def _one_way_out(self) -> Self:
        if (self.store is None) == (self.stow is None):
            raise ValueError("results go to one peer. Describe it in a table [store], or in [stow]")
        return self


def read_settings(path: Path) -> Settings:
    """Return what a file says.

    Raises:
        DataError: it cannot be read, has an unknown key, or a value that will not do.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return Settings.model_validate(told, context=path.absolute().parent)
    except OSError as error:
        raise DataError(f"{path}: {why_not_opened(path, error, 'a TOML file of settings')}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {key}: {first['msg']}." if key else f"{path}: {first['msg']}.") from error
    except (ValueError, RecursionError) as error:  # of TOML, or of UTF-8
        raise DataError(f"{path}: not valid TOML ({error}).") from error
