"""The objective: what it is the sum of, and what must not change it."""

import numpy as np
import pytest
import torch

from dsdi_ray.config import Loss
from dsdi_ray.distributed.objectives import build_objective
from dsdi_ray.errors import ConfigError
from dsdi_ray.method.losses import focal_loss
from dsdi_ray.method.lovasz import symmetric_lovasz_hinge
from dsdi_ray.method.objective import FAMILIES, Objective
from dsdi_ray.taxonomy import load_taxonomy

B, C = 8, 5
COUNTS = (1, 10, 100, 1000, 10_000)
SETTINGS = {
    "bce": {},
    "focal": {"gamma": 2.0},
    "class_balanced": {"gamma": 2.0, "beta": 0.999, "class_counts": COUNTS},
    "reduced": {"gamma": 2.0, "threshold": 0.3, "variant": "original"},
}
OBJECTIVES = {
    f"{family}{' and lovasz' * lovasz}": Objective(
        family=family, settings=settings, lovasz_weight=0.5 * lovasz
    )
    for family, settings in SETTINGS.items()
    for lovasz in (False, True)
}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(B, C, generator=generator, dtype=torch.float64)
    return logits, torch.rand(B, C, generator=generator, dtype=torch.float64)


def value_and_gradient(objective, logits, targets, is_asked=None):
    logits = logits.clone().requires_grad_()
    loss = objective(logits, targets, is_asked)
    loss.backward()
    return loss.detach(), logits.grad


@every_objective
def test_it_is_the_mean_over_images_of_the_sum_over_classes(objective, batch):
    per_class = FAMILIES[objective.family](*batch, **objective.settings)
    wanted = per_class.sum(dim=-1) + objective.lovasz_weight * symmetric_lovasz_hinge(*batch)
    torch.testing.assert_close(objective.per_image(*batch), wanted)
    torch.testing.assert_close(objective(*batch), wanted.mean())


@every_objective
def test_an_images_loss_does_not_depend_on_the_others(objective, batch):
    logits, targets = batch
    alone = torch.cat([objective.per_image(logits[[i]], targets[[i]]) for i in range(B)])
    torch.testing.assert_close(objective.per_image(*batch), alone)


@every_objective
def test_unasked_classes_change_neither_loss_nor_gradient(objective, batch):
    logits, targets = batch
    is_asked = torch.rand(B, C, generator=torch.Generator().manual_seed(1)) < 0.6
    is_asked[0] = False  # an image that nobody was asked about
    loss, gradient = value_and_gradient(objective, logits, targets, is_asked)
    assert (gradient[~is_asked] == 0).all()
    assert (gradient[is_asked] != 0).any()
    assert objective.per_image(logits, targets, is_asked)[0] == 0
    others = torch.where(is_asked, logits, 1e4)
    other_loss, other_gradient = value_and_gradient(
        objective, others, torch.where(is_asked, targets, 0.3), is_asked
    )
    assert torch.equal(loss, other_loss)
    assert torch.equal(gradient, other_gradient)


@every_objective
def test_a_mask_of_all_classes_is_none(objective, batch):
    masked = objective(*batch, torch.ones(B, C, dtype=torch.bool))
    assert torch.equal(masked, objective(*batch))


def with_changes(objective, **changes):
    return Objective(**(vars(objective) | changes))


@every_objective
def test_none_classes_of_weight_0_are_left_out(objective, batch):
    weighted = with_changes(objective, none_indices=(1, 4), none_weight=0.0)
    is_feature = torch.tensor([True, False, True, True, False]).expand(B, C)
    torch.testing.assert_close(weighted(*batch), objective(*batch, is_feature))


@pytest.mark.parametrize("weight", [0.1, 0.01])
def test_the_losses_of_none_classes_are_multiplied_by_their_weight(weight, batch):
    objective = Objective(settings={"gamma": 2.0}, none_indices=(1, 4), none_weight=weight)
    per_class = focal_loss(*batch, gamma=2.0)
    wanted = per_class[:, [0, 2, 3]].sum(dim=-1) + weight * per_class[:, [1, 4]].sum(dim=-1)
    torch.testing.assert_close(objective.per_image(*batch), wanted)


@every_objective
@pytest.mark.parametrize("num_removed", [1, 3])
def test_removed_outliers_leave_the_mean_and_have_no_gradient(objective, num_removed, batch):
    logits, targets = batch
    losses = objective.per_image(*batch)
    order = torch.argsort(losses, descending=True)
    loss, gradient = value_and_gradient(
        with_changes(objective, remove_outliers=num_removed), logits, targets
    )
    torch.testing.assert_close(loss, losses[order[num_removed:]].mean())
    assert (gradient[order[:num_removed]] == 0).all()
    assert (gradient[order[num_removed:]].abs().sum(dim=-1) > 0).all()


def test_a_diverged_image_is_not_removed_as_an_outlier(batch):
    logits, targets = batch
    logits[3] = float("nan")
    objective = Objective(remove_outliers=1)
    assert torch.isnan(objective(logits, targets))
    assert torch.isnan(objective.per_image(logits, targets)).tolist() == [i == 3 for i in range(B)]


@every_objective
def test_gradients_are_finite_at_any_logit_under_autocast(objective):
    head = torch.nn.Linear(4, C)
    inputs = 1e4 * torch.randn(B, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.rand(B, C, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = with_changes(objective, remove_outliers=1)(head(inputs), targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(head.weight.grad).all()


@every_objective
def test_gradients_are_those_of_finite_differences(objective, batch):
    logits, targets = batch
    changed = with_changes(objective, none_indices=(4,), none_weight=0.1, remove_outliers=1)
    assert torch.autograd.gradcheck(lambda x: changed(x, targets), logits.requires_grad_())


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="family must be one of bce, focal, .*, got 'dice'"):
        Objective(family="dice")


LABELS = np.array([[1, 0.5, 0.4, 0.0], [0.5, 1, 0.0, 0.0]], np.float32)


def test_a_recipes_loss_becomes_an_objective():
    taxonomy = load_taxonomy("ladi_v1")
    loss = Loss(family="reduced", threshold=0.7, none_weight=0.1, remove_outliers=1)
    assert build_objective(loss, taxonomy, LABELS) == Objective(
        family="reduced",
        settings={"gamma": 2.0, "threshold": 0.7, "variant": "as_printed"},
        none_indices=(32, 33, 34, 35, 36),
        none_weight=0.1,
        remove_outliers=1,
    )
    lovasz = build_objective(Loss(lovasz={"weight": 2.0, "scaling": "none"}), taxonomy, LABELS)
    assert (lovasz.lovasz_weight, lovasz.lovasz_scaling) == (2.0, "none")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_recipes_runs(family):
    taxonomy = load_taxonomy("ladi_v1")
    objective = build_objective(Loss(family=family), taxonomy, LABELS)
    assert objective(torch.zeros(2, 37), torch.ones(2, 37)) > 0


def test_class_counts_are_table_1s_or_the_training_labels():
    taxonomy = load_taxonomy("ladi_v1")
    table1 = build_objective(Loss(family="class_balanced"), taxonomy, LABELS)
    assert table1.settings["class_counts"][32] == 98412
    counted = Loss(family="class_balanced", class_counts="counted")
    assert build_objective(counted, taxonomy, LABELS).settings["class_counts"] == (2, 2, 0, 0)


def test_counts_that_a_taxonomy_does_not_have_are_refused():
    with pytest.raises(ConfigError, match="ladi_v2a has no count.*set loss.class_counts=counted"):
        build_objective(Loss(family="class_balanced"), load_taxonomy("ladi_v2a"), LABELS)
