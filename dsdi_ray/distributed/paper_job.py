"""What the job that makes the paper's tables anew is given, and what it makes up for a trial."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.demo_archive import find_archive, make_archive
from dsdi_ray.distributed.paper_models import MODELS, load_models, load_tiny_models
from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.storage.fused_runs import WeightedRun
from dsdi_ray.storage.runs import read_run
from dsdi_ray.storage.trec import Qrels, read_qrels
from dsdi_ray.submissions import Submission, load_submissions
from dsdi_ray.synthetic.archive import SyntheticArchive
from dsdi_ray.taxonomy import DEFAULT_TAXONOMY, Taxonomy, load_taxonomy
from dsdi_ray.vision.decode import DecodeSettings

PAPER_SETTINGS = DecodeSettings(fps=10.0)  # section 2.5


@dataclass(frozen=True, kw_only=True)
class SmokeSize:
    """How much is made up and learned.

    Attributes:
        num_images: Crowd-labelled images.
        num_clips: Video files.
        epochs: Of each tiny member.
    """

    num_images: int
    num_clips: int
    epochs: int


SMOKES = {
    "smoke": SmokeSize(num_images=400, num_clips=48, epochs=6),
    "tiny": SmokeSize(num_images=48, num_clips=4, epochs=1),
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the tables are made of.

    Attributes:
        answers: LADI's crowd answers.
        images: Where its images are.
        clips: The test shots, or a manifest of them.
        qrels: Judgements of these; without them there is no mAP.
        outside_run: Another system's run on these, for VAS_2 and NII_UIT_1.
    """

    answers: Path
    images: Sequence[str]
    clips: str
    qrels: Path | None = None
    outside_run: Path | None = None

    def read_qrels(self, taxonomy: Taxonomy) -> Qrels | None:
        """The judgements, None if there are none.

        Raises:
            DataError: If they cannot be read, or are of other features.
        """
        if self.qrels is None:
            return None
        qrels = read_qrels(self.qrels)
        if not {str(feature.feature_id) for feature in taxonomy.features} & qrels.keys():
            raise DataError(
                f"qrels {self.qrels}: no topic is the number of a feature of {taxonomy.name}; give "
                "the task's own numbers in a taxonomy file (--taxonomy)"
            )
        return qrels

    def read_outside(self, taxonomy: Taxonomy) -> WeightedRun | None:
        """Another system's run, None if there is none; its weight is that of each fusion.

        Raises:
            DataError: If it cannot be read.
        """
        if self.outside_run is None:
            return None
        run = read_run(self.outside_run, taxonomy=taxonomy)
        return WeightedRun(name=str(self.outside_run), run=run, weight=1.0)


@dataclass(frozen=True, kw_only=True)
class PaperJob:
    """What is to be done.

    Attributes:
        out: Folder of all that is made.
        jobs: Folder of ``recipes/`` and ``runs/``.
        inputs: None where all data is made up.
        scale: ``paper``, or a key of :data:`SMOKES`.
        models: Names of recipes; runs that need others are reported as not made.
        taxonomy_name: Built-in, or a file, such as one with the task's own numbers of the features.
        weights_dir: Folder of ImageNet weights, ``<backbone>.safetensors`` each; None: timm's hub.
        overrides: ``key=value`` of all recipes.
        normalisation: Of fusions with the outside run; None: what ``runs/`` says.
        use_gpu: None for GPUs where there are any.
    """

    out: Path
    jobs: Path
    inputs: Inputs | None = None
    scale: str = "paper"
    models: Sequence[str] = MODELS
    taxonomy_name: str = DEFAULT_TAXONOMY
    weights_dir: Path | None = None
    overrides: Sequence[str] = ()
    normalisation: str | None = None
    use_gpu: bool | None = None

    def __post_init__(self) -> None:
        if self.scale != "paper" and self.scale not in SMOKES:
            raise ConfigError(f"--scale must be paper or smoke, got {self.scale!r}")
        if (self.inputs is None) != (self.scale in SMOKES):
            raise ConfigError(
                "ANSWERS, --images and --clips must be given (or --scale smoke)"
                if self.inputs is None
                else f"--scale {self.scale} makes up all data; leave ANSWERS and the like out"
            )

    @property
    def smoke(self) -> SmokeSize | None:
        """How much is made up, None where nothing is."""
        return SMOKES.get(self.scale)

    def load_taxonomy(self) -> Taxonomy:
        """The classes."""
        return load_taxonomy(self.taxonomy_name)

    def load_submissions(self) -> list[Submission]:
        """The runs, each after those that it is fused of."""
        return load_submissions(self.jobs / "runs")

    def load_recipes(self) -> list[Recipe]:
        """The recipes, or tiny variants of them and a member that plays the outside system."""
        folder = self.jobs / "recipes"
        if self.smoke:
            return load_tiny_models(
                folder, self.models, overrides=self.overrides, epochs=self.smoke.epochs
            )
        return load_models(
            folder, self.models, overrides=self.overrides, weights_dir=self.weights_dir
        )

    def find_inputs(self) -> Inputs | None:
        """What is given, or the archive in its place if that is rendered already."""
        if self.inputs is not None:
            return self.inputs
        archive = find_archive(self.out / "archive", **self._archive_size)
        return None if archive is None else _inputs_of(archive)

    def make_inputs(self) -> Inputs:
        """What is given, or an archive that is rendered in its place."""
        if self.inputs is not None:
            return self.inputs
        return _inputs_of(make_archive(self.out / "archive", **self._archive_size))

    @property
    def _archive_size(self) -> dict[str, int]:
        assert self.smoke is not None  # see __post_init__
        return {
            "num_images": self.smoke.num_images,
            "num_clips": self.smoke.num_clips,
            "seed": 0,
        }


def _inputs_of(archive: SyntheticArchive) -> Inputs:
    return Inputs(
        answers=archive.answers_tsv,
        images=[str(archive.images_dir)],
        clips=str(archive.clips_dir),
        qrels=archive.qrels,
    )
