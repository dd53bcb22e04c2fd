"""Names in results that measuring and reporting share."""

from __future__ import annotations

BENCH = "dermedge bench 4"
EVALUATION = "dermedge evaluation 4"
# Of earlier versions, see `benchmarks.schema.renamed`.
OLD_EVALUATIONS = ("dermedge evaluation 2", "dermedge evaluation 3")
ROBUSTNESS = "dermedge robustness 1"
PHONE = "dermedge phone 1"
QUALITY = "dermedge quality 1"  # "dermedge gate 1" of version 0.1.0 has other names

NETWORKS = "networks of the bundle"
OTSU = "Otsu threshold"
OTSU_METHOD = (
    "blue channel, Gaussian blur of 2.4 % of the long side, corners left out, Otsu's threshold, "
    "the component with most weight near the centre, holes filled"
)
SECOND_RATER = "second person who drew"
COLOUR = "colour statistics + logistic regression"

# Of one analysis, in their order; the last is the whole.
STAGES = ("decode", "prepare", "segmenter", "classifier", "lesion", "quality", "total")

TITLES = {
    "jaccard": "Jaccard",
    "threshold_jaccard": "Jaccard, thresholded at 0.65",
    "dice": "Dice",
    "sensitivity": "Sensitivity of pixels",
    "specificity": "Specificity of pixels",
    "accuracy": "Accuracy of pixels",
    "pooled_jaccard": "Jaccard, pixels pooled",
    "pooled_dice": "Dice, pixels pooled",
    "malignant_auc": "AUC, malignant or not",
    "malignant_average_precision": "Average precision, malignant",
    "malignant_sensitivity": "Sensitivity at “see a doctor”",
    "malignant_specificity": "Specificity at “see a doctor”",
    "urgent_sensitivity": "Sensitivity at “urgent”",
    "urgent_specificity": "Specificity at “urgent”",
    "specificity_at_95": "Specificity at sensitivity 0.95 of this part",
    "malignant_brier": "Brier score, malignant or not",
    "melanoma_auc": "AUC, melanoma against the rest",
    "macro_auc": "AUC, mean over classes",
    "balanced_accuracy": "Balanced accuracy, most probable class",
    "likely_balanced_accuracy": "Balanced accuracy, class that is named",
    "class_accuracy": "Accuracy, most probable class",
    "brier": "Brier score, classes",
    "ece": "Expected calibration error",
}
# Of groups of people. Fewer pictures of a kind (malignant ones, benign ones, outlines) than the
# minimum judge nothing: there, one picture more or less moves a share by 0.05 and more.
GROUP_MEASURES = ("jaccard", "malignant_auc", "malignant_sensitivity", "malignant_specificity")
GROUP_MINIMUM = 20
# Figures of a bundle that stand beside those of others, by task.
HEADLINES = {"segmentation": ("jaccard",), "classification": ("malignant_auc", "macro_auc")}

WHOLE = "all"  # the group of all pictures
EXECUTION_MEASURES = {
    **{name: TITLES[name] for name in ("jaccard", "malignant_auc", "likely_balanced_accuracy")},
    "auc": "AUC, this class against the rest",
    "sensitivity": "Share of this class that is named so",
    "same_advice": "Share that gets the same advice as by the first",
}

# Levels of a corruption that lie before the unchanged picture in a plot; 0 where not named.
LEVELS_BEFORE_UNCHANGED = {"light": 3, "cast": 2}
