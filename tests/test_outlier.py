"""The head that tells pictures without a lesion: its part, its verdict, its fit, its command."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from analyses import analysis

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import OUTLIERS, BundleError
from dermedge.data import load, parse_source, synthetic
from dermedge.data.joint import joint_split
from dermedge.explain import outlined
from dermedge.image.read import write_png
from dermedge.lesion.quality import Quality
from dermedge.outlier import OutlierHead, evidence, length
from edge_app.presentation.estimate import remarks
from edge_app.store.schema import analysis_fault
from export.outliers import add
from export.outliers.choose import LOST, choose, refused_of_each_kind
from export.outliers.draw import DRAWN, beside, retaken
from export.outliers.fit import SKIN, Pictures, fit_score, fit_usual, lowest_limit
from export.outliers.look import Looker

SIDES = np.eye(12) * 6
PENALTY = 100.0


def private_key() -> bytes:
    """Ed25519, PEM."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    return Ed25519PrivateKey.generate().private_bytes(*form, serialization.NoEncryption())


def _pictures(groups: dict[str, np.ndarray], again: bool = False) -> Pictures:
    rows = np.concatenate(list(groups.values()))
    names = np.concatenate([[name] * len(part) for name, part in groups.items()])
    ids = np.array([f"{name} {row}" for row, name in enumerate(names)])
    nothing = np.zeros(len(rows), bool)
    return Pictures(rows.astype(np.float32), names, ids, nothing | again, nothing)


def _drawn(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 12)) + SIDES[3] * shift


def _good(seed: int, shift: float = 0.0) -> Pictures:
    return _pictures({"one": _drawn(seed, 300), "two": _drawn(seed + 1, 60, shift)})


def _near() -> Pictures:
    return _pictures({"near": _drawn(9, 80) + SIDES[0]})


def _kinds() -> Pictures:
    """Kinds that share what tells them, and each has its own beside it."""
    return _pictures(
        {
            "near": _drawn(9, 80) + SIDES[0] + SIDES[1],
            "other": _drawn(7, 80) + SIDES[0] + SIDES[2],
            f"{SKIN}one": _drawn(5, 40) + SIDES[4],
            f"{SKIN}two": _drawn(4, 40) + SIDES[4] + SIDES[6] / 3,
        }
    )


def _head(limit: float = 1.2) -> OutlierHead:
    usual = fit_usual(_good(0))
    rows = fit_score(usual, _good(0), _near(), PENALTY)[None]
    head = replace(usual, weights=rows, limit=np.array([limit], np.float32))
    return OutlierHead.from_bytes(head.to_bytes(), 12)


def test_outliers_of_a_kind_that_was_fitted_and_of_one_that_is_far_are_refused():
    head = _head()
    far = _drawn(8, 50) - SIDES[5]
    assert (head.score(_good(0).evidence) > 1.2).mean() < 0.04
    assert (head.score(_near().evidence) > 1.2).mean() > 0.9
    assert (head.score(far) > 1.2).mean() > 0.9  # on no side that was fitted to


def test_a_refused_picture_is_told_that_no_lesion_was_found():
    fine = Quality(True, (), {"too_dark": -0.2, "no_lesion": 0.1})
    refused = _head().judge(1.3, fine)
    assert refused.reasons == ("no_lesion",)
    assert not refused.usable
    assert not refused.ok
    assert list(refused.scores) == ["too_dark", "no_lesion"]
    assert refused.scores["no_lesion"] > 1
    dark = Quality(False, ("too_dark", "hair", "no_lesion"), {"too_dark": 2.0}, refused=1)
    both = _head().judge(1.3, dark)
    assert both.reasons == ("too_dark", "no_lesion", "hair")
    assert both.refused == 2
    assert _head().judge(1.1, fine) is fine


def test_a_part_of_another_classifier_is_refused():
    content = _head().to_bytes()
    with pytest.raises(BundleError, match="does not fit the classifier"):
        OutlierHead.from_bytes(content, 13)
    with pytest.raises(BundleError, match=r"outlier\.npz"):
        OutlierHead.from_bytes(content[:200], 12)


def test_the_limit_loses_no_more_than_it_may():
    scores, none = np.linspace(0, 1, 100), np.zeros(100, bool)
    assert (scores > lowest_limit(scores, none, 0.02)).sum() == 2
    first = np.arange(100) < 97
    # Of those that get an estimate without it.
    assert (scores[~first] > lowest_limit(scores, first, 0.02)).sum() == 2
    assert lowest_limit(scores[:1], np.ones(1, bool), 0.02) == 0.0


def test_a_small_source_weighs_as_much_as_a_large_one():
    head = fit_usual(_good(0, shift=1.0))
    assert head.mean[3] == pytest.approx(3.0, abs=0.4)


