"""Recipes: how a member is trained. Strict and frozen; defaults live here and nowhere else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from dsdi_ray.settings_file import Section, read_mapping, validated

Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
_JITTER = ("brightness", "contrast", "saturation")


class PaperRow(Section):
    """What the paper says of this recipe (Table 2)."""

    model: str
    lrap: float
    note: str | None = None


class Backbone(Section):
    """Which network, and what it starts from."""

    name: str
    weights: str = "hub"  # hub (timm's, trained on ImageNet), none, or a file


class Augmentation(Section):
    """The paper's four augmentations; their strengths are not in the paper.

    Attributes:
        horizontal_flip: Probability.
        vertical_flip: Probability.
        rotation_degrees: Largest angle either way.
        brightness: Largest relative change.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest turn of the colour circle, in turns.
        strength: Factor of the angle and of the four colour changes, within what each may be.
    """

    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0.5
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    brightness: NotNegative = 0.2
    contrast: NotNegative = 0.2
    saturation: NotNegative = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    strength: NotNegative = 1.0

    @property
    def scaled(self) -> dict[str, float]:
        """The flips, and the other changes times the strength."""
        jitter = {name: self.strength * getattr(self, name) for name in _JITTER}
        return {
            "horizontal_flip": self.horizontal_flip,
            "vertical_flip": self.vertical_flip,
            "rotation_degrees": min(180.0, self.strength * self.rotation_degrees),
            "hue": min(0.5, self.strength * self.hue),
            **jitter,
        }


class Labels(Section):
    """How answers become labels when training starts.

    Attributes:
        encoding: ``paper`` (counts over the image's largest, section 2.1), ``per_category`` (over
            the largest of the class's category) or ``majority`` (of the workers asked).
        masked: Classes whose category nobody was asked about stay out of the loss.
    """

    encoding: Literal["paper", "per_category", "majority"] = "paper"
    masked: bool = False


class Lovasz(Section):
    """The symmetric Lovasz hinge that is added to the family's loss (model C12).

    Attributes:
        weight: Its factor, 0 for none.
        scaling: ``sqrt`` takes the square root of it.
    """

    weight: NotNegative = 0.0
    scaling: Literal["sqrt", "none"] = "sqrt"


# What each family takes besides the keys of all families, with the defaults.
LOSS_KEYS_BY_FAMILY: Mapping[str, Mapping[str, Any]] = {
    "bce": {},
    "focal": {"gamma": 2.0},
    "class_balanced": {
        "gamma": 2.0,
        "beta": 0.9999,
        "class_counts": "table1",
        "normalized": True,
    },
    "reduced": {"gamma": 2.0, "threshold": 0.5, "variant": "as_printed"},
}


class Loss(Section):
    """The loss of section 2.2 and what is done to it. None: the family does not take the key.

    Attributes:
        family: ``bce``, ``focal`` (Eq. 1-2), ``class_balanced`` (Eq. 3), ``reduced`` (Eq. 4-6).
        gamma: Focusing exponent.
        beta: Of Eq. 3.
        class_counts: n_y of Eq. 3: the taxonomy's (Table 1), or counted from the training labels.
        normalized: Whether the class weights of Eq. 3 are scaled to a mean of 1.
        threshold: th of Eq. 4-6.
        variant: Eq. 4-6 ``as_printed``, or the ``original`` reduced focal loss.
        none_weight: Factor of the none-classes' losses (models C08, C09).
        remove_outliers: Images of the largest losses that leave each mini-batch (model C11).
        lovasz: Added to the loss (model C12).
    """

    model_config = ConfigDict(validate_default=True)

    family: Literal["bce", "focal", "class_balanced", "reduced"] = "focal"
    gamma: float | None = None
    beta: Annotated[float, Field(ge=0, lt=1)] | None = None
    class_counts: Literal["table1", "counted"] | None = None
    normalized: bool | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    variant: Literal["as_printed", "original"] | None = None
    none_weight: NotNegative = 1.0
    remove_outliers: Annotated[int, Field(ge=0)] = 0
    lovasz: Lovasz = Lovasz()

    @field_validator(
        "gamma", "beta", "class_counts", "normalized", "threshold", "variant", mode="before"
    )
    @classmethod
    def _is_of_the_family(cls, value: Any, info: ValidationInfo) -> Any:
        key = str(info.field_name)
        if "family" not in info.data:  # it is wrong, which is said already
            return value
        family_keys = LOSS_KEYS_BY_FAMILY[info.data["family"]]
        if key in family_keys:
            return family_keys[key] if value is None else value
        if value is not None:
            takers = [family for family, keys in LOSS_KEYS_BY_FAMILY.items() if key in keys]
            raise ValueError(
                f"only family {takers[0]} takes it"
                if len(takers) == 1
                else f"only families {', '.join(takers)} take it"
            )
        return None

    @field_validator("gamma")
    @classmethod
    def _gamma_has_a_gradient(cls, gamma: float | None) -> float | None:
        if gamma is not None and gamma != 0 and gamma < 1:
            raise ValueError(
                "must be 0 or at least 1: in between the gradient at p = y is infinite"
            )
        return gamma

    @property
    def family_settings(self) -> dict[str, Any]:
        """The keys that the family takes, with their values."""
        return self.model_dump(include=set(LOSS_KEYS_BY_FAMILY[self.family]))


class Optimizer(Section):
    """SGD as in IBN-Net's repository, or AdamW."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] | None = None  # None: 0.1 * batch_size / 256
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 1e-4


class Schedule(Section):
    """How the learning rate goes.

    Attributes:
        name: ``cosine`` to 0, ``step`` (divided by 10 at 50 % and 75 % of the epochs) or ``cyclic``
            (cosine to 0 in each of several cycles, a snapshot at each end; Huang et al. 2017).
        warmup_epochs: Of a linear rise, at the very beginning.
        cycles: Of ``cyclic``, which alone takes it.
    """

    model_config = ConfigDict(validate_default=True)

    name: Literal["cosine", "step", "cyclic"] = "cosine"
    warmup_epochs: NotNegative = 1.0
    cycles: Annotated[int, Field(ge=1)] | None = None

    @field_validator("cycles", mode="before")
    @classmethod
    def _is_cyclic(cls, cycles: Any, info: ValidationInfo) -> Any:
        if info.data.get("name") == "cyclic":
            return 6 if cycles is None else cycles  # C10's: 300 epochs in cycles of 50
        if cycles is not None and "name" in info.data:
            raise ValueError("only schedule cyclic takes it")
        return None


class Recipe(Section):
    """How one member is trained.

    Attributes:
        split_seed: Which images are held back; None takes the prepared set's split.
        batch_size: Images of an optimiser step, over all workers and micro-batches.
        accumulate: Micro-batches that a worker's share of them is computed in, one after the other.
            Batch normalisation and the removal of outliers see a micro-batch.
        ema_decay: Of the moving average of the weights that is validated and becomes the member;
            None: no average.
        train_on: ``train`` holds the validation part back; ``all`` learns from its images too, so
            that there is nothing to validate on and the member is that of the last epoch.
        select: Whose weights become the member: those of the epoch with the best ``lrap``, ``map``
            or ``loss`` on the validation part, or the ``last``. None: lrap, but the last with
            schedule cyclic, whose last snapshot is the member, and with train_on all, which takes
            no other.
        mixed_precision: On GPUs that compute in bfloat16 (from Ampere on); others train in float32.
    """

    name: str
    paper: PaperRow | None = None
    backbone: Backbone
    input_px: Annotated[int, Field(ge=32, le=2048)] = 360
    labels: Labels = Labels()
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batch_size: Annotated[int, Field(ge=2)] = 28
    accumulate: Annotated[int, Field(ge=1, validate_default=True)] = 1
    epochs: Annotated[int, Field(ge=1, validate_default=True)] = 40
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    train_on: Literal["train", "all"] = "train"
    select: Literal["lrap", "map", "loss", "last"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    split_seed: int | None = None
    mixed_precision: bool = True

    @field_validator("accumulate")
    @classmethod
    def _micro_batches_hold_enough(cls, accumulate: int, info: ValidationInfo) -> int:
        if {"batch_size", "loss"} <= info.data.keys():
            num_images, rest = divmod(info.data["batch_size"], accumulate)
            if rest or num_images < 2:
                raise ValueError("must divide batch_size into parts of at least 2 images")
            num_removed = info.data["loss"].remove_outliers
            if num_removed >= num_images:
                raise ValueError(
                    f"must leave micro-batches of more images ({num_images}) than "
                    f"loss.remove_outliers removes ({num_removed})"
                )
        return accumulate

    @field_validator("epochs")
    @classmethod
    def _cycles_are_whole_epochs(cls, epochs: int, info: ValidationInfo) -> int:
        cycles = info.data["schedule"].cycles if "schedule" in info.data else None
        if cycles and epochs % cycles:
            raise ValueError(f"must be a multiple of schedule.cycles ({cycles})")
        return epochs

    @field_validator("select")
    @classmethod
    def _has_images_to_select_on(cls, select: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("train_on") == "all" and select not in {None, "last"}:
            raise ValueError("must be last with train_on all, which holds no image back")
        return select

    @property
    def learning_rate(self) -> float:
        """The peak learning rate; the default scales with the batch."""
        return self.optimizer.lr or 0.1 * self.batch_size / 256

    @property
    def selection(self) -> str:
        """What decides whose weights become the member, see ``select``."""
        takes_last = self.schedule.name == "cyclic" or self.train_on == "all"
        return self.select or ("last" if takes_last else "lrap")


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe and apply ``dotted.key=value`` overrides; values are read as YAML.

    Raises:
        ConfigError: Naming the file, the key, the rule and the value.
    """
    data = read_mapping(path, what="recipe", overrides=overrides)
    return parse_recipe(data, source=f"recipe {path}")


def parse_recipe(data: Mapping[str, Any], *, source: str) -> Recipe:
    """Make a recipe of a mapping.

    Raises:
        ConfigError: Naming the source, the key, the rule and the value.
    """
    return validated(Recipe, data, source=source)
