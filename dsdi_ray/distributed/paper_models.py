"""The models of the paper's Table 2: their recipes, made ready for a job, and what became of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dsdi_ray.config import Recipe, load_recipe
from dsdi_ray.distributed.train_members import TrainOutcome
from dsdi_ray.distributed.train_progress import read_history
from dsdi_ray.errors import ConfigError
from dsdi_ray.report.evaluation import Evaluation
from dsdi_ray.report.paper_page import ModelResult
from dsdi_ray.tiny_recipes import tiny_variant

MODELS = ("a01", "b02", "c03", "c04", "c05", "c06", "c07", "c08", "c09", "c10", "c11", "c12", "d13")
OUTSIDE = "outside"


def load_models(
    folder: Path,
    names: Sequence[str] = MODELS,
    *,
    overrides: Sequence[str] = (),
    weights_dir: Path | None = None,
) -> list[Recipe]:
    """Load recipes of models.

    Args:
        folder: Of the recipes.
        names: Of :data:`MODELS`.
        overrides: ``key=value`` of all of them.
        weights_dir: Folder of ImageNet weights, ``<backbone>.safetensors`` each; None: as the
            recipes say.

    Raises:
        ConfigError: If there is no such model, a recipe is wrong, or weights are missing.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise ConfigError(f"a model must be one of {', '.join(MODELS)}, got {unknown[0]!r}")
    recipes = [load_recipe(folder / f"{name}.yaml", overrides) for name in names]
    if weights_dir is None:
        return recipes
    return [_start_from(weights_dir.resolve(), recipe) for recipe in recipes]


def load_tiny_models(
    folder: Path, names: Sequence[str] = MODELS, *, overrides: Sequence[str] = (), epochs: int
) -> list[Recipe]:
    """Tiny variants of models, and of a member that takes the place of another system's.

    That one is the first model's variant, but of another seed and split.
    """
    tiny = [
        tiny_variant(recipe, epochs=epochs)
        for recipe in load_models(folder, names, overrides=overrides)
    ]
    (first,) = load_models(folder, MODELS[:1], overrides=overrides)
    other = {"name": OUTSIDE, "paper": None, "seed": 100, "split_seed": 100}
    return [*tiny, tiny_variant(first, epochs=epochs).model_copy(update=other)]


def model_result(
    recipe: Recipe, outcome: TrainOutcome, *, members: Path, evaluation: Evaluation | None
) -> ModelResult:
    """A model's row of Table 2.

    Args:
        recipe: How it was trained.
        outcome: What became of it.
        members: Folder of the members.
        evaluation: Of its own run, None where there is none.
    """
    summary = outcome.summary
    history = read_history(members / recipe.name / "history.jsonl") if summary else []
    return ModelResult(
        model=recipe.name.upper(),
        architecture=recipe.paper.model if recipe.paper else "",
        backbone=recipe.backbone.name,
        loss=_loss_text(recipe),
        technique=_technique_text(recipe),
        input_px=recipe.input_px,
        epochs=recipe.epochs,
        paper_lrap=recipe.paper.lrap if recipe.paper else None,
        lrap=summary.lrap if summary else None,
        validation_map=summary.map if summary else None,
        clip_map=evaluation.map if evaluation else None,
        train_seconds=sum(row["seconds"] for row in history) if summary else None,
        problem=None if summary else reason(outcome.error),
    )


def untrained_models(
    outcomes: Sequence[TrainOutcome], names: Sequence[str] = MODELS
) -> Mapping[str, str]:
    """Why there is no member, by model: those that failed, and those that were not asked for."""
    left_out = {name: "was left out" for name in MODELS if name not in names}
    failed = {o.recipe: reason(o.error) for o in outcomes if o.error is not None}
    return left_out | failed


def reason(error: Exception | None) -> str:
    """What an error says, in a line."""
    # A Ray task's error speaks with its whole traceback, its cause does not.
    return " ".join(str(getattr(error, "cause", error)).split())[:300]


def _start_from(weights_dir: Path, recipe: Recipe) -> Recipe:
    file = weights_dir / f"{recipe.backbone.name}.safetensors"
    if not file.is_file():
        raise ConfigError(f"recipe {recipe.name}: there are no weights {file} (--weights-dir)")
    backbone = recipe.backbone.model_copy(update={"weights": str(file)})
    return recipe.model_copy(update={"backbone": backbone})


def _loss_text(recipe: Recipe) -> str:
    """The loss's family and the parameters that the paper's table lists."""
    loss = recipe.loss
    parameters = {"gamma": loss.gamma, "beta": loss.beta, "th": loss.threshold}
    listed = [f"{name} {value:g}" for name, value in parameters.items() if value is not None]
    return ", ".join([loss.family.replace("_", "-"), *listed])


def _technique_text(recipe: Recipe) -> str:
    """What the recipe does besides."""
    loss = recipe.loss
    words = []
    if loss.none_weight != 1:
        words.append(f"none-classes x {loss.none_weight:g}")
    if loss.remove_outliers:
        words.append("outlier removal")
    if loss.lovasz.weight:
        words.append(f"symmetric Lovasz ({loss.lovasz.scaling})")
    if recipe.schedule.cycles:
        words.append(f"last of {recipe.schedule.cycles} snapshots")
    return ", ".join(words) or "-"
