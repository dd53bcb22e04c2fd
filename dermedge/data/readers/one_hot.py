"""Truth tables with one column per class, of which one holds a 1."""

from __future__ import annotations

from collections.abc import Iterable

from dermedge.data.readers.gathering import Gathering
from dermedge.data.records import short
from dermedge.data.tables import Row, Table

ONE = frozenset({"1", "1.0", "1,0"})
ZERO = frozenset({"0", "0.0", "0,0"})


def code_of(
    g: Gathering, table: Table, row: Row, codes: Iterable[str], otherwise: str | None = None
) -> str | None:
    """The code whose column holds the 1, `otherwise` where none does.

    None where that is counted as a row without a label, or the row noted as an error.
    """
    hot = []
    for code in codes:
        cell = row.cells.get(code.lower(), "0")
        if cell in ONE:
            hot.append(code)
        elif cell not in ZERO:
            g.errors.append(
                f"{table.where(row)}: column {code} holds '{short(cell)}', 0 or 1 is expected"
            )
            return None
    if len(hot) > 1:
        g.errors.append(f"{table.where(row)}: a 1 in more than one class: {', '.join(hot)}")
        return None
    if not hot and otherwise is None:
        g.count(f"rows of {short(table.path.name)} with a 1 in no class, left without a label")
    return hot[0] if hot else otherwise
