"""A person's number, read from a QR code or barcode by the camera."""

from __future__ import annotations

from functools import partial

from kivy.properties import StringProperty

import edge_app.ui.picture_view  # noqa: F401  the .kv names its class
from edge_app.capture.barcodes import read_code
from edge_app.capture.processing import PREVIEW_SIDE
from edge_app.capture.shots import Snapshot
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.referral.draft import Draft
from edge_app.screens.view import View, load_kv


class ScanScreen(View):
    """Puts the number into the draft, and goes back."""

    operator = unlocked = live = True
    ground = "stage"
    fault = StringProperty()  # of the camera
    _draft: Draft | None = None

    def show(self, draft: Draft) -> None:
        self._draft, self._reading = draft, False
        self.app.worker.live(True)
        self.update(self.app.worker.snapshot(), Snapshot())

    def hide(self) -> None:
        self.app.worker.live(False)
        self.ids.picture.show(None)
        self._draft = None

    def update(self, snapshot: Snapshot, before: Snapshot) -> None:
        """Show the live picture; look for a code in one frame after the other."""
        picture = self.ids.picture
        self.app.worker.preview_side = min(PREVIEW_SIDE, max(64, round(max(picture.size))))
        if snapshot.preview is not before.preview:
            picture.show(snapshot.preview)
        self.fault = language.sentence(_(snapshot.fault)) if snapshot.fault else ""
        # A camera that hangs shows a label that may be somebody else's by now.
        if snapshot.offered is not None and not self._reading:
            self._reading = True
            read = partial(read_code, snapshot.offered.pixels)
            self.app.work(read, self._read, failed=self._failed)

    def _failed(self, _message: str) -> None:
        self._reading = False

    def _read(self, number: str | None) -> None:
        self._reading = False
        if number is None or self._draft is None:
            return
        self._draft.identifier = number
        self.app.back()
        self.app.tell(_("Read: {number}. Compare it with the label.", number=number))


load_kv(__file__)
