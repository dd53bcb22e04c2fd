"""The skin type after Fitzpatrick (Arch. Dermatol. 124, 1988, p. 869), by ten questions.

Fitzpatrick's types say how skin reacts to the sun. The questions and their scoring are those that
ARPANSA, Australia's radiation protection agency, publishes ("Fitzpatrick skin phototype"): each
answer gives 0 to 4 points, their sum the type. The words are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_app.i18n.language import N_


@dataclass(frozen=True)
class Question:
    """A question and its five answers, which give 0 to 4 points."""

    text: str
    answers: tuple[str, str, str, str, str]


QUESTIONS = (
    Question(
        N_("What colour are the eyes?"),
        (
            N_("Light blue, light green or light grey"),
            N_("Blue, green or grey"),
            N_("Dark blue, dark green or hazel"),
            N_("Dark brown"),
            N_("Almost black"),
        ),
    ),
    Question(
        N_("What was the natural colour of the hair in youth?"),
        (
            N_("Red"),
            N_("Blond"),
            N_("Dark blond or chestnut"),
            N_("Dark brown hair"),
            N_("Black"),
        ),
    ),
    Question(
        N_("What colour is the skin where the sun never gets to it?"),
        (
            N_("Pink"),
            N_("Very pale"),
            N_("Light brown or olive"),
            N_("Brown"),
            N_("Dark brown skin"),
        ),
    ),
    Question(
        N_("How many freckles are there where the sun never gets to the skin?"),
        (N_("Many"), N_("Several"), N_("A few"), N_("Hardly any"), N_("None")),
    ),
    Question(
        N_("What happens after too long in the sun?"),
        (
            N_("A severe burn with blisters, the skin peels"),
            N_("A burn, some blisters, the skin peels"),
            N_("Sometimes a burn, then the skin peels"),
            N_("Rarely a burn"),
            N_("Never a burn"),
        ),
    ),
    Question(
        N_("Does the skin turn brown after a day in the sun?"),
        (N_("Never"), N_("Rarely"), N_("Sometimes"), N_("Often"), N_("Always")),
    ),
    Question(
        N_("How brown does it get?"),
        (
            N_("Hardly or not at all"),
            N_("Lightly tanned"),
            N_("Clearly tanned"),
            N_("Darkly tanned"),
            N_("Very darkly tanned"),
        ),
    ),
    Question(
        N_("How does the face take the sun?"),
        (
            N_("Very sensitive"),
            N_("Sensitive"),
            N_("A little sensitive"),
            N_("It bears much"),
            N_("It never minds"),
        ),
    ),
    Question(
        N_("How often is the skin tanned on purpose?"),
        (N_("Never"), N_("Rarely"), N_("Sometimes"), N_("Often"), N_("Always")),
    ),
    Question(
        N_("When was the skin last in the sun or on a sunbed on purpose?"),
        (
            N_("More than three months ago"),
            N_("Two to three months ago"),
            N_("One to two months ago"),
            N_("In the last weeks"),
            N_("In the last days"),
        ),
    ),
)
MOST = 4  # points for one answer
LIMITS = (6, 13, 20, 27, 34)  # the most points of types 1 to 5
NAMES = ("I", "II", "III", "IV", "V", "VI")
TITLES = (
    N_("Always burns, never tans"),
    N_("Burns easily, tans little"),
    N_("Sometimes burns, tans slowly"),
    N_("Rarely burns, tans well"),
    N_("Very rarely burns, tans darkly"),
    N_("Never burns, always dark"),
)


def score(answers: Sequence[int]) -> int:
    """Sum of the points, 0..40.

    Raises
    ------
    ValueError : not one answer for each of QUESTIONS, or points beside 0..4.
    """
    if len(answers) != len(QUESTIONS) or not all(answer in range(MOST + 1) for answer in answers):
        raise ValueError(f"{len(QUESTIONS)} answers of 0 to {MOST} points are needed")
    return sum(answers)


def skin_type(answers: Sequence[int]) -> int:
    """The type, 1..6; raises ValueError as `score` does."""
    points = score(answers)
    return 1 + sum(points > limit for limit in LIMITS)
