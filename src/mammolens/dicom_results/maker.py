"""Who makes results: a model by its name and fingerprint. The same results of the same pictures have the same UIDs."""

import uuid
from dataclasses import dataclass
from typing import Any

import highdicom
from pydicom.sr.codedict import codes

from mammolens import __version__
from mammolens.images.dicom.reader import OURS
from mammolens.model.bundle import MODEL, BundleRecord

RESEARCH = "For research use only"
_NAMESPACE = uuid.UUID("5c1a2a43-0f0b-5f2e-9c55-6d1f0c9a3f11")
_LONGEST = 64  # characters of a Long String (PS3.5 6.2)


@dataclass(frozen=True)
class Maker:
    """A model, as its results name it.

    Attributes:
        record: of the model.
        point: the operating point that decides.
    """

    record: BundleRecord
    point: str

    @property
    def name(self) -> str:
        """The model's name, in ASCII."""
        return self.record.name.encode("ascii", "replace").decode()[:_LONGEST]

    @property
    def fingerprint(self) -> str:
        """The network's SHA-256."""
        return self.record.files[MODEL]

    def uid(self, *said: object) -> highdicom.UID:
        """Return the UID of what is said by this model: the same for the same, below 2.25 (PS3.5 B.2)."""
        parts = (__version__, self.name, self.fingerprint, self.point, *said)
        return highdicom.UID.from_uuid(str(uuid.uuid5(_NAMESPACE, "\n".join(map(str, parts)))))

    def identified(self, kind: str, number: int, study: str, *said: object, alone: bool = False) -> dict[str, Any]:
        """Return what identifies a result, its series and its maker, as highdicom's classes take it.

        Args:
            kind: of result, such as ``"heat L CC"``: what is of one kind is one series of a study.
            number: of its series.
            study: in which it lies.
            said: what tells it from others of its kind and study.
            alone: whether each has a series of its own, all the same.
        """
        return {
            "series_instance_uid": self.uid("series", kind, study, *(said if alone else ())),
            "series_number": number,
            "series_description": f"mammolens {kind}. {RESEARCH}",
            "sop_instance_uid": self.uid(kind, study, *said),
            "instance_number": 1,
            "manufacturer": OURS,
            "manufacturer_model_name": self.name,
            "software_versions": __version__,
            "device_serial_number": self.fingerprint,
        }

    def algorithm(self) -> highdicom.AlgorithmIdentificationSequence:
        """Return the model as an algorithm."""
        return highdicom.AlgorithmIdentificationSequence(
            name=self.name,
            version=__version__,
            family=codes.DCM.ArtificialIntelligence,
            source=OURS,
            parameters={"model SHA-256": self.fingerprint},
        )
