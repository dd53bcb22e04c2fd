"""`edge_app.i18n.formats` in a browser: catalogues as JSON, numbers by the browser's own Intl."""

from __future__ import annotations

import gettext
import json
from pathlib import Path

from js import Intl, Object
from pyodide.ffi import to_js


class JsonCatalogue(gettext.NullTranslations):
    """{"plural": the catalogue's rule in C, "messages": {English: translation, or its forms}}."""

    def __init__(self, content: dict):
        super().__init__()
        self._messages = content["messages"]
        self._form = gettext.c2py(content["plural"])

    def gettext(self, message: str) -> str:
        found = self._messages.get(message, message)
        return found if isinstance(found, str) else found[0]

    def ngettext(self, one: str, many: str, count: int) -> str:
        forms = self._messages.get(one)
        if isinstance(forms, list):
            return forms[self._form(count)]
        return one if count == 1 else many


def catalogue(path: Path) -> gettext.NullTranslations:
    return JsonCatalogue(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


def number(value: float, digits: int, language: str) -> str:
    return _format(value, language, minimumFractionDigits=digits, maximumFractionDigits=digits)


def percent(value: float, language: str) -> str:
    return _format(value, language, style="percent", maximumFractionDigits=0)


def _format(value: float, language: str, **options: object) -> str:
    # Half to even, as Babel rounds.
    options["roundingMode"] = "halfEven"
    made = to_js(options, dict_converter=Object.fromEntries)
    # Latin digits in Arabic, as the app writes them.
    name = f"{language}-u-nu-latn"
    return Intl.NumberFormat.new(name, made).format(float(value))
