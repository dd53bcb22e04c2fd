"""The recipe of the Android app: its graph resolves, its versions fit, nothing is backed up."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANDROID = ROOT / "edge_app" / "android"
LEFT_OUT = {ANDROID, *(ROOT / "edge_app" / name for name in ("web", "labelling"))}  # not of the app
# Of what the app needs: neither a recipe nor a wheel. docs/android.md says what is done without.
ABSENT = {"onnxruntime", "opencv-python-headless", "simplejpeg", "python-bidi", "uharfbuzz"}


@pytest.fixture(scope="module")
def spec() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ANDROID / "buildozer.spec", encoding="utf-8")
    return parser["app"]


def requirements(spec) -> dict[str, str]:
    """Name, as the spec writes it, to version; "" where the recipe's own counts."""
    pairs = (word.partition("==") for word in spec["requirements"].split(","))
    return {name.strip(): version.strip() for name, _, version in pairs}


GRAPH = """
import json, os, sys
import logging
logging.disable(logging.CRITICAL)
wanted = json.loads(sys.argv[1])
for name, version in wanted.items():
    if version:
        os.environ[f"VERSION_{name}"] = version  # as the toolchain does with name==version
from pythonforandroid.bootstrap import Bootstrap
from pythonforandroid.build import Context
from pythonforandroid.graph import get_recipe_order_and_bootstrap
from pythonforandroid.recipe import Recipe
context = Context()
bootstrap = Bootstrap.get_bootstrap(sys.argv[2], context)
recipes, modules, _ = get_recipe_order_and_bootstrap(context, list(wanted), bootstrap)
versions = {name: Recipe.get_recipe(name, context).version for name in recipes}
least = max(Recipe.get_recipe(name, context).min_ndk_api_support for name in recipes)
print(json.dumps([versions, sorted(modules), least]))
"""


@pytest.fixture(scope="module")
def graph(spec) -> tuple[dict[str, str], list[str], int]:
    """Recipes with their versions, what pip brings, the lowest API level that the recipes take."""
    if find_spec("pythonforandroid") is None:
        pytest.skip("python-for-android is not installed: pip install 'dermedge[android]'")
    words = [json.dumps(requirements(spec)), spec["p4a.bootstrap"]]
    done = subprocess.run(
        [sys.executable, "-c", GRAPH, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def test_the_graph_of_recipes_resolves(graph, spec):
    recipes, modules, least = graph
    native = {"python3", "kivy", "numpy", "opencv", "cryptography", "openssl", "sqlite3", "pyjnius"}
    assert native <= set(recipes)
    assert "pillow" in {name.lower() for name in recipes}
    assert recipes["openssl"] >= "3.2"  # Argon2id
    assert int(spec["android.minapi"]) >= least
    assert spec["android.minapi"] == spec["android.ndk_api"]
    # All else comes by pip, which has wheels of pure Python alone for Android.
    ours = {name.lower() for name, version in requirements(spec).items() if version}
    assert ours - {name.lower() for name in recipes} <= set(modules)


def test_versions_are_those_that_dermedge_asks_for(spec, graph):
    tomllib = pytest.importorskip("tomllib")
    requirement = pytest.importorskip("packaging.requirements").Requirement
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["app"]]
    recipes, *_ = graph
    given = {**recipes, **{n: v for n, v in requirements(spec).items() if v}}
    versions = {
        name.lower(): version.removeprefix("v") for name, version in given.items() if version
    }
    for need in map(requirement, wanted):
        if need.name.lower() in ABSENT:
            assert need.name.lower() not in versions
        else:
            assert need.specifier.contains(versions[need.name.lower()]), need
    opencv = next(need for need in map(requirement, wanted) if need.name.startswith("opencv"))
    assert opencv.specifier.contains(versions["opencv"])


def test_what_the_app_may_do_and_what_is_kept_of_it(spec):
    assert spec.getboolean("android.allow_backup") is False
    assert spec["android.permissions"] == "android.permission.CAMERA"
    assert spec["android.archs"] == "arm64-v8a"
    assert spec["android.gradle_dependencies"].startswith(
        "com.microsoft.onnxruntime:onnxruntime-android:"
    )
    version = re.search(spec["version.regex"], (ROOT / "dermedge/__init__.py").read_text())[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_buildozer_reads_it_and_takes_every_file_of_the_app(spec):
    if find_spec("buildozer") is None:
        pytest.skip("buildozer is not installed: pip install 'dermedge[android]'")
    from buildozer.specparser import SpecParser

    parser = SpecParser()
    parser.read(ANDROID / "buildozer.spec", "utf-8")
    endings = set(parser.getlist("app", "source.include_exts"))
    needed = {
        path.suffix[1:]
        for room in ("dermedge", "edge_app")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not LEFT_OUT & set(path.parents)
    }
    assert needed - {"md", "pot"} - endings == set()
