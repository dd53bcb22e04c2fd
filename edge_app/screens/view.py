"""What every screen has in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kivy.app import App
from kivy.lang import Builder
from kivy.uix.screenmanager import Screen

from edge_app.capture.shots import Snapshot
from edge_app.session import Session


class View(Screen):
    """A screen. `App.go(name, **values)` calls `show(**values)`; what is left gets `hide()`.

    A view is built again where language, theme or size of type change: what must last is in the
    app's session, or in the values that it was shown with.
    """

    ground = "page"  # style; the window is cleared to it, which costs less than a rectangle
    operator = False  # only for who may see people and settings
    unlocked = False  # only with an open store
    live = False  # shows the live picture: `update` is called for it

    @classmethod
    def needs(cls, *_args: Any, **_values: Any) -> tuple[bool, bool]:
        """Whether it is for operators, and needs an open store, with these values for `show`."""
        return cls.operator, cls.unlocked

    @classmethod
    def over(cls, session: Session, **_values: Any) -> bool:
        """Whether there is nothing any more that it could show with these values."""
        return False

    def show(self, *_args: Any, **_values: Any) -> None:
        """Fill it; it is on the screen from now on."""

    def hide(self) -> None:
        """It is not on the screen any more."""

    def update(self, snapshot: Snapshot, before: Snapshot) -> None:
        """Show the worker's news, with those shown before."""

    def keep(self) -> bool:
        """Save what was typed and has no button for it; whether nothing of that is lost."""
        return True

    def may_leave(self) -> bool:
        """Whether `App.back` may leave it; if not, it has gone back a step of its own, or asks."""
        return True

    def seat(self, *_args: object) -> None:
        """`stage` goes into `beside`, or, where there is no room for both, to the top of `line`."""
        stage, line = self.ids.stage.__self__, self.ids.line
        stage.parent.remove_widget(stage)
        if self.app.portrait:
            line.add_widget(stage, len(line.children))
        else:
            self.ids.beside.add_widget(stage)

    def key(self, code: int) -> bool:
        """A key that nobody else took; whether it meant something."""
        return False

    @property
    def app(self) -> Any:
        return App.get_running_app()


def load_kv(module: str) -> None:
    """Load the `.kv` beside a screen's `.py`."""
    Builder.load_file(str(Path(module).with_suffix(".kv")))
