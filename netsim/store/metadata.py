"""Typed metadata of commit records, one class per stage: what a unit was made from, where, and what came of it.

A record keeps them as JSON under "facts"; only the fields that were set are written.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from netsim.errors import StoreError
from netsim.store.records import Record
from netsim.store.run import Run


class Metadata(BaseModel):
    """Metadata that any stage may record."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    weights: dict[str, str] = {}  # network -> hash of the weights that were used
    made_from: str | None = None  # hash over the contents of the upstream units
    notes: list[str] = []  # what a reader of the results must know, in sentences

    @classmethod
    def of(cls, record: Record) -> Self:
        """Parse a record's metadata.

        Raises
        ------
        StoreError
            If the record lacks a field of this class.
        """
        try:
            return cls.model_validate(record.facts)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
            raise StoreError(
                f"the commit record of {record.stage} {record.name} shard {record.shard} lacks {fields}; "
                "use the netsim that made it, or another store"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Convert to what a record keeps: the fields that were set."""
        return self.model_dump(mode="json", exclude_unset=True)


class ComputedMetadata(Metadata):
    """Metadata of stages that evaluate networks: what the last bits of a result may depend on."""

    device: str
    threads: int


class UnreadableImage(BaseModel):
    """An image file that could not be decoded."""

    index: int
    name: str
    why: str


class CheckedSplit(BaseModel):
    """One split of the images, as the check found it."""

    listed: int
    listed_hash: str
    unreadable: list[UnreadableImage]
    images_hash: str  # of the readable images
    doubles: list[tuple[int, int]] = []  # index of an image -> index of the first image with the same pixels
    passed_over: list[str] = []  # files that were not listed, in sentences


class CheckMetadata(Metadata, CheckedSplit):
    """Metadata of `check`: what it found in one split of the images."""


class TrainMetadata(ComputedMetadata):
    """Metadata of `train`: a network as the run goes by it. `accuracy` is None for other classes than the images'."""

    reference: str
    identity: str
    trained_here: bool
    accuracy: float | None
    parameters: int
    width: int
    weights_hash: str
    images_hash: str
    input_shape: tuple[int, int, int]
    preprocessing: dict[str, Any] = {}
    origin: dict[str, Any] = {}
    classes: int
    plan: dict[str, Any]  # fields of netsim.inversion.precision.Precision
    training_loss: float | None = None
    robust: dict[str, Any] | None = None  # fields of netsim.networks.adversarial.RobustAccuracy


class DrawMetadata(Metadata):
    """Metadata of `draw`."""

    source: str
    images_hash: str
    classes: list[str]
    seed_names: list[str] | None = None  # files that the images of the shard were read from, where they are files
    target_names: list[str] | None = None


class InvertMetadata(ComputedMetadata):
    """Metadata of `invert`. `median_loss` is None if it is not finite; iterations and FLOPs are sums over images."""

    median_loss: float | None
    precision: str
    batch_size: int
    iterations: int
    flops: int
    peak_flops: float


class ControlMetadata(Metadata):
    """Metadata of `control`."""

    seed_classes: int  # that occur among the seeds


class MeasureMetadata(Metadata):
    """Metadata of `measure`, copied from the measure."""

    title: str
    source: str
    streams: bool
    symmetric: bool = True
    two_sets: bool = False


class ReportMetadata(Metadata):
    """Metadata of `report`: the units of `aggregate` whose sums it shows. Others may have the same sums later."""

    sums: list[str]


def train_metadata(run: Run, name: str) -> TrainMetadata:
    """Read what the run recorded of a network."""
    return TrainMetadata.of(run.record("train", name))
