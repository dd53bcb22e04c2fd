"""One contract for every registered network: a new one is tested by being registered."""

from __future__ import annotations

import pytest
import torch

from train.mobilegan import PatchDiscriminator
from train.models import MODELS, build_model, complexity

LABELS = ("bkl", "mel", "nv")
# The most parameters each network may have; MobileGAN's is that of the paper.
BUDGET = {
    "mobilegan": 2_350_000,
    "unet": 6_700_000,
    "lraspp_mobilenet_v3_large": 3_300_000,
    "mobilenet_v2": 2_300_000,
    "mobilenet_v3_small": 1_600_000,
    "mobilenet_v3_large": 4_300_000,
}


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture
def model(name):
    torch.manual_seed(0)
    return build_model(name, LABELS)


def pictures(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def expected_shape(name: str, count: int, size: int) -> tuple[int, ...]:
    return (count, 1, size, size) if MODELS[name].kind == "segmenter" else (count, len(LABELS))


@pytest.mark.parametrize(("count", "size"), [(1, 64), (3, 96)])
def test_logits_have_the_promised_shape(name, model, count, size):
    with torch.no_grad():
        logits = model.eval()(pictures(count, size))
    assert tuple(logits.shape) == expected_shape(name, count, size)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_every_weight_learns(name, model):
    model.train()(pictures(3, 64)).square().mean().backward()
    silent = [key for key, weight in model.named_parameters() if weight.grad is None]
    assert not silent
    # MobileGAN's position attention starts as the identity: what is behind it wakes up later.
    still = [key for key, weight in model.named_parameters() if not weight.grad.any()]
    assert len(still) <= 0.2 * len(list(model.parameters()))


def test_normalization_is_inside_and_the_same_for_bytes_and_floats(model):
    image = pictures(2, 64)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(image), model(image.float()))
        planes = image.permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        outside = model.net((planes - mean) / std)
    torch.testing.assert_close(model(image), outside, atol=1e-4, rtol=1e-4)


def test_saved_weights_give_the_same_output(name, model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build_model(name, LABELS)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    image = pictures(1, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(image), other.eval()(image))


def test_parameters_stay_in_the_budget(name, model):
    found = complexity(model, 64)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.parameters <= BUDGET[name]
    # Convolutions dominate: four times the pixels, about four times the operations.
    assert 3.3 < complexity(model, 128).macs / found.macs < 4.5
    assert model.training


def test_macs_are_the_published_ones():
    # 0.30 GMAC at 224 px: the torchvision page of MobileNet_V2_Weights.
    assert complexity(build_model("mobilenet_v2", LABELS), 224).macs == pytest.approx(
        3.0e8, rel=0.02
    )


def test_wrong_requests_are_refused_in_one_line():
    with pytest.raises(ValueError, match="no model 'resnet'; there are: mobilegan"):
        build_model("resnet")
    with pytest.raises(ValueError, match="at least two labels"):
        build_model("mobilenet_v2", ("nv",))
    with pytest.raises(ValueError, match="no ImageNet weights for mobilegan"):
        build_model("mobilegan", pretrained="imagenet")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


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


def test_discriminator_judges_patches_and_leads_the_segmenter():
    judge = PatchDiscriminator()
    mask = torch.rand(2, 1, 64, 64, requires_grad=True)
    verdict = judge(pictures(2, 64), mask)
    assert tuple(verdict.shape) == (2, 1, 4, 4)
    verdict.mean().backward()
    assert mask.grad.abs().sum() > 0
