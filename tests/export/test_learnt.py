"""What a finished bundle's networks learnt from is found again, or asked for in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.data import DataSet, Split, load, make_split
from dermedge.data.joint import join, joint_split
from export import ExportError
from export.bundle.learnt import learnt_by

ROLES = [("segmenter",), ("classifier",)]


def clinic(root: Path, name: str, diagnoses: list[str]) -> DataSet:
    folder = root / name
    folder.mkdir()
    lines = ["image,diagnosis,lesion_id"]
    for number, diagnosis in enumerate(diagnoses):
        picture = np.full((24, 32, 3), 40 + number, np.uint8)
        cv2.imwrite(str(folder / f"{name}{number}.png"), picture)
        lines.append(f"{name}{number}.png,{diagnosis},{name}{number}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return load("csv", folder)


@pytest.fixture
def clinics(tmp_path) -> list[DataSet]:
    return [clinic(tmp_path, name, ["nv", "mel"] * 10) for name in ("here", "there")]


def bundle_of(tiny: Path, folder: Path, *trained: dict) -> Bundle:
    """The tiny bundle, its segmenter and its classifier trained as these say."""
    whole = Bundle.open(tiny)
    parts = {name: whole.part(name) for name in whole.manifest.parts}
    entries = tuple({**one, "role": roles[0]} for one, roles in zip(trained, ROLES, strict=True))
    manifest = replace(whole.manifest, training_data=entries)
    return Bundle.open(write_bundle(folder / "b.dermbundle", manifest, parts))


def saved(split: Split, path: Path) -> str:
    split.save(path)
    return str(path)


def test_each_network_gets_its_own_data_and_split(tiny_bundle, clinics, tmp_path):
    alone = make_split(clinics[0], fractions=(0.5, 0.25, 0.25))
    joint = joint_split(clinics, {})
    labels = Bundle.open(tiny_bundle).manifest.labels
    prior = {label: (number + 1) / 10 for number, label in enumerate(reversed(labels))}
    bundle = bundle_of(
        tiny_bundle,
        tmp_path,
        {"data_set": "csv", "split_sha256": alone.sha256},
        {
            "data_set": "csv+csv.2",
            "split_sha256": joint.sha256,
            "prior": prior,
            "prior_of": "as given",
        },
    )
    files = [saved(joint, tmp_path / "joint.json"), saved(alone, tmp_path / "alone.json")]
    found = learnt_by(bundle, ROLES, clinics, files)
    segmenter, classifier = (found[roles] for roles in ROLES)
    assert {one.id for one in segmenter.training} == set(alone.parts["train"])
    assert segmenter.prior is None
    assert {one.id for one in classifier.training} == set(joint.parts["train"])
    assert {one.id for one in classifier.validation.records} == set(joint.parts["val"])
    assert classifier.data_set.name == join(clinics).name == "csv+csv.2"
    assert classifier.prior.tolist() == [prior[label] for label in labels]


def test_what_is_missing_or_too_much_is_said_in_one_line(tiny_bundle, clinics, tmp_path):
    alone = make_split(clinics[0])
    joint = joint_split(clinics, {})
    bundle = bundle_of(
        tiny_bundle,
        tmp_path,
        {"data_set": "csv", "split_sha256": alone.sha256},
        {"data_set": "csv+csv.2", "split_sha256": joint.sha256},
    )
    good = saved(joint, tmp_path / "joint.json")
    (tmp_path / "run").mkdir()
    namesake = saved(alone, tmp_path / "run" / "joint.json")
    other = saved(joint_split(clinics, {"csv.2": make_split(clinics[1], seed=3)}), tmp_path / "o")

    def refused(roles, data_sets, files) -> str:
        with pytest.raises(ExportError) as error:
            learnt_by(bundle, roles, data_sets, files)
        return str(error.value)

    # The split of seed 0 is made; that of several sets is not: it needs their pictures.
    assert learnt_by(bundle, ROLES, clinics, [good])
    for order in ([good, namesake], [namesake, good]):  # files of one name in two folders
        found = learnt_by(bundle, ROLES, clinics, order)
        assert found["classifier",].split.sha256 == joint.sha256
    assert "classifier" in (line := refused(ROLES, clinics[:1], []))
    assert line.endswith("trained on csv+csv.2, not on csv: give --data csv=PATH, in that order")
    assert f"the split {joint.sha256[:12]} of csv+csv.2: give that one by --split" in refused(
        ROLES, clinics, []
    )
    assert f"o is {Split.load(other).sha256[:12]}: give that one by --split FILE" in refused(
        ROLES, clinics, [other]
    )
    # Its classifier was, but is not judged.
    assert "(segmenter) was trained on csv.2: leave it out" in refused(ROLES[:1], clinics, [])
    assert "was trained with" in refused(ROLES, clinics, [good, other])
    bare = bundle_of(tiny_bundle, tmp_path, {"licence": "CC0"}, {})
    with pytest.raises(ExportError, match="does not say what its segmenter was trained on"):
        learnt_by(bare, ROLES, clinics)


def test_a_network_of_another_bundle_stays_where_its_pictures_are_not_here(
    tiny_bundle, clinics, tmp_path, capsys
):
    own, other = make_split(clinics[0]), make_split(clinics[1])
    lent = {"data_set": "csv", "split_sha256": other.sha256, "from_bundle": {"name": "theirs"}}
    mine = {"data_set": "csv", "split_sha256": own.sha256}
    bundle = bundle_of(tiny_bundle, tmp_path, lent, mine)
    assert set(learnt_by(bundle, ROLES, clinics[:1])) == {("classifier",)}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the segmenter was taken from another bundle, and stays as it is: ")
    assert "give that one by --split FILE" in line
    # Alone it is what is asked for; and one's own network is never left out.
    with pytest.raises(ExportError, match=r"the segmenter of .* give that one by --split FILE"):
        learnt_by(bundle, ROLES[:1], clinics[:1])
    with pytest.raises(ExportError, match=r"the classifier of .* was trained with the split"):
        learnt_by(bundle, ROLES, clinics[1:])