def test_the_limit_spares_each_source_its_copies_and_sources_that_were_left_out():
    training, validation = _good(0, shift=0.4), _good(20, shift=0.4)
    copies = _good(30, shift=0.4)
    both = Pictures(
        *(
            np.concatenate([getattr(validation, name), getattr(copies, name)])
            for name in ("evidence", "groups", "ids")
        ),
        np.repeat([False, True], len(copies)),
        np.zeros(2 * len(copies), bool),
    )
    chosen = choose(training, both, _kinds())
    for name, one in chosen.report["lost"].items():
        assert one["more"][0] <= LOST, name
    for name, one in chosen.report["lost_elsewhere"].items():
        assert one["more"][0] <= 0.02, name
        assert one["more"][0] <= one["more"][2]
    assert set(chosen.report["limits"]) == {
        *("one", "one, copies", "one, left out", "two", "two, copies", "two, left out")
    }
    assert chosen.report["limit"] == max(chosen.report["limits"].values())
    kinds = refused_of_each_kind(chosen.head, _kinds())
    assert min(kind["refused"][0] for kind in kinds.values()) > 0.8
    # How it is fitted is chosen by kinds that it does not know.
    tried = chosen.report["refused_of_unknown_kinds"]
    (taken,) = [one for one in tried if chosen.report["setting"].items() <= one.items()]
    assert taken["refused"] == max(one["refused"] for one in tried) > 0.8
    assert kinds["near"]["without"] == 0
    json.dumps(chosen.report)
    assert any("left out" in line for line in add.lines_of({**chosen.report, "kinds": kinds}))


def test_plain_skin_of_one_data_set_is_not_enough():
    outliers = _kinds()
    one = outliers[outliers.groups != f"{SKIN}two"]
    with pytest.raises(UserError, match="of one data set at most"):
        choose(_good(0), _good(20), one)


def test_evidence_has_the_length_that_a_bundle_is_checked_by():
    outputs = {
        "probabilities": np.array([0.7, 0.3], np.float32),
        "activation": np.ones((2, 3, 3), np.float32),
        "embedding": np.zeros(5, np.float32),
        "distance": np.ones(1, np.float32),
    }
    view, chart = np.full((60, 80, 3), 180, np.uint8), np.full((32, 32), 0.2, np.float32)
    seen = evidence(outputs, view, chart, Quality(True, (), {}))
    assert seen is not None
    assert seen.shape == (length(2, 5),)
    assert np.isfinite(seen).all()
    del outputs["activation"]
    assert evidence(outputs, view, chart, Quality(True, (), {})) is None


