"""Sending a spot to a dermatologist, in four steps: pictures, history, question, what leaves."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from kivy.properties import BooleanProperty, StringProperty

from edge_app import sending
from edge_app.i18n.language import N_, _
from edge_app.referral.draft import Draft
from edge_app.screens.send_history import HistoryStep
from edge_app.screens.send_pictures import PicturesStep
from edge_app.screens.send_preview import PreviewStep
from edge_app.screens.send_question import QuestionStep
from edge_app.screens.send_step import SendStep
from edge_app.screens.view import View, load_kv
from edge_app.sending import Prepared
from edge_app.store.referrals import StoredReferral
from edge_app.store.store import Person, Store

STEPS: tuple[type[SendStep], ...] = (PicturesStep, HistoryStep, QuestionStep)
NOBODY = N_("Nobody is entered yet to whom it could be sent. Enter a receiver in the settings.")


class SendScreen(View):
    """Of `session.lesion`. One entry of the trail: each step replaces the one before."""

    operator = unlocked = True
    title = StringProperty()
    action = StringProperty()
    ready = BooleanProperty(False)  # the foot's button may be pressed
    prepared: Prepared | None = None  # what is seen in the last step
    _draft: Draft | None = None
    _shown: SendStep | None = None

    def show(
        self, captures: Collection[str] = (), draft: Draft | None = None, step: int = 0
    ) -> None:
        """`captures` : ids of the pictures to send; none: those that are proposed."""
        self._draft, self._step, self.prepared = draft, step, None
        self._clear()
        self.title, self.action = _("Send to a dermatologist"), _("Next")
        self.ids.page.to_top()
        store, session = self.app.session.opened(), self.app.session
        if draft is None:
            lesion = session.lesion
            leave_out = session.leave_out
            self.app.work(lambda: sending.begin(store, lesion.id, captures, leave_out), self._begun)
            return
        person = session.person
        if person is not None and person.id == draft.person.id:
            draft.person = person  # its form may have been open meanwhile
        if step < len(STEPS):
            self._shown = STEPS[step](self.app, draft, self._changed)
            self.ids.list.add_widget(self._shown)
            self._changed()
        else:
            self.action = _("Send")
            now = datetime.now().astimezone()
            self.app.work(
                lambda: sending.prepare(store, draft, now), self._preview, _("Preparing.")
            )

    def hide(self) -> None:
        self._clear()
        self._draft = self.prepared = None

    def _clear(self) -> None:
        self.ready, self._shown = False, None
        self.ids.list.clear_widgets()

    def may_leave(self) -> bool:
        if self._draft is None or self._step == 0:
            return True
        self.app.replace("send", draft=self._draft, step=self._step - 1)
        return False

    def _begun(self, draft: Draft) -> None:
        if not draft.destinations:
            self.app.back(sure=True)
            self.app.tell(_(NOBODY))
        else:
            self.app.replace("send", draft=draft)

    def _changed(self) -> None:
        """Something was chosen or typed."""
        self.ready = self._shown is not None and not self._shown.fault()

    def act(self) -> None:
        """What the foot's button does: the next step, or off it goes."""
        draft, store, step = self._draft, self.app.session.opened(), self._step
        if draft is None:
            return
        if step >= len(STEPS):
            self._queue(store, draft)
            return
        if self._shown is not None and (fault := self._shown.fault()):
            self.app.tell(fault)
            return

        lasting = draft.lasting()

        def kept(person: Person) -> None:
            draft.person = person
            if self.app.session.person is not None:
                self.app.session.person = person
            self.app.replace("send", draft=draft, step=step + 1)

        self.app.work(lambda: sending.remember(store, lasting), kept, writes=True)

    # ------------------------------------------------------------------------ the last step

    def _preview(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.ids.list.add_widget(PreviewStep(self.app, prepared))
        self.ready = prepared.ready

    def _queue(self, store: Store, draft: Draft) -> None:
        prepared = self.prepared
        if prepared is None or not prepared.ready:
            return
        self.ready = False

        def queued(stored: StoredReferral) -> None:
            if self.app.session.sender is not None:
                self.app.session.sender.nudge()
            self.app.replace("referral", id=stored.id)
            self.app.tell(_("Queued. It is sent as soon as the line allows."))

        def failed(message: str) -> None:
            self.ready = True
            self.app.tell(message)

        self.app.work(
            lambda: sending.queue(store, draft, prepared),
            queued,
            _("Putting it into the outbox."),
            failed,
            writes=True,
        )


load_kv(__file__)
