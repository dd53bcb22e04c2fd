"""How smoothly the running app works: frames shown, stalls of the UI thread, shutter to result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kivy.clock import Clock
from kivy.core.window import Window
from tqdm import tqdm

from dermedge import UserError
from edge_app.app import DermedgeApp
from edge_app.store.store import Lesion, Person

WARM_UP = 3.0  # s after the first analysis that are not measured
PER_PERSON = 50  # captures
SAMPLE_EVERY = 25  # captures
STALL_MS = 50.0  # the UI thread may not be away for longer


class Meter:
    """Drives a running app: `seconds` of live picture, then as many captures as `captures` says.

    The UI thread's round is cut in four: `work` (our callbacks, touches, layout), `draw` (Kivy's
    OpenGL calls), `flip` (the swap of buffers: where Mesa draws in software without a GPU, its
    drawing) and rest. A stall is a round without its rest: so long nothing answers a touch.

    With `soak` the captures go to a new store, in between all screens are opened, and after each
    PER_PERSON captures the person is deleted, as on a device that is used for long.
    """

    def __init__(self, app: DermedgeApp, seconds: float, captures: int = 0, soak: bool = False):
        self.fault = "the app ended too early"
        self._app, self._seconds, self._captures = app, seconds, captures
        self._marks: list[tuple[float, ...]] = []
        self._numbers: list[tuple[float, int]] = []  # when which frame was shown
        self._soak = soak
        self._state: list[tuple[int, float, int, int]] = []
        self._waits: list[float] = []
        self._live: tuple[float, float, int] | None = None
        self._script: Iterator[Callable[[], Any]] = iter(())
        app.bind(on_start=self._begin)

    def _begin(self, _) -> None:
        idle, flip, worker = Clock.idle, Window.flip, self._app.worker
        shown = [0]
        round_ = {"woke": 0.0, "draw": 0.0, "flip": 0.0, "done": 0.0}

        def timed_idle():
            start = time.perf_counter()
            if round_["woke"]:
                drew = round_["draw"] or start
                flipped, done = round_["flip"] or drew, round_["done"] or drew
                self._marks.append((round_["woke"], drew, flipped, done, start))
            result = idle()
            round_.update(woke=time.perf_counter(), draw=0.0, flip=0.0, done=0.0)
            return result

        def timed_flip():
            round_["flip"] = time.perf_counter()
            flip()
            round_["done"] = time.perf_counter()
            frame = worker.snapshot().frame
            if frame is not None and frame.number != shown[0]:
                shown[0] = frame.number
                self._numbers.append((round_["done"], frame.number))

        def drawing(_window):
            round_["draw"] = time.perf_counter()

        self._untimed = (idle, flip)
        Clock.idle, Window.flip = timed_idle, timed_flip
        Window.bind(on_draw=drawing)
        self._script = self._walk()
        self._until = next(self._script)
        Clock.schedule_interval(self._step, 0)

    def _step(self, _) -> None:
        if self._until():
            try:
                self._until = next(self._script)
            except StopIteration:
                self._app.stop()

    def _walk(self) -> Iterator[Callable[[], Any]]:
        app, worker, session = self._app, self._app.worker, self._app.session
        session.agree()
        app.go("live")
        self.fault = "no live picture was analysed"
        yield lambda: worker.snapshot().analysis is not None
        app.screen.auto = False  # the pictures are taken here
        ready = time.perf_counter() + WARM_UP
        yield lambda: time.perf_counter() >= ready
        self.fault = "the live picture was not measured to its end"
        start, analysed = time.perf_counter(), worker.snapshot().analysed
        yield lambda: time.perf_counter() >= start + self._seconds
        self._live = (start, time.perf_counter(), worker.snapshot().analysed - analysed)
        if self._soak:
            session.create("for the test alone")
        # The live part alone is cut into rounds: hours of them would look like a leak.
        Clock.idle, Window.flip = self._untimed
        for number in tqdm(range(self._captures), disable=not self._soak):
            if self._soak and number % PER_PERSON == 0:
                if session.person:
                    session.delete_person(session.person.id)
                person = session.save_person(Person("", "code"))
                session.save_lesion(Lesion("", person.id, "a place"))
            if self._soak and number % SAMPLE_EVERY == 0:
                self._state.append((number, *_resources()))
                yield from self._leaf()
            self.fault = "a picture was not captured"
            session.begin(session.lesion)
            app.touch()  # else it locks itself after a while
            app.replace("live")
            app.screen.auto = False
            yield lambda: worker.snapshot().analysis is not None
            pressed = time.perf_counter()
            app.take_picture()
            yield lambda: app.here == "result" or session.refused
            if session.refused:
                self.fault = session.refused
                return
            self._waits.append((time.perf_counter() - pressed) * 1000)
        if self._soak:
            session.opened().check()
        self.fault = ""

    def _leaf(self) -> Iterator[Callable[[], Any]]:
        """Through the screens of people and spots, as between two visits."""
        app, person, lesion = self._app, self._app.session.person, self._app.session.lesion
        for name in ("people", "person", "lesion", "settings", "home"):
            app.session.person, app.session.lesion = person, lesion
            app.replace(name)
            yield partial(_reached, time.perf_counter() + 0.2)
        app.session.person, app.session.lesion = person, lesion

    def report(self) -> dict:
        """The figures; ms where a name says so."""
        assert self._live is not None
        start, end, analyses = self._live
        rounds = np.array([mark for mark in self._marks if start <= mark[0] <= end])
        parts = np.diff(rounds, axis=1) * 1000
        work, draw, flip, rest = parts.T
        busy = (rounds[:, 4] - rounds[:, 0]) * 1000
        shown = np.array([when for when, _ in self._numbers if start <= when <= end])
        report = {
            "seconds": round(end - start, 1),
            "window": list(Window.system_size),
            "frames_shown_per_second": round(len(shown) / (end - start), 1),
            "longest_gap_between_frames_ms": round(float(np.diff(shown).max()) * 1000, 1),
            "stall_ms": _spread(busy),
            "stalls_over_50_ms": int((busy > STALL_MS).sum()),
            "work_ms": _spread(work + rest),
            "draw_ms": _spread(draw),
            "flip_ms": _spread(flip),
            "analyses_per_second": round(analyses / (end - start), 1),
        }
        if self._waits:
            report["shutter_to_result_ms"] = _spread(np.array(self._waits))
        if len(self._state) > 2:
            number, memory, threads, handles = np.array(self._state).T
            later = number >= number[-1] / 4  # pools and caches fill at first
            slope = np.polyfit(number[later], memory[later], 1)[0] * 1000
            report |= {
                "captures": len(self._waits),
                "memory_mib": memory.round(1).tolist(),
                "memory_mib_per_1000_captures": round(float(slope), 2),
                "threads": threads.astype(int).tolist(),
                "handles": handles.astype(int).tolist(),
            }
        return report


def _reached(moment: float) -> bool:
    return time.perf_counter() >= moment


def _resources() -> tuple[float, int, int]:
    """Resident memory in MiB, threads, open handles of this process."""
    if sys.platform != "linux":
        raise UserError("--soak counts memory and handles in /proc: it needs Linux")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
    )


def _spread(values: np.ndarray) -> dict[str, float]:
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    figures = {"p50": p50, "p90": p90, "p99": p99, "max": values.max()}
    return {name: round(float(value), 1) for name, value in figures.items()}