@pytest.mark.parametrize("kind", DRAWN)
def test_drawn_outliers_are_pictures_and_always_the_same(kind):
    first, second = (DRAWN[kind](np.random.default_rng(3)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert (first == second).all()


def test_a_cutting_beside_the_lesion_shows_none_of_it():
    picture = np.zeros((120, 160, 3), np.uint8)
    lesion = np.zeros((120, 160), bool)
    lesion[30:80, 40:90] = True
    picture[lesion] = 255
    cut = beside(picture, lesion, np.random.default_rng(0))
    assert cut is not None
    assert cut.max() == 0
    assert beside(picture, np.ones((120, 160), bool), np.random.default_rng(0)) is None


def test_a_picture_taken_again_is_a_part_of_it_in_other_light():
    picture = np.full((90, 120, 3), 100, np.uint8)
    again = retaken(picture, np.random.default_rng(1))
    assert again.dtype == np.uint8
    assert 67 <= again.shape[0] <= 90
    assert 65 < again.mean() < 140
    assert again.mean() != 100


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """Arguments of the command: two drawn data sets, and a joint split of them."""
    folder = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(("one", "two")):
        synthetic.write_data_set(folder / name, 24, seed=seed, size=(96, 128))
    names = [f"procedural={folder / name}" for name in ("one", "two")]
    split = joint_split([load(*parse_source(name)) for name in names], {})
    split.save(folder / "joint.json")
    return ["--data", names[0], "--data", names[1], "--split", str(folder / "joint.json")]


@pytest.fixture
def few(monkeypatch):
    for name, value in (("TRAINING", 10), ("COPIES", 3), ("OUTLIERS_OF_A_KIND", 4), ("FEWEST", 2)):
        monkeypatch.setattr(add, name, value)


def test_a_finished_bundle_gets_the_head_and_says_so_of_a_picture(
    two_sets, few, make_bundle, tmp_path, monkeypatch, capsys
):
    old, new, others = make_bundle(), tmp_path / "new.dermbundle", tmp_path / "others"
    (others / "sky").mkdir(parents=True)
    write_png(others / "sky" / "a.png", np.full((80, 80, 3), (30, 60, 250), np.uint8))
    rooms = tmp_path / "photographs" / "rooms"
    rooms.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    write_png(rooms / "b.png", noise)
    (rooms / "torn.png").write_bytes((rooms / "b.png").read_bytes()[:500])
    for folder in (rooms, others / "sky"):
        for name in (".DS_Store", "._b.png"):
            (folder / name).write_bytes(b"of a Mac, the same in both")
    more = ["--cache", str(tmp_path / "cache"), "--ood", str(others)]
    more += ["--photographs", str(rooms.parent)]
    more += ["--report", str(tmp_path / "report.json")]
    add.main([str(old), str(new), *two_sets, *more])
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["lost_elsewhere"]) == {"procedural", "procedural.2"}
    assert report["kinds"]["sky"]["pictures"] == 1
    assert report["outliers"]["photograph, rooms"] == 2
    said = capsys.readouterr()
    assert "no lesion, sky: 1," in said.out
    assert said.err.count("torn.png") == said.err.count("left out:") == 1
    bundle = Bundle.open(new)
    assert bundle.manifest.thresholds == Bundle.open(old).manifest.thresholds
    found = Analyzer(bundle).analyze(others / "sky" / "a.png").to_json()
    assert found["outlier"]["limit"] == pytest.approx(report["limit"])
    assert found["outlier"]["refused"] == (found["outlier"]["score"] > found["outlier"]["limit"])
    assert analysis_fault(found, (80, 80)) == ""
    before = Analyzer(Bundle.open(old)).analyze(others / "sky" / "a.png").to_json()
    assert before["outlier"] is None

    # What was seen is kept: the second time no picture is looked at, and the same comes out.
    monkeypatch.setattr(Analyzer, "analyze", None)
    # Who signs bundles signs this one, too: no other command could.
    key = tmp_path / "key.pem"
    key.write_bytes(private_key())
    add.main([str(new), str(new), *two_sets, *more, "--sign", str(key), "--release", "3"])
    again = Bundle.open(new)
    assert again.part(OUTLIERS) == bundle.part(OUTLIERS)
    assert (again.signed, again.manifest.release) == (True, 3)


def test_a_cache_in_a_folder_of_somebody_leaves_its_mode(tiny_bundle, tmp_path):
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    shared.chmod(0o755)
    for folder, mode in ((shared, 0o755), (own, 0o700)):
        Looker(Bundle.open(tiny_bundle), folder)
        assert folder.stat().st_mode & 0o777 == mode


def test_a_head_for_outputs_that_are_not_there_is_refused(tiny_bundle, tmp_path):
    tiny = Bundle.open(tiny_bundle)
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    path = tmp_path / "headed.dermbundle"
    write_bundle(path, tiny.manifest, {**parts, OUTLIERS: _head().to_bytes()})
    with pytest.raises(BundleError, match="which the classifier does not give"):
        Analyzer(Bundle.open(path))


def test_one_data_set_or_another_split_is_refused(two_sets, make_bundle, tmp_path):
    old, new = str(make_bundle()), tmp_path / "new.dermbundle"
    with pytest.raises(UserError, match="twice or more"):
        add.main([old, str(new), *two_sets[:2]])
    other = ["--data", f"csv={two_sets[3].partition('=')[2]}", *two_sets[:2], *two_sets[4:]]
    with pytest.raises(UserError, match="give them in that order"):
        add.main([old, str(new), *other, "--cache", str(tmp_path)])
    with pytest.raises(UserError, match=r"one is given twice: give each data set once"):
        add.main([old, str(new), *two_sets[:2] * 2])
    assert not new.exists()
    # Before pictures are looked at, not after.
    (tmp_path / "others").mkdir()
    for folder in ("fitted", "measured"):
        (tmp_path / folder / "sky").mkdir(parents=True)
        (tmp_path / folder / "sky" / "a.png").write_bytes(b"the same")
    both = ["--photographs", str(tmp_path / "fitted"), "--ood", str(tmp_path / "measured")]
    for name, more, reason in (
        ("new", [], "ends in .dermbundle"),
        ("no/new.dermbundle", [], "there is no folder"),
        ("new.dermbundle", ["--report", str(tmp_path / "no" / "r.json")], "there is no folder"),
        ("new.dermbundle", ["--ood", str(tmp_path / "others")], "there is no KIND/PICTURE"),
        ("new.dermbundle", ["--photographs", str(tmp_path / "others")], "there is no KIND"),
        ("new.dermbundle", both, "measures nothing"),
    ):
        with pytest.raises(UserError, match=reason):
            add.main([old, str(tmp_path / name), "--data", "csv=none", *more])


def test_what_the_head_refuses_is_not_called_an_unsure_outline():
    of_head = {"score": 2.0, "limit": 1.5, "refused": True}
    quality = {"ok": False, "usable": False, "reasons": ["no_lesion"], "scores": {}}
    assert "No lesion was found" in remarks(analysis(quality=quality, outlier=of_head))[0]
    assert "outline" in remarks(analysis(quality=quality, outlier=None))[0]
    # An analysis of an older dermedge.
    assert "outline" in remarks(analysis(quality=quality))[0]


@pytest.mark.parametrize("refused", [False, True])
def test_no_outline_is_drawn_on_a_picture_without_a_lesion(refused):
    square = np.array([[10.0, 10.0], [50.0, 10.0], [50.0, 50.0]])
    lesion = SimpleNamespace(polygons=(square,))
    pixels = np.full((64, 64, 3), 120, np.uint8)
    drawn = outlined(pixels, SimpleNamespace(is_outlier=refused, width=64, lesion=lesion))
    assert np.array_equal(drawn, pixels) == refused
