"""The one list of classes that every data set is mapped to.

The seven classes of HAM10000 (Tschandl et al., Sci. Data 5, 2018, doi:10.1038/sdata.2018.161),
squamous cell carcinoma, and everything else.
"""

from __future__ import annotations

import re

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "scc", "other")

TITLES = {
    "akiec": "actinic keratosis / Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
    "scc": "squamous cell carcinoma",
    "other": "other or unknown",
}

# Actinic keratosis / Bowen's disease is a precursor or in-situ carcinoma: a screening programme
# wants it seen, so it counts as malignant here, in every data set alike.
MALIGNANT = frozenset({"akiec", "bcc", "mel", "scc"})

# Codes that data sets use instead of words: HAM10000 and the ISIC challenges, PAD-UFES-20 (ACK,
# SEK, NEV), Dermofit (ML: mole, IEC: intraepithelial carcinoma, PYO: pyogenic granuloma).
_CODES = {
    **{name: name for name in CLASSES},
    "ack": "akiec",
    "ak": "akiec",
    "iec": "akiec",
    "lichenoid": "bkl",
    "lk": "bkl",
    "lplk": "bkl",
    "ml": "nv",
    "nev": "nv",
    "pbk": "bkl",
    "pyo": "vasc",
    "sccka": "scc",
    "sek": "bkl",
    "sk": "bkl",
}

# Taken in this order, each match is cut out before the next rule looks: an in-situ squamous cell
# carcinoma is Bowen's disease, and a nevus flammeus is a vessel, not a melanocytic nevus.
_WORDS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (
            r"squamous cell carcinoma in ?situ|in ?situ squamous cell carcinoma|\bbowens?\b( s\b)?"
            r"|intraepi(thelial|dermal) (squamous cell )?carcinoma|(solar or )?actinic keratos[ei]s"
            r"|solar keratos[ei]s",
            "akiec",
        ),
        (r"squamous cell carcinoma|keratoacanthoma", "scc"),
        (r"basal cell (carcinoma|epithelioma)", "bcc"),
        (r"\w*lentigo maligna( melanoma)?|melanomas?\b", "mel"),
        (
            r"seborr?h?o?eic keratos[ei]s|(solar|actinic|senile) lentig\w+"
            r"|lichenoid (benign )?keratos[ei]s|lichen planus like keratos[ei]s"
            r"|benign (lichenoid )?keratos[ei]s",
            "bkl",
        ),
        (
            r"na?ev(us|i) (flammeus|araneus)|(spider|strawberry) na?ev(us|i)|port wine stain"
            r"|\b(h(a)?em)?angiomas?\b|\bangiokeratomas?\b|pyogenic granulomas?|venous lake"
            r"|h(a)?emorrhage|vascular (lesions?|tumou?rs?)|proliferations vascular",
            "vasc",
        ),
        (
            r"na?ev(us|i) (sebac\w+|comedonicus|depigmentosus|an(a)?emicus|lipomatosus)"
            r"|(sebaceous|epidermal|becker s?|connective tissue) na?ev(us|i)",
            "other",
        ),
        (r"\bna?ev(us|i)\b|\bmoles?\b", "nv"),
        (r"\bdermatofibromas?\b|benign fibrous histiocytoma", "df"),
    )
)

# "and other malignant lesions", "non-melanoma", "nevus vs melanoma": no statement of one class.
_VAGUE = re.compile(
    r"\b(non|nonmelanoma|not|no|other|others|vs|versus|mimics?|suspected|possible)\b"
)


def to_class(diagnosis: str) -> str:
    """Map a data set's own code or words to one of `CLASSES`; 'other' where none fits surely.

    Words that name two classes ("Melanoma Skin Cancer Nevi and Moles") are 'other'. So are a
    lentigo that is not called solar, melanosis, and atypical melanocytic proliferations: they
    belong to none of the classes of HAM10000.
    """
    text = " ".join(re.sub(r"[^a-z0-9]+", " ", diagnosis.lower()).split())
    if text in _CODES:
        return _CODES[text]
    if _VAGUE.search(text):
        return "other"
    found = set()
    for pattern, name in _WORDS:
        text, matches = pattern.subn(" ", text)
        if matches:
            found.add(name)
    # An angiosarcoma is filed under "malignant ... vascular": malignant, so no class of ours.
    if len(found) != 1 or (found == {"vasc"} and "malignant" in text):
        return "other"
    return found.pop()
