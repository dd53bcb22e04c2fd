"""Codes of DICOM and SNOMED CT for what a referral says. All are read from pydicom's tables of
PS3.16; what has no standard code gets one of the private scheme 99DERMEDGE, which is declared in
every instance that uses it. None is invented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dermedge.taxonomy import TITLES as CLASSES
from edge_app.referral.form import Findings
from edge_app.referral.uids import CODES

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

SCHEME = "99DERMEDGE"
SCHEME_NAME = "dermedge private codes"
# PS3.16 Annex 8: what FHIR calls the schemes that DICOM names.
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    "UMLS": "http://www.nlm.nih.gov/research/umls",
    SCHEME: CODES,
}
BETTER_PICTURE = ("110531", "DCM")  # Insufficient quality for interpretation, CID 9303


class Private(NamedTuple):
    """A code of 99DERMEDGE."""

    value: str
    meaning: str  # at most 64 characters, English


PRIVATE = {
    "risk": Private("risk", "Estimated risk of a malignant lesion, for research"),
    "advice": Private("advice", "Advice of the model, for research"),
    "low": Private("low", "Low risk"),
    "see a doctor": Private("see-doctor", "Raised risk: see a doctor"),
    "urgent": Private("urgent", "High risk: see a doctor soon"),
    "retake": Private("retake", "No estimate: the picture cannot be judged"),
    "asymmetry": Private("asymmetry", "Asymmetry points of the ABCD rule, 0 to 2"),
    "border": Private("border", "Border points of the ABCD rule, 0 to 8"),
    "color": Private("color", "Colour points of the ABCD rule, 1 to 6"),
    "blue-gray": Private("blue-gray", "Blue-gray"),
    "skin-type": Private("skin-type", "Skin type after Fitzpatrick"),
    **{
        f"skin-type-{n}": Private(f"skin-type-{n}", f"Skin type {name}")
        for n, name in enumerate(("I", "II", "III", "IV", "V", "VI"), 1)
    },
    "onset": Private("onset", "Since when the lesion is there"),
    "onset-weeks": Private("onset-weeks", "In the last weeks"),
    "onset-months": Private("onset-months", "One to twelve months ago"),
    "onset-years": Private("onset-years", "More than a year ago"),
    "onset-birth": Private("onset-birth", "Since birth or childhood"),
    "onset-unknown": Private("onset-unknown", "Not known"),
    "grown": Private("grown", "Lesion has grown, as the person says"),
    "shape": Private("shape", "Shape of the lesion has changed, as the person says"),
    "color-changed": Private("color-changed", "Colour of the lesion has changed, by the person"),
    "open": Private("open", "Open sore, or does not heal, as the person says"),
    "many-moles": Private("many-moles", "More than 50 moles"),
    "atypical-moles": Private("atypical-moles", "Atypical moles"),
    "sunburns": Private("sunburns", "Sunburns in childhood"),
    "sunbeds": Private("sunbeds", "Sunbeds"),
    "outdoor-work": Private("outdoor-work", "Work outdoors"),
    "weak-immune": Private("weak-immune", "Weak immune system"),
    "priority": Private("priority", "Priority of the referral"),
    "priority-routine": Private("priority-routine", "Routine"),
    "priority-urgent": Private("priority-urgent", "Urgent"),
    "priority-asap": Private("priority-asap", "As soon as possible"),
    "history-lesion": Private("history-lesion", "Lesion, as the person says"),
    "history-palpation": Private("history-felt", "Lesion, by palpation"),
    "history-seen": Private("history-seen", "Lesion, as seen by the photographer"),
    "history-own": Private("history-own", "Own history"),
    "history-family": Private("history-family", "Family history"),
    **{
        f"class-{name}": Private(f"class-{name}", f"Probability: {CLASSES[name]}")
        for name in CLASSES
    },
}

# Body map to CID 4029 (keywords of pydicom). Where it has no code of that name, the nearest
# broader one: shoulders, flanks and fingers have none, nor has the whole sole.
_SITES = {
    "SkinOfVertexOfScalp": ("top of the head",),
    "SkinOfForehead": ("forehead",),
    "SkinOfNose": ("nose",),
    "SkinOfLip": ("lips",),
    "SkinOfChin": ("chin",),
    "SkinOfEyeRegion": ("left eye", "right eye"),
    "SkinOfCheek": ("left cheek", "right cheek"),
    "SkinOfEar": ("left ear", "right ear", "back of the left ear", "back of the right ear"),
    "SkinOfAnteriorPortionOfNeck": ("neck, front",),
    "SternalSkin": ("breastbone",),
    "SkinOfUpperExtremity": (
        "left shoulder, front",
        "right shoulder, front",
        "left shoulder, back",
        "right shoulder, back",
    ),
    "SkinOfAnteriorSurfaceOfThorax": ("left side of the chest", "right side of the chest"),
    "SkinOfUpperAbdomen": ("left upper abdomen", "right upper abdomen"),
    "SkinOfLowerAbdomen": ("left lower abdomen", "right lower abdomen"),
    "SkinOfAbdomen": ("left flank", "right flank"),
    "SkinOfExternalGenitalia": ("genital area",),
    "SkinOfAnteriorSurfaceOfUpperArm": ("left upper arm, front", "right upper arm, front"),
    "SkinOfAntecubitalFossa": ("left elbow, front", "right elbow, front"),
    "SkinOfAnteriorSurfaceOfForearm": ("left forearm, front", "right forearm, front"),
    "SkinOfPalmOfHand": ("left palm", "right palm"),
    "SkinOfDigitOfHand": (
        "left fingers, front",
        "right fingers, front",
        "left fingers, back",
        "right fingers, back",
    ),
    "SkinOfAnteriorSurfaceOfThigh": ("left thigh, front", "right thigh, front"),
    "SkinOfAnteriorSurfaceOfKnee": ("left knee", "right knee"),
    "SkinOfAnteriorSurfaceOfLowerLeg": ("left lower leg, front", "right lower leg, front"),
    "SkinOfFoot": ("left foot", "right foot", "left sole", "right sole"),
    "SkinOfToe": ("left toes", "right toes"),
    "SkinOfOccipitalRegion": ("back of the head",),
    "SkinOfNuchalRegion": ("neck, back",),
    "SkinOfPosteriorSurfaceOfThorax": (
        "left upper back",
        "right upper back",
        "upper back, along the spine",
    ),
    "SkinOfLowerBack": ("left lower back", "right lower back", "lower back, along the spine"),
    "SkinOfButtock": ("left buttock", "right buttock"),
    "SkinOfPosteriorSurfaceOfUpperArm": ("left upper arm, back", "right upper arm, back"),
    "SkinOfPosteriorSurfaceOfElbow": ("left elbow, back", "right elbow, back"),
    "SkinOfPosteriorSurfaceOfForearm": ("left forearm, back", "right forearm, back"),
    "SkinOfPartOfDorsalSurfaceOfHand": ("back of the left hand", "back of the right hand"),
    "SkinOfPosteriorSurfaceOfThigh": ("left thigh, back", "right thigh, back"),
    "SkinOfPoplitealFossa": ("hollow of the left knee", "hollow of the right knee"),
    "SkinOfPosteriorSurfaceOfLowerLeg": ("left calf", "right calf"),
    "SkinOfHeel": ("left heel", "right heel"),
}
SITES = {region: keyword for keyword, regions in _SITES.items() for region in regions}

# (context group or scheme, keyword) of a question; the others are private.
_QUESTIONS: dict[str, tuple[int | str, str]] = {
    "changed": (4406, "SymptomHasChanged"),
    "bleeding": (4406, "BleedingSkin"),
    "itching": (4406, "Itching"),
    "painful": (4406, "PainfulSkin"),
    "peeling": (4406, "Peeling"),
    "red": (4406, "Erythema"),
    "raised": (4407, "RaisedSkinLesion"),
    "firm": (4407, "FirmSkinLesion"),
    "mobile": (4407, "MobileSkinLesion"),
    "seen_bleeding": (4408, "BleedingSkin"),
    "seen_red": (4408, "Erythema"),
    "own_melanoma": (4402, "HistoryOfMalignantMelanomaOfTheSkin"),
    "own_in_situ": (4403, "HistoryOfMelanomaInSituOfTheSkin"),
    "own_skin_cancer": ("DCM", "HistoryOfNonMelanomaSkinCancer"),
    "family_melanoma": ("SCT", "FamilyHistoryOfMalignantMelanoma"),
    "family_in_situ": ("DCM", "FamilyHistoryOfMelanomaInSitu"),
    "family_skin_cancer": ("DCM", "FamilyHistoryOfNonMelanomaSkinCancer"),
}
_COLORS = {  # CID 4411
    "white": "White",
    "red": "Red",
    "light brown": "Brown",
    "dark brown": "Brown",
    "black": "Black",
}


def standard(group: int | str, keyword: str) -> Code:
    """A code of a context group (its CID) or of a scheme, by pydicom's keyword.

    Raises
    ------
    AttributeError : there is none.
    """
    from pydicom.sr.codedict import codes

    return getattr(getattr(codes, f"cid{group}" if isinstance(group, int) else group), keyword)


def private(name: str) -> Code:
    """One of PRIVATE as a code; raises KeyError for another."""
    from pydicom.sr.coding import Code

    return Code(PRIVATE[name].value, SCHEME, PRIVATE[name].meaning)


def site(region: str) -> Code:
    """The code of CID 4029 for a region of the body map; KeyError where it has none."""
    return standard(4029, SITES[region])


def laterality(region: str) -> str:
    """L or R; U where there is one of it."""
    words = region.split()
    return "L" if "left" in words else "R" if "right" in words else "U"


def side(region: str) -> Code | None:
    """Left or right as a code of CID 244; None where there is one of it."""
    name = {"L": "Left", "R": "Right"}.get(laterality(region))
    return None if name is None else standard(244, name)


def question(key: str) -> Code:
    """The code of a question of the history."""
    if key in _QUESTIONS:
        return standard(*_QUESTIONS[key])
    return private("color-changed" if key == "color" else key.replace("_", "-"))


def color(name: str) -> Code:
    """One of dermedge.lesion.features.COLORS; CID 4411 has no blue-gray."""
    return standard(4411, _COLORS[name]) if name in _COLORS else private(name)


def yes_no(value: bool) -> Code:
    """Of CID 230."""
    return standard(230, "Yes" if value else "No")


def measures(found: Findings) -> dict[str, float]:
    """Private code: what the model measured, of a picture that it could judge."""
    if not found.judged:
        return {}
    numbers = {
        "risk": found.malignancy,
        **{f"class-{name}": value for name, value in found.probabilities},
        "asymmetry": found.asymmetry,
        "border": found.border,
        "color": found.color,
    }
    return {name: value for name, value in numbers.items() if value is not None}
