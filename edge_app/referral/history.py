"""What a dermatologist wants to know of a lesion and a person, as questions with yes or no.

After DermNet's list for teledermatology of suspected skin cancer (2017). The codes of these
questions are in `edge_app.referral.codes`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_app.i18n.language import N_


@dataclass(frozen=True)
class Question:
    """One question that is answered by yes or no, or left open."""

    words: str
    group: str  # of GROUPS


GROUPS = {
    "lesion": N_("What the person says of the spot"),
    "palpation": N_("What is felt"),
    "seen": N_("What is seen by whoever takes the picture"),
    "own": N_("The person's own history"),
    "family": N_("Parents, brothers, sisters and children"),
}
QUESTIONS = {
    "changed": Question(N_("Has it changed?"), "lesion"),
    "grown": Question(N_("Has it grown?"), "lesion"),
    "shape": Question(N_("Has its shape changed?"), "lesion"),
    "color": Question(N_("Has its colour changed?"), "lesion"),
    "bleeding": Question(N_("Does it bleed?"), "lesion"),
    "itching": Question(N_("Does it itch?"), "lesion"),
    "painful": Question(N_("Does it hurt?"), "lesion"),
    "peeling": Question(N_("Does it peel?"), "lesion"),
    "red": Question(N_("Is it red?"), "lesion"),
    "open": Question(N_("Is it an open sore, or does it not heal?"), "lesion"),
    "raised": Question(N_("Is it raised?"), "palpation"),
    "firm": Question(N_("Is it firm?"), "palpation"),
    "mobile": Question(N_("Can it be moved with the skin?"), "palpation"),
    "seen_bleeding": Question(N_("Is blood seen on it?"), "seen"),
    "seen_red": Question(N_("Is redness seen on or around it?"), "seen"),
    "own_melanoma": Question(N_("Melanoma before?"), "own"),
    "own_in_situ": Question(N_("Melanoma in situ before?"), "own"),
    "own_skin_cancer": Question(N_("Skin cancer other than melanoma before?"), "own"),
    "many_moles": Question(N_("More than 50 moles?"), "own"),
    "atypical_moles": Question(N_("Atypical moles?"), "own"),
    "sunburns": Question(N_("Sunburns in childhood?"), "own"),
    "sunbeds": Question(N_("Sunbeds?"), "own"),
    "outdoor_work": Question(N_("Work outdoors?"), "own"),
    "weak_immune": Question(N_("A weak immune system?"), "own"),
    "family_melanoma": Question(N_("Melanoma in the family?"), "family"),
    "family_in_situ": Question(N_("Melanoma in situ in the family?"), "family"),
    "family_skin_cancer": Question(N_("Skin cancer other than melanoma in the family?"), "family"),
}
ONSETS = {
    "weeks": N_("in the last weeks"),
    "months": N_("one to twelve months ago"),
    "years": N_("more than a year ago"),
    "birth": N_("since birth or childhood"),
    "unknown": N_("not known"),
}
# Risk factors of a person in the store that answer a question by themselves.
FROM_RISK_FACTORS = {
    "own melanoma": "own_melanoma",
    "melanoma in the family": "family_melanoma",
    "more than 50 moles": "many_moles",
    "atypical moles": "atypical_moles",
    "sunburns in childhood": "sunburns",
    "sunbeds": "sunbeds",
    "work outdoors": "outdoor_work",
    "weak immune system": "weak_immune",
}
