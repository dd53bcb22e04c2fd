"""Recipes: every shipped one loads, and every wrong key is named in one clear line."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.models import KINDS, MODELS
from train.recipe import RecipeError, load_recipe, recipe_names, to_toml

NO_OUTLINE = [f"loss.{part}=0" for part in ("bce", "jaccard", "l1", "endpoint", "adversarial")]


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_survive_being_written(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.kind in name
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize("name", ["𠮷野", "🔬", "صورة", 'a "b"', "C:\\runs\\new", "a\tb", "a\x7fb"])
def test_any_name_survives_being_written(name, tmp_path):
    """Else the run of such a recipe, start or teacher could not be exported."""
    recipe = replace(load_recipe("classifier"), name=name, pretrained="no", start=f"runs/{name}")
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_every_kind_has_a_recipe_of_its_name():
    for kind in KINDS:
        assert load_recipe(kind).kind == kind


@pytest.mark.parametrize("name", MODELS)
def test_the_recipe_of_a_kind_serves_all_its_networks(name):
    assert load_recipe(MODELS[name].kind, [f"model={name}", "pretrained=no"]).model == name


def test_fields_and_teachers_are_lists_in_one_text():
    recipe = load_recipe(
        "classifier", ["metadata=age, site", "distillation.teachers=runs/a,runs/b,"]
    )
    assert recipe.fields == ("age", "site")
    assert recipe.teachers == ("runs/a", "runs/b")
    plain = load_recipe("classifier")
    assert plain.fields == plain.teachers == ()


def test_overrides_change_single_values():
    recipe = load_recipe(
        "segmenter",
        [
            "optimizer.lr=1e-4",
            "epochs = 3",
            "preprocessing.hair_removal=true",
            "model=unet",
            "ema=0",
        ],
    )
    assert recipe.optimizer.lr == 1e-4
    assert recipe.epochs == 3
    assert recipe.preprocessing.hair_removal is True
    assert recipe.model == "unet"
    assert type(recipe.ema) is float
    assert recipe.optimizer.weight_decay == load_recipe("segmenter").optimizer.weight_decay


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("optimizer.lr=2", "optimizer.lr must be a number from 1e-07 to 1; got 2.0"),
        ("optimizer.lr=nan", "optimizer.lr must be a number"),
        ("optimizer.rate=1", "unknown key optimizer.rate; there are: lr"),
        ("epochs=true", "epochs must be a whole number from 1 to 10000; got True"),
        ("epochs=2.5", "epochs must be a whole number"),
        ("epoch=2", "unknown key epoch; there are:"),
        ("augmentation.flip=1", "augmentation.flip must be true or false; got 1"),
        ("amp=fp8", "amp must be one of no, fp16, bf16; got 'fp8'"),
        ("model=resnet", "model must be one of mobilegan"),
        ("loss.label_smoothing=0.1", "unknown key loss.label_smoothing; there are: bce"),
        ("preprocessing.size=100", "preprocessing.size must be a multiple of 32"),
        ("preprocessing.size=5000", "preprocessing.* 16 to 2048"),
        ("preprocessing.hair_removal=2", "preprocessing.hair_removal must be true or false"),
        ("pretrained=imagenet", "pretrained must be 'no' for mobilegan"),
        ("metadata=age", "mobilegan is a segmenter: it takes neither metadata nor classes"),
        ("balanced_sampling=1", "mobilegan is a segmenter: it takes neither metadata nor"),
        ("classes=mel", "mobilegan is a segmenter: it takes neither metadata nor classes"),
        ("augmentation.mixup=0.2", "mixup and cutmix mix classes, not masks: not for mobilegan"),
        ("augmentation.cutmix=1", "mixup and cutmix mix classes, not masks: not for mobilegan"),
        ("augmentation.hair=2", "augmentation.hair must be a number from 0 to 1; got 2.0"),
        ("preprocessing.crop=1.5", "preprocessing.crop needs a mask that is there already"),
        ("crop_by=dermoscopy", "crop_by says where preprocessing.crop crops: set that to 1 to 4"),
        ("preprocessing.crop=9", r"\[preprocessing\] crop must be 0 .* or 1 to 4, got 9.0"),
        ("loss.focal=2", "unknown key loss.focal; there are: bce, jaccard, dice, l1, endpoint"),
        ("distillation.temperature=0", "distillation.temperature must be a number from 0.1"),
        ("epochs.x=3", "epochs is not a table"),
        ("optimizer=3", "optimizer must be a table"),
        ("epochs", "key=value"),
        ("epochs=3\nseed=4", "key=value"),
    ],
)
def test_a_wrong_override_is_named_in_one_line(override, complaint):
    with pytest.raises(RecipeError, match=complaint) as caught:
        load_recipe("segmenter", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "complaint"),
    [
        (
            "classifier",
            ["metadata=weight"],
            "metadata must be some of age, sex, site; got 'weight'",
        ),
        ("classifier", ["metadata=age,age"], "metadata must be some of age, sex, site"),
        ("classifier", ["start=runs/a", "pretrained=imagenet"], "start and pretrained exclude"),
        ("multitask", ["distillation.teachers=runs/a"], "not for multitask_mobilenet_v2, which"),
        ("multitask", ["loss.classification=0"], "keeps the classes of a start: set start, and"),
        ("multitask-outline", ["classes="], "set start, and its classes as classes"),
        ("multitask-outline", ["balanced_sampling=0.5"], "learns no class: leave loss.group and"),
        ("multitask", ["augmentation.mixup=0.2"], "not masks: not for multitask_mobilenet_v2"),
        ("multitask", ["preprocessing.crop=2"], "there already: not for multitask_mobilenet_v2"),
        ("segmenter-nano", ["pretrained=imagenet"], "must be 'no' for mobilegan-nano"),
        ("segmenter", NO_OUTLINE, "no outline to learn: set one of bce, jaccard, dice, l1, "),
        ("multitask-outline", NO_OUTLINE, "leaves multitask_mobilenet_v2 no outline to learn"),
    ],
)
def test_what_does_not_go_together_is_one_line(name, overrides, complaint):
    with pytest.raises(RecipeError, match=complaint) as caught:
        load_recipe(name, overrides)
    assert "\n" not in str(caught.value)


def test_a_recipe_may_be_saved_by_any_editor_as_utf8(tmp_path):
    text = to_toml(load_recipe("classifier")).replace("name = ", "# Läsion\nname = ")
    file = tmp_path / "mine.toml"
    for encoding, newline in (("utf-8", "\n"), ("utf-8-sig", "\n"), ("utf-8-sig", "\r\n")):
        file.write_bytes(text.replace("\n", newline).encode(encoding))
        assert load_recipe(file) == load_recipe("classifier")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"):
        file.write_bytes(text.encode(encoding))
        with pytest.raises(RecipeError, match="save it as UTF-8") as told:
            load_recipe(file)
        assert "\n" not in str(told.value)
    for damage in (
        b"\0" * 40,
        text.encode()[: len(text) // 2] + b"\xff\xfe",
        b"a = " + b"[" * 9999,
    ):
        file.write_bytes(damage)
        with pytest.raises(RecipeError) as told:
            load_recipe(file)
        assert "\n" not in str(told.value)


def test_unknown_and_broken_recipes(tmp_path):
    with pytest.raises(RecipeError, match="no recipe 'segmentr'; there are: classifier"):
        load_recipe("segmentr")
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("model = = 3")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(broken)
    broken.write_text("epochs = 3")
    with pytest.raises(RecipeError, match="model must be one of"):
        load_recipe(broken)


@given(st.text(max_size=40))
def test_any_override_text_is_taken_or_refused_never_a_crash(text):
    with contextlib.suppress(RecipeError):
        load_recipe("demo-classifier", [text])


@given(
    st.floats(1e-7, 1.0), st.integers(1, 4096), st.booleans(), st.floats(0, 0.9, allow_nan=False)
)
def test_numbers_are_kept_to_the_last_bit(tmp_path_factory, lr, batch, flip, scale):
    overrides = [
        f"optimizer.lr={lr!r}",
        f"batch_size={batch}",
        f"augmentation.flip={str(flip).lower()}",
        f"augmentation.scale={scale!r}",
    ]
    recipe = load_recipe("classifier", overrides)
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert recipe.optimizer.lr == lr


def test_the_acceptance_may_have_the_name_of_the_first_version(tmp_path, capsys):
    text = to_toml(load_recipe("classifier", ["acceptance.triage=0.9"]))
    old = tmp_path / "old.toml"
    old.write_text(text.replace("[acceptance]", "[gate]"))
    assert load_recipe(old).acceptance.triage == 0.9
    assert "[gate] is now called [acceptance]" in capsys.readouterr().err
    old.write_text(old.read_text() + "\n[acceptance]\ntriage = 0.5\n")
    with pytest.raises(RecipeError, match="is the old name of"):
        load_recipe(old)
