"""`export --prior`: which prior of the classes a bundle's probabilities carry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dermedge import UserError, cli, data
from dermedge.bundle.bundle import Bundle
from dermedge.image.read import write_png
from dermedge.runtime import open_session
from export import ExportError
from export.calibration.temperature import fit_temperature, log_softmax
from export.runs.load import load_networks
from export.runs.prior import carried, last_layer, log_ratio, read_prior, with_prior
from export.thresholds.choose import operating_points
from export.validation.weights import prior_weights

LABELS = ("mel", "nv", "bcc")


@pytest.fixture(autouse=True)
def one_thread(remembered_graphs):
    torch.set_num_threads(1)


def test_the_forms_of_a_prior(tmp_path):
    assert read_prior("uniform", LABELS).shares.tolist() == pytest.approx([1 / 3] * 3)
    given = read_prior("nv=6, mel=3,bcc=1", LABELS)
    assert given.stated(LABELS) == {"mel": 0.3, "nv": 0.6, "bcc": 0.1}
    for number, name in enumerate(("mel", "nv", "nv", "bcc")):
        write_png(tmp_path / f"{number}.png", np.zeros((8, 8, 3), np.uint8))
        with open(tmp_path / "data.csv", "a") as table:
            table.write(f"{number}.png,{name}\n" if number else f"image,diagnosis\n0.png,{name}\n")
    # As --data takes it.
    assert read_prior(f"CSV={tmp_path}", LABELS).shares.tolist() == [0.25, 0.5, 0.25]
    # Of the pictures that the network is for, as one's own set is counted.
    lines = (tmp_path / "data.csv").read_text().splitlines()
    kinds = ["modality", "clinical", "dermoscopic", "clinical", ""]
    both = "\n".join(map(",".join, zip(lines, kinds, strict=True)))
    (tmp_path / "data.csv").write_text(both)
    own = data.load("csv", tmp_path)
    for text in (f"csv={tmp_path}", "csv"):
        found = read_prior(text, LABELS, own, "clinical")
        assert found.shares.tolist() == pytest.approx([1 / 3] * 3)
        assert found.title == "csv, 3 clinical pictures"
    (tmp_path / "place.csv").write_text("class,share\nmel,30\nbcc,10\nnv,60\n")
    assert read_prior(str(tmp_path / "place.csv"), LABELS).shares.tolist() == pytest.approx(
        given.shares.tolist()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nv=1,mel=1", "it has no bcc"),
        ("nv=1,mel=1,bcc=1,df=1", "df is no class of this network"),
        ("nv=0,mel=1,bcc=1", "must be a number above 0"),
        ("nv=x,mel=1,bcc=1", "must be a number above 0"),
        ("nv=1,nv=2", "a prior is"),
        ("ham10000", "is none of them"),
        ("ham1000=x", "no reader for 'ham1000'"),
    ],
)
def test_what_is_no_prior_of_these_classes_is_refused(text, said):
    with pytest.raises(ExportError, match=said):
        read_prior(text, LABELS)


def test_a_class_that_was_never_drawn_is_moved_to_no_prior():
    """As of a source of weight 0. 'it has no bcc' named no way out."""
    stated = {"mel": 0.5, "nv": 0.5, "bcc": 0.0}
    with pytest.raises(ExportError, match=r"no picture of bcc .* --prior out, .*\"mel, nv\""):
        carried(stated, "", LABELS, None)


def test_a_prior_is_undone_exactly():
    """Balanced softmax: the network answers likelihoods; the place's prior makes them Bayes's."""
    rng = np.random.default_rng(0)
    likelihood = rng.dirichlet(np.ones(3), 50)
    place = np.array([0.7, 0.25, 0.05])
    posterior = likelihood * place
    posterior /= posterior.sum(axis=1, keepdims=True)
    uniform = read_prior("uniform", LABELS)
    there = read_prior(",".join(f"{k}={v}" for k, v in zip(LABELS, place, strict=True)), LABELS)
    logits = np.log(likelihood) + log_ratio(there, uniform)
    found = np.exp(log_softmax(logits))
    assert np.abs(found - posterior).max() < 1e-12
    assert found.sum(axis=1) == pytest.approx(np.ones(50))
    # There and back again.
    back = np.exp(log_softmax(logits + log_ratio(uniform, there)))
    assert np.abs(back - likelihood / likelihood.sum(axis=1, keepdims=True)).max() < 1e-12


def test_pictures_weigh_so_that_the_classes_are_as_frequent_as_in_the_prior():
    targets = np.array([0, 0, 0, 1, -1])
    weights = prior_weights(targets, np.array([0.5, 0.3, 0.2]))
    assert weights[:3].sum() / weights[3] == pytest.approx(0.5 / 0.3)
    assert weights[4] == 0
    assert weights.mean() == pytest.approx(1)
    assert prior_weights(targets, None).tolist() == [1] * 5


def test_what_is_fitted_weighs_the_pictures():
    rng = np.random.default_rng(1)
    targets = (rng.random(3000) < 0.5).astype(int)
    evidence = rng.normal(np.where(targets == 1, 1.0, -1.0), 1.0)
    logits = np.stack([np.zeros(3000), 2 * evidence + np.log(0.1 / 0.9)], axis=1)
    weights = prior_weights(targets, np.array([0.9, 0.1]))
    # Under the prior that the logits carry they are right; as the pictures are, they are not.
    assert fit_temperature(logits, targets, weights) == pytest.approx(1, rel=0.1)
    assert fit_temperature(logits, targets) != pytest.approx(1, rel=0.1)
    risk, sick = np.array([0.1, 0.5, 0.9, 0.2]), np.array([True, True, True, False])
    light = operating_points(risk, sick, np.array([1e-6, 1, 1, 1]))
    assert light[0] == pytest.approx(0.5)
    assert operating_points(risk, sick)[0] == pytest.approx(0.1)


@pytest.fixture(scope="module")
def asked(export_runs) -> str:
    labels = load_networks([export_runs / "classifier"])[0].run.labels
    shares = {label: 1.0 / (1 + number) for number, label in enumerate(labels)}
    return ",".join(f"{label}={value}" for label, value in shares.items())


def test_the_bundle_carries_the_prior_and_says_so(export_runs, asked, tmp_path, capsys):
    plain, other = tmp_path / "plain.dermbundle", tmp_path / "other.dermbundle"
    words = ["export", str(export_runs / "classifier"), "--out"]
    assert cli.main([*words, str(plain)]) == 0
    assert cli.main([*words, str(other), "--prior", asked]) == 0
    before, after = Bundle.open(plain), Bundle.open(other)
    network = load_networks([export_runs / "classifier"])[0]
    labels = network.run.labels
    (old,), (new,) = before.manifest.training_data, after.manifest.training_data
    assert (old["prior_of"], new["prior_of"]) == ("", "as given")
    wanted = read_prior(asked, labels)
    assert new["prior"] == wanted.stated(labels)
    # The graphs differ by the ratio of the priors, once each has its temperature taken out.
    square = np.random.default_rng(0).integers(0, 255, (1, network.run.size, network.run.size, 3))
    logits = []
    for bundle in (before, after):
        (found,) = open_session(bundle.model("classifier")).run({"image": square.astype(np.uint8)})[
            "probabilities"
        ]
        temperature = bundle.manifest.measured["classifier"]["temperature"]
        logits.append(np.log(found.astype(np.float64)) * temperature)
    moved = logits[1] - logits[0]
    carried = np.array([old["prior"][label] for label in labels])
    ratio = np.log(wanted.shares) - np.log(carried)
    assert moved - moved.mean() == pytest.approx(ratio - ratio.mean(), abs=2e-3)


def test_the_shift_is_the_bias_of_the_last_layer(export_runs, asked):
    plain = load_networks([export_runs / "classifier"])[0]
    network = with_prior(plain, asked)
    before, after = (last_layer(one.model).bias.detach().numpy() for one in (plain, network))
    carried = read_prior(",".join(f"{k}={v}" for k, v in plain.run.prior.items()), plain.run.labels)
    assert network.prior is not None
    assert after - before == pytest.approx(log_ratio(network.prior, carried), abs=1e-6)


def test_a_run_that_states_no_prior_needs_to_be_told(export_runs, asked):
    network = load_networks([export_runs / "classifier"])[0]
    silent = replace(network, run=replace(network.run, prior={}))
    with pytest.raises(UserError, match="--carried"):
        with_prior(silent, asked)
    assert with_prior(silent, asked, asked).prior is not None
    with pytest.raises(UserError, match="this one does"):
        with_prior(network, asked, "uniform")


def test_a_segmenter_has_no_prior(export_runs, tmp_path, capsys):
    out = str(tmp_path / "x.dermbundle")
    words = ["export", str(export_runs / "segmenter"), "--out", out, "--prior", "uniform"]
    assert cli.main(words) == 2
    assert "a segmenter has no classes" in capsys.readouterr().err
