"""Adding and changing records, and setting the dates of pictures right."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import time

from edge_app.i18n.language import N_, Message
from edge_app.store import audit, clock, schema, validation
from edge_app.store.basics import is_date
from edge_app.store.damage import LeaveOut, pass_over, stop, without_damage
from edge_app.store.erasing import Erasing
from edge_app.store.file import StoreFile
from edge_app.store.records import (
    BY_CLOCK,
    CLOCK_WRONG,
    CORRECTED,
    GIVEN,
    RECORD,
    UNKNOWN,
    Capture,
    DermoscopeSettings,
    StoreError,
)
from edge_app.store.referrals import StoredAnswer
from edge_app.store.rows import Rows
from edge_app.store.trail import Trail

# What of a capture only the store itself sets.
FIXED = ("taken", "dating", "clock", "origin", "sequence", "version")
DAY = (time(0), time(12), time(23, 59, 59))  # its first moment, noon and its last one


class Changes:
    """What is typed in, validated and written. Each method may be called from any thread."""

    def __init__(self, file: StoreFile, trail: Trail, rows: Rows, erasing: Erasing):
        self._file, self._trail, self._rows, self._erasing = file, trail, rows, erasing

    def validate(self, item) -> None:
        """Raises StoreError for what makes no sense now."""
        validation.validate(item, clock.now(), self._trail.head().seen)

    def add(self, table: str, item):
        """A new row; returns it with its new id."""
        item = replace(item, id=os.urandom(16).hex())
        self.validate(item)
        with self._file.writing() as connection:
            self._rows.insert(connection, table, item, None)
        return item

    def add_capture(self, item: Capture, picture: bytes) -> Capture:
        """As `Store.add_capture`."""
        item = replace(
            item,
            id=os.urandom(16).hex(),
            taken=item.taken or clock.now(),
            dating=GIVEN if item.taken else item.dating,
            clock="",
            origin=self._file.keys.origin,
            sequence=0,
            version=schema.analysis_version(),
        )
        self.validate(item)
        sealed = self._rows.sealed_blob("capture", item.id, picture)
        self._erasing.make_room(2 * len(picture))  # in the log, and then in its place
        with self._file.writing() as connection:
            head = audit.note_clock(connection, self._file.keys, clock.now())
            item = replace(item, sequence=head.number + 1)  # of its entry in the audit trail
            if head.wrong and item.dating == BY_CLOCK:
                item = replace(item, dating=CLOCK_WRONG)
            elif head.wrong and item.dating == UNKNOWN:  # it was added after that
                item = replace(item, taken=head.seen or item.taken)
            self._rows.insert(connection, "capture", item, sealed)
            self._rows.summarise_one_more(connection, item)
        return item

    def update(self, table: str, item) -> None:
        self.validate(item)
        with self._file.writing() as connection:
            old = self._rows.one(connection, table, item.id)
            if table == "capture" and any(getattr(old, n) != getattr(item, n) for n in FIXED):
                words = N_("when a picture was taken is changed by its date alone")
                raise StoreError(words, code="invalid")
            self._rows.put(connection, table, item, f"update {table}")
            if table == "capture":
                self._rows.summarise(connection, {old.lesion, item.lesion})
        self._erasing.tidy()

    def dermoscope(self, leave_out: LeaveOut = stop) -> DermoscopeSettings:
        """As `Store.dermoscope`."""
        with without_damage(Message(N_("what is said of the dermoscope")), leave_out):
            try:
                return DermoscopeSettings(**(self._file.setting("dermoscope") or {}))
            except TypeError:
                raise StoreError(RECORD, code="record") from None
        return DermoscopeSettings()

    def set_dermoscope(self, settings: DermoscopeSettings) -> None:
        """As `Store.set_dermoscope`."""
        self.validate(settings)
        with self._file.writing() as connection:
            self._file.keep_setting(connection, "dermoscope", vars(settings))
            self._trail.log(connection, "set dermoscope")

    def correct_date(self, capture_id: str, day: str) -> Capture:
        """As `Store.correct_date`."""
        try:
            hours = [clock.on(day, hour) for hour in DAY] if is_date(day) else []
        except ValueError:
            hours = []
        if not hours:
            raise StoreError("a picture needs a date", code="invalid")
        with self._file.writing() as connection:
            old = self._rows.one(connection, "capture", capture_id)
            taken = self._placed(connection, old, *hours)
            if old.dating in (GIVEN, UNKNOWN):
                new = replace(old, taken=taken, dating=GIVEN)
            else:
                new = replace(old, taken=taken, dating=CORRECTED, clock=old.clock or old.taken)
            self._rows.put(connection, "capture", new, "date capture")
            self._rows.summarise(connection, {new.lesion})
        self._erasing.tidy()
        return new

    def _placed(self, connection, old: Capture, low: str, noon: str, high: str) -> str:
        """A time of that day in between the captures before and after it; raises StoreError.

        One from a file may be older than those that were added before it.
        """
        now, from_file = clock.now(), old.dating in (GIVEN, UNKNOWN)
        chain = [
            one
            for one in self._rows.of_lesion(connection, old.lesion)
            if one.origin == old.origin and one.dated and one.dating != GIVEN and not from_file
        ]
        before = [one.taken for one in chain if one.sequence < old.sequence]
        after = [one.taken for one in chain if one.sequence > old.sequence]
        if not clock.fault(now, audit.head(connection, self._file.keys).seen):
            after.append(now)
        first = max([low, *before], key=clock.moment)
        last = min([high, *after], key=clock.moment)
        if clock.moment(first) > clock.moment(last):
            raise StoreError(
                "the picture was taken after {before} and before {after}: choose a day in between",
                code="order",
                before=clock.local_day(max(before)) if before else "-",
                after=clock.local_day(min(after)) if after else "-",
            )
        return min(max(noon, first, key=clock.moment), last, key=clock.moment)

    def confirm_clock(self) -> None:
        """As `Store.confirm_clock`."""
        keys = self._file.keys
        with self._file.writing() as connection:
            now = clock.now()
            wrong = clock.words(now)
            if wrong is not None:
                raise StoreError(wrong, code="clock")
            head = audit.head(connection, keys)
            audit.write_head(connection, keys, replace(head, seen=now, wrong=""))
            self._trail.log(connection, "confirm clock")
            touched, limit = set(), clock.moment(now) + clock.TOLERANCE
            # A damaged one is shown nowhere, nor is its date.
            for item in self._rows.within(connection, "capture"):
                by_clock = item.dating in (BY_CLOCK, UNKNOWN) and item.origin == keys.origin
                if by_clock and clock.moment(item.taken) > limit:
                    if item.dating == UNKNOWN:  # it was added by now
                        marked = replace(item, taken=now)
                    else:
                        marked = replace(item, dating=CLOCK_WRONG)
                    self._rows.put(connection, "capture", marked, "date capture")
                    touched.add(item.lesion)
            self._rows.summarise(connection, touched)
            for table in ("parcel", "answer"):
                for item in self._rows.within(connection, table):
                    if item.dated and item.received and clock.moment(item.received) > limit:
                        marked = replace(item, dated=False)
                        self._rows.put(connection, table, marked, f"date {table}")
                        if table == "answer" and item.wants_better_picture:
                            with without_damage("", pass_over):
                                self._bring_forward(connection, item, now)
        self._erasing.tidy()

    def _bring_forward(self, connection, answer: StoredAnswer, now: str) -> None:
        """What it made due on the day of a clock that was ahead is due today."""
        referral = self._rows.one(connection, "referral", answer.referral)
        lesion = self._rows.one(connection, "lesion", referral.lesion)
        if lesion.remind == clock.local_day(answer.received):
            due = replace(lesion, remind=clock.local_day(now))
            self._rows.put(connection, "lesion", due, "update lesion")
