"""Losses that look at groups of people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dermedge import UserError
from dermedge.data.groups import NOT_STATED, SCALES, members
from dermedge.data.records import Record
from dermedge.image.preprocess import Preprocessing
from train import ablation, group_ablation
from train.groups import GroupWeights, group_row
from train.learner import Learner
from train.losses import classifier_loss
from train.recipe import ClassifierLoss, RecipeError, load_recipe


def people(*tones: int | None) -> list[Record]:
    return [Record(str(n), Path("x"), skin_tone=tone, label="nv") for n, tone in enumerate(tones)]


@pytest.fixture
def two_pictures(tmp_path) -> list[Record]:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    return [Record(str(number), tmp_path / f"{number}.png") for number in (1, 2)]


def rows(records) -> torch.Tensor:
    return torch.from_numpy(np.array([group_row(record, "skin_tone") for record in records]))


def alone(sums: torch.Tensor) -> torch.Tensor:
    return sums


def test_the_ablations_features_are_of_these_pictures_and_this_bundle(
    tmp_path, monkeypatch, two_pictures
):
    made = []
    spec = Preprocessing(size=32)

    def origin(bundle):
        explain = lambda images: {"features": images.float().mean(dim=(1, 2))}  # noqa: E731
        network = lambda _: (SimpleNamespace(explain=explain), ())  # noqa: E731
        made.append(bundle)
        return SimpleNamespace(title=bundle, network=network, preprocessing=lambda _: spec)

    read = lambda record, *_: (np.full((2, 2, 3), record.image.read_bytes()[-1], np.uint8), None)  # noqa: E731
    monkeypatch.setattr(group_ablation, "origin", origin)
    monkeypatch.setattr(group_ablation, "read_prepared", read)
    cache = tmp_path / "features"  # numpy put .npz behind it, and nothing was found again
    first = group_ablation.features_of(two_pictures, "a", cache)
    assert first.tolist() == [[1, 1, 1], [2, 2, 2]]
    monkeypatch.setattr(group_ablation, "read_prepared", None)
    assert group_ablation.features_of(two_pictures[1:], "a", cache).tolist() == [[2, 2, 2]]
    with pytest.raises(UserError, match="no features of b"):
        group_ablation.features_of(two_pictures, "b", cache)
    kept = cache.read_bytes()
    cache.write_bytes(b"")
    with pytest.raises(UserError, match="no features of a"):
        group_ablation.features_of(two_pictures, "a", cache)
    cache.write_bytes(kept)
    # Another picture under the same id.
    two_pictures[0].image.write_bytes(b"\x07")
    monkeypatch.setattr(group_ablation, "read_prepared", read)
    again = group_ablation.features_of(two_pictures, "a", cache)
    assert again[0].tolist() == [7, 7, 7]
    # A classifier of crops sees them where its own bundle's segmenter finds the lesion.
    spec = Preprocessing(size=32, crop=2.0)
    square = np.full((2, 2, 3), 9, np.uint8)
    crops = lambda path: SimpleNamespace(read=lambda *_: square if path == "c" else None)  # noqa: E731
    monkeypatch.setattr(group_ablation, "Cropper", crops)
    cropped = group_ablation.features_of(two_pictures, "c", tmp_path / "cropped")
    assert cropped.tolist() == [[9, 9, 9], [9, 9, 9]]


def test_a_table_of_what_is_left_out_without_lesions_is_refused(tmp_path):
    table = tmp_path / "out.csv"
    table.write_text("id\np0\n")
    words = ["--bundle", "dermoscopy", "--data", "csv=x", "--features", str(tmp_path / "f.npz")]
    with pytest.raises(UserError, match="no column 'lesion_id'"):
        group_ablation.main([*words, "--leave-out", str(table), "--out", str(tmp_path / "o.json")])


def test_the_ablation_needs_two_groups_to_compare():
    with pytest.raises(UserError, match="fewer than two groups of skin_tone"):
        group_ablation.figures(people(3, 3, 1), {"without": np.zeros(3)}, "skin_tone", 10)


def test_the_ablations_draw_patients_whole():
    """One patient alone gives no interval, however many lesions."""
    records = [replace(r, patient_id="P", lesion_id=f"L{r.id}") for r in people(*[None] * 8)]
    found = ablation.resampled(records, 10)(lambda weights: weights[0] / weights.sum())
    assert found["value"] == 1 / 8
    assert np.isnan([found["low"], found["high"]]).all()


def test_two_scales_are_two_scales():
    tone = Record("a", Path("x"), skin_tone=3, skin_type=5, age=40, sex="male")
    found = {name: scale.group_of(tone) for name, scale in SCALES.items()}
    assert found == {"skin_type": "V-VI", "skin_tone": "3", "age": "40-59", "sex": "male"}
    assert members(people(None, None), SCALES["skin_tone"]) == {}
    assert members(people(0, None, 5, 0), SCALES["skin_tone"]) == {
        "5": [2],
        "0": [0, 3],
        NOT_STATED: [1],
    }


def test_reweighting_makes_the_groups_count_alike_and_leaves_the_unknown_alone():
    records = people(3, 3, 3, 1, None)
    weigh = GroupWeights(ClassifierLoss(group="skin_tone", group_balance=1.0), records)
    weights = weigh(torch.rand(5), rows(records), alone)
    assert weights.tolist() == pytest.approx([2 / 3] * 3 + [2, 1])
    assert weigh.of_records(records).tolist() == pytest.approx(weights.tolist())


def test_group_dro_moves_towards_the_group_with_the_largest_loss():
    records = people(3, 3, 3, 1, None)
    weigh = GroupWeights(ClassifierLoss(group="skin_tone", group_dro=0.5), records)
    each = torch.tensor([0.1, 0.2, 0.3, 1.2, 9.0])
    weights = weigh(each, rows(records), alone)
    # Algorithm 1 by hand: the unknown picture moves nothing, and weighs 1.
    q = 0.5 * np.exp(0.5 * np.array([0.2, 1.2]))
    q /= q.sum()
    expected = [*([4 * q[0] / 3] * 3), 4 * q[1], 1.0]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
    for _ in range(40):
        weigh(each, rows(records), alone)
    assert weigh.q[SCALES["skin_tone"].groups.index("1")] > 0.99
    # A batch without the hard group is a plain mean.
    # Also where the groups' losses have been far apart for long.
    each[3] = 60.0
    for _ in range(40):
        weigh(each, rows(records), alone)
    calm = weigh(each[:3], rows(records[:3]), alone)
    assert calm.tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("options", [{"group_balance": 1.0}, {"group_dro": 0.5}])
def test_groups_count_as_often_as_they_are_drawn(options):
    """A source that is drawn thrice as often made its group count thrice."""
    records, drawn = people(3, 3, 1, 1), np.array([1.5, 1.5, 0.5, 0.5])
    weigh = GroupWeights(ClassifierLoss(group="skin_tone", **options), records, drawn)
    sums = (drawn * weigh.of_records(records)).reshape(2, 2).sum(axis=1)
    assert sums.tolist() == pytest.approx([2, 2])


def test_pictures_without_a_diagnosis_are_no_proof_that_a_group_is_served_well():
    known = people(3, 3, 1, 1)
    bare = [replace(record, id=f"x{record.id}", label=None) for record in people(1, 1, 1, 1)]
    loss = ClassifierLoss(group="skin_tone", group_balance=1.0, group_dro=0.5)
    classes = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 0.0]] * 4)
    one = SimpleNamespace(device="cpu", reduce=lambda sums, _: sums)
    each = torch.tensor([0.5] * 4 + [0.0] * 4)
    found = []
    for records in (known, known + bare):
        count = len(records)
        learner = SimpleNamespace(group_weights=GroupWeights(loss, records), accelerator=one)
        weigh = Learner._by_group(learner, {"group": rows(records), "classes": classes[:count]})
        found.append(weigh(each[:count])[:4].tolist())
        assert learner.group_weights.q.max() == pytest.approx(0.5)
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("options", [{"group_balance": 0.5}, {"group_dro": 0.3}])
def test_two_processes_weigh_as_one(options):
    records = people(3, 3, 3, 1, None, 5, 5, 1)
    loss = ClassifierLoss(group="skin_tone", **options)
    each, shares = torch.rand(8), rows(records)
    whole = GroupWeights(loss, records)(each, shares, alone)
    halves, sums = (each[0::2], each[1::2]), {}
    for turn in range(2):  # the first turn collects what the second one exchanges
        found = []
        for rank in range(2):
            own = GroupWeights(loss, records)

            def total(here, rank=rank, turn=turn):
                sums[rank] = here
                return here if turn == 0 else sums[0] + sums[1]

            found.append(own(halves[rank], shares[rank::2], total))
    together = torch.stack(found, dim=1).ravel()
    assert together.tolist() == pytest.approx(whole.tolist(), rel=1e-6)


def test_the_state_goes_on_where_it_was():
    records = people(3, 3, 1)
    loss = ClassifierLoss(group="skin_tone", group_dro=0.5)
    one, other = (GroupWeights(loss, records) for _ in range(2))
    one(torch.tensor([0.1, 0.1, 2.0]), rows(records), alone)
    other.load_state_dict(one.state_dict())
    assert other.q.tolist() == one.q.tolist()
    assert one.q.tolist() != GroupWeights(loss, records).q.tolist()


def test_weights_reach_the_loss_and_no_gradient_flows_through_them():
    logits = torch.zeros(2, 2, requires_grad=True)
    targets, spec = torch.eye(2), ClassifierLoss(label_smoothing=0)
    loss = classifier_loss(
        logits, targets, torch.ones(2), spec, by_group=lambda each: torch.tensor([2.0, 0.0])
    )
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert logits.grad[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    "override", ["loss.group=skin_tone", "loss.group_dro=0.1", "loss.group=tone"]
)
def test_a_recipe_that_says_half_of_it_is_refused(override):
    with pytest.raises(RecipeError, match=r"loss\.group"):
        load_recipe("classifier", [override])


def test_one_group_alone_is_refused():
    with pytest.raises(UserError, match="two groups"):
        GroupWeights(ClassifierLoss(group="skin_tone", group_dro=0.1), people(3, None, 3))
