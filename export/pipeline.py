"""The way from trained runs to the contents of a bundle, stage by stage.

Each stage is a function of frozen results of those before it. A classifier that is fed with crops
needs the segmenter's graph, so the stages are gone through network by network.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dermedge import UserError
from dermedge.bundle.bundle import Bundle, open_bundle
from export import ExportError
from export.acceptance.accept import accept
from export.bundle.assemble import Contents, FinishedNetwork, assemble
from export.bundle.lend import lend
from export.calibration.calibrate import calibrate
from export.graph.onnx_graph import export_graph
from export.options import ExportOptions
from export.quantization.candidates import make_candidates
from export.quantization.int8 import refuse_few
from export.runs.load import TrainedNetwork, load_networks
from export.runs.prior import with_prior
from export.thresholds.choose import choose_thresholds
from export.validation.prepared import Crop
from export.validation.validate import validate


def export_runs(
    folders: Sequence[str | Path],
    name: str,
    options: ExportOptions | None = None,
    lender: Bundle | None = None,
) -> Contents:
    """Calibrate, export and measure a segmenter and a classifier, a multitask network, or one.

    Parameters
    ----------
    folders : their run folders, in any order.
    name : what the bundle calls itself.
    options : what else is asked for; default: FP32 alone.
    lender : a bundle that the network for a missing role is taken from.

    Returns
    -------
    The manifest, and the parts for `dermedge.bundle.bundle.write_bundle`. Nothing is written.

    Raises
    ------
    UserError
        In one line: two runs for one role, splits that let one network be tested on what the
        other was trained on, a validation part that thresholds cannot be chosen on, or a graph
        that differs from its network.
    """
    options = options or ExportOptions()
    networks = load_networks(folders, options.weights, can_crop=lender is not None)
    if options.similar and not any("classifier" in network.roles for network in networks):
        raise ExportError("--similar needs the run of a classifier, which finds them")
    if "int8" in options.precisions:
        for network in networks:
            # Not after an hour, in which the other network's INT8 is made.
            refuse_few(len(network.records("train")), f"{network.run.folder}: ")
    if options.prior:
        networks = _under_prior(networks, options)
    lent = lend(lender, networks) if lender else None
    crop = lent.crop if lent else None
    finished: list[FinishedNetwork] = []
    for network in networks:
        if network.recipe.crop_by:
            one = finished[0] if finished else lent
            assert one is not None
            _warn_of_other_crops(network, *one.outlines)
        finished.append(finish(network, crop, options))
        crop = finished[-1].crop
    return assemble(finished, name, options, lent)


def _under_prior(
    networks: Sequence[TrainedNetwork], options: ExportOptions
) -> tuple[TrainedNetwork, ...]:
    if not any("classifier" in network.roles for network in networks):
        raise ExportError("--prior needs the run of a classifier: a segmenter has no classes")
    return tuple(
        with_prior(network, options.prior, options.carried)
        if "classifier" in network.roles
        else network
        for network in networks
    )


def _warn_of_other_crops(network: TrainedNetwork, graph: bytes, threshold: float) -> None:
    """A line unless this segmenter places crops as the one that did in training."""
    path, folder = network.recipe.crop_by, network.run.folder
    try:
        bundle = open_bundle(path)
    except UserError:
        bundle = None
    if bundle is None or network.run.teachers.get(path) != bundle.sha256:
        line = (
            f"{path}, whose segmenter placed the crops that {folder} learnt from, is gone or "
            "another bundle by now: whether the segmenter here places them alike is not known"
        )
    else:
        theirs = bundle.part(bundle.manifest.models["segmenter"].part)
        if theirs == graph and bundle.manifest.thresholds.mask == threshold:
            return
        line = (
            f"{folder} learnt from crops that the segmenter of {path} placed, and the one here is "
            "another: the device's crops are others. All figures are of these; for those of the "
            f"training give --with {path}, and no run of a segmenter"
        )
    print(f"warning: {line}", file=sys.stderr)


def finish(network: TrainedNetwork, crop: Crop | None, options: ExportOptions) -> FinishedNetwork:
    """All stages of one network; `crop` finds the lesion in a picture."""
    validation = validate(network, crop, options.other_precisions)
    calibration = calibrate(validation)
    thresholds = choose_thresholds(validation, calibration)
    exported = export_graph(validation, calibration)
    candidates = make_candidates(exported, validation, thresholds, options)
    accepted = accept(candidates, validation, thresholds)
    return FinishedNetwork(validation, calibration, exported, accepted)
