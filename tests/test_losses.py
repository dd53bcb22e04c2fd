"""Losses: what is minimized is smallest where it should be, and every part has a slope."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dermedge import UserError
from dermedge.data import Record
from train.losses import (
    class_weights,
    classifier_loss,
    distill,
    distillation_loss,
    endpoint_loss,
    segmenter_losses,
    soft_dice_loss,
    soft_jaccard_loss,
)
from train.recipe import ClassifierLoss, RecipeError, SegmenterLoss, load_recipe
from train.sources import priors_of, sampling_shares, source_weights

NONE = SegmenterLoss(bce=0, jaccard=0)
PLAIN = ClassifierLoss(label_smoothing=0, class_balance=0)


def square(left: int, size: int = 64, top: int = 20, side: int = 16) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., top : top + side, left : left + side] = 1
    return mask


def test_soft_jaccard_is_the_jaccard_index_for_sharp_masks():
    drawn = torch.zeros(1, 1, 32, 32)
    drawn[..., 8:24, 8:24] = 1
    made = torch.zeros(1, 1, 32, 32)
    made[..., 8:24, 16:32] = 1
    assert soft_jaccard_loss(drawn, drawn).item() == pytest.approx(0, abs=1e-6)
    assert soft_jaccard_loss(made, drawn).item() == pytest.approx(1 - 1 / 3, abs=2e-3)
    assert soft_jaccard_loss(torch.zeros_like(drawn), torch.zeros_like(drawn)).item() == 0


def test_class_weights_balance_by_the_asked_degree():
    counts = torch.tensor([80, 20])
    assert class_weights(counts, 0.0).tolist() == [1.0, 1.0]
    full = class_weights(counts, 1.0)
    assert (full * counts).tolist() == pytest.approx([50, 50])
    half = class_weights(counts, 0.5)
    assert (half[1] / half[0]).item() == pytest.approx(2)


def test_a_class_without_a_picture_does_not_spoil_the_weights():
    for counts in ([8, 0, 2], [0, 0, 0]):
        for balance in (0.0, 0.5, 1.0):
            weights = class_weights(torch.tensor(counts), balance)
            assert torch.isfinite(weights).all()
            assert not weights[torch.tensor(counts) == 0].any()
    present = class_weights(torch.tensor([8, 2]), 0.5)
    assert torch.equal(class_weights(torch.tensor([8, 0, 2]), 0.5)[[0, 2]], present)


def test_soft_dice_is_the_dice_coefficient_for_sharp_masks():
    drawn, made = square(8), square(16)
    assert soft_dice_loss(drawn, drawn).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice_loss(made, drawn).item() == pytest.approx(0.5, abs=2e-3)
    empty = torch.zeros_like(drawn)
    assert soft_dice_loss(empty, empty).item() == 0


def test_the_endpoint_loss_looks_at_the_outline():
    drawn = square(20)
    assert endpoint_loss(drawn, drawn).item() == pytest.approx(0, abs=1e-4)
    near, far = (endpoint_loss(square(20 + shift), drawn).item() for shift in (1, 4))
    blurred = endpoint_loss(F.avg_pool2d(drawn, 5, 1, 2), drawn).item()
    assert 0.05 < near < far
    assert blurred > 0.05
    # An error that is the same all over has no outline.
    assert endpoint_loss(drawn * 0.5 + 0.5, drawn * 0.5 + 0.2).item() == pytest.approx(0, abs=1e-3)
    # The same shift, drawn twice as large: the term does not fade with the size.
    large = endpoint_loss(square(41, 128, 40, 32), square(40, 128, 40, 32)).item()
    assert large == pytest.approx(near, rel=0.15)
    # Each picture counts by itself.
    both = endpoint_loss(torch.cat([drawn, square(24)]), torch.cat([drawn, drawn])).item()
    assert both == pytest.approx(far / 2, rel=1e-3)
    learnt = drawn.clone().requires_grad_()
    endpoint_loss(learnt, drawn).backward()
    assert torch.isfinite(learnt.grad).all()


@pytest.mark.parametrize("part", ["bce", "jaccard", "dice", "l1", "endpoint"])
def test_parts_come_with_their_weight_and_prefer_the_drawn_mask(part):
    drawn = square(20)
    image = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)

    def loss(weight: float, left: int) -> float:
        spec = replace(NONE, **{part: weight})
        found = segmenter_losses((square(left) - 0.5) * 12, drawn, image, None, spec)
        assert set(found) == {part}
        return found[part].item()

    assert loss(1.0, 20) < 0.3 * loss(1.0, 30)
    assert loss(3.0, 30) == pytest.approx(3 * loss(1.0, 30), rel=1e-5)
    assert segmenter_losses(drawn, drawn, image, None, NONE) == {}


def test_cross_entropy_is_that_of_torch_with_weights_and_smoothing():
    torch.manual_seed(0)
    logits, numbers = torch.randn(6, 3), torch.tensor([0, 1, 2, 1, 0, 1])
    targets = F.one_hot(numbers, 3).float()
    found = classifier_loss(logits, targets, torch.ones(3), replace(PLAIN, label_smoothing=0.1))
    expected = F.cross_entropy(logits, numbers, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([2.0, 1.0, 0.5])
    found = classifier_loss(logits, targets, weights, PLAIN)
    expected = F.cross_entropy(logits, numbers, weights, reduction="sum") / 6
    torch.testing.assert_close(found, expected)
    # Mixed pictures: the loss of each of their classes by its share.
    half = (F.one_hot(numbers, 3) + F.one_hot(numbers.flip(0), 3)).float() / 2
    parts = [F.cross_entropy(logits, n) for n in (numbers, numbers.flip(0))]
    torch.testing.assert_close(classifier_loss(logits, half, torch.ones(3), PLAIN), sum(parts) / 2)


def test_focal_loss_forgets_what_is_easy():
    targets = torch.tensor([[1.0, 0.0]])

    def loss(logit: float, focal: float) -> float:
        logits = torch.tensor([[logit, 0.0]])
        return classifier_loss(logits, targets, torch.ones(2), replace(PLAIN, focal=focal)).item()

    easy, hard = 4.0, -2.0
    assert loss(easy, 2) / loss(easy, 0) < 0.001
    assert loss(hard, 2) / loss(hard, 0) > 0.7
    # (1 - p)^g, p from the logits.
    p = torch.sigmoid(torch.tensor(hard)).item()
    assert loss(hard, 2) == pytest.approx((1 - p) ** 2 * loss(hard, 0), rel=1e-5)


@pytest.mark.parametrize("focal", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_slope_where_the_network_is_sure(focal):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    spec = replace(PLAIN, focal=focal)
    loss = classifier_loss(logits, torch.eye(2), torch.ones(2), spec)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("shape", [(4, 3), (2, 1, 8, 8)], ids=["classes", "mask"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_learner_that_answers_as_its_teacher_has_nothing_to_learn(shape, temperature):
    torch.manual_seed(0)
    answer, other = torch.randn(2, *shape) * 3
    distilled = distill([answer], temperature)
    learner = answer.clone().requires_grad_()
    loss = distillation_loss(learner, distilled, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert learner.grad.abs().max() < 1e-6
    assert distillation_loss(other, distilled, temperature).item() > 0.1


def test_several_teachers_are_averaged_by_probability():
    sure, other = torch.tensor([[8.0, 0.0]]), torch.tensor([[0.0, 8.0]])
    assert distill([sure, other], 1.0).tolist() == [pytest.approx([0.5, 0.5])]
    # Softer answers tell more of the classes that were not chosen.
    assert distill([sure], 4.0)[0, 1] > 100 * distill([sure], 1.0)[0, 1]


# --- sources -------------------------------------------------------------------------------------


def test_a_class_that_a_source_does_not_know_neither_gains_nor_loses():
    logits = torch.randn(2, 3, requires_grad=True)
    targets = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    prior = torch.tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5]])
    spec = replace(PLAIN, label_smoothing=0.1)
    weights = torch.ones(3)
    loss = classifier_loss(logits, targets, weights, spec, prior)
    loss.backward()
    assert logits.grad[0, 2] == 0
    assert (logits.grad[1] != 0).all()
    # The first picture is judged as by a network of the two classes that its source knows.
    two = classifier_loss(logits[:1, :2], targets[:1, :2], torch.ones(2), spec)
    three = classifier_loss(logits[1:], targets[1:], weights, spec)
    torch.testing.assert_close(loss, (two + three) / 2)
    focal = classifier_loss(logits, targets, weights, replace(spec, focal=2.0), prior)
    assert torch.isfinite(focal)


def test_balanced_softmax_takes_the_prior_out():
    torch.manual_seed(0)
    prior = torch.tensor([0.9, 0.1])
    labels = torch.eye(2)[(torch.rand(4000) < prior[1]).long()]
    for balanced, expected in ((0.0, prior), (1.0, torch.tensor([0.5, 0.5]))):
        # Pictures that say nothing: what is learnt is the prior alone.
        logits = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.05)
        for _ in range(300):
            each = logits.expand(len(labels), 2)
            spec = replace(PLAIN, balanced=balanced)
            loss = classifier_loss(each, labels, torch.ones(2), spec, prior.expand(4000, 2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(logits.softmax(0).detach(), expected, atol=0.03, rtol=0)


def test_priors_and_shares_by_source_and_class():
    records = [
        *(Record(f"a{n}", "", label="nv" if n < 6 else "mel", source="a") for n in range(8)),
        *(Record(f"b{n}", "", label="scc" if n < 2 else "mel", source="b") for n in range(4)),
    ]
    assert sampling_shares(records, 0.0, {"a": 1.0, "b": 1.0}) is None
    shares = np.array(sampling_shares(records, 1.0, {"a": 1.0, "b": 4.0}))
    assert shares.sum() == pytest.approx(1)
    assert shares[8:].sum() == pytest.approx(16 / 24)
    assert shares[:6].sum() == pytest.approx(shares[6:8].sum())
    priors = priors_of(records, ("mel", "nv", "scc"), None, (1.0, 1.0, 1.0))
    assert priors.partial
    assert priors.by_source["a"].tolist() == pytest.approx([2 / 8, 6 / 8, 0])
    assert priors.by_source["b"].tolist() == pytest.approx([0.5, 0, 0.5])
    assert priors.carried(0.0).tolist() == pytest.approx([4 / 12, 6 / 12, 2 / 12])
    assert priors.carried(1.0).tolist() == pytest.approx([1 / 3] * 3)
    half = np.sqrt([4, 6, 2])
    assert priors.carried(0.5).tolist() == pytest.approx((half / half.sum()).tolist())
    weighted = priors_of(records, ("mel", "nv", "scc"), shares, (1.0, 0.5, 1.0))
    assert weighted.by_source["a"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_weights_of_sources_are_checked():
    records = [Record("a", "", label="nv", source="a"), Record("b", "", label="mel", source="b")]
    assert source_weights("b=0.5", records) == {"a": 1.0, "b": 0.5}
    with pytest.raises(UserError, match="names c, which has no training picture here"):
        source_weights("c=2", records)
    with pytest.raises(UserError, match="all are 0"):
        source_weights("a=0,b=0", records)
    for wrong in ("a", "a=x", "=1", "a=-1"):
        with pytest.raises(RecipeError, match="source_weights must be NAME=WEIGHT"):
            load_recipe("classifier", [f"source_weights='{wrong}'"])
