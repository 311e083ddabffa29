"""What a page gets: the state of the address, the studies it names, and the views to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import plotly.graph_objects as go

from moalign.errors import StoreError
from moalign.figures import FrontView, StudyView
from moalign_dashboards.library import Library
from moalign_dashboards.state import State


@final
@dataclass(frozen=True, eq=False)
class Context:
    """Everything a page may look at.

    Attributes:
        library, state: the studies, and the address.
        study: the one that is looked at.
        votes: file that blind votes are added to.
    """

    library: Library
    state: State
    study: StudyView
    votes: Path

    @cached_property
    def overlays(self) -> tuple[FrontView, ...]:
        """Views of the studies to lay over the first, those with the same objectives."""
        views = []
        for name in self.state.overlays:
            try:
                study = self.library.view(name)
            except StoreError:
                continue  # deleted meanwhile
            if study.view is not None and study.objectives == self.study.objectives:
                views.append(study.view)
        return tuple(views)

    @cached_property
    def whole(self) -> FrontView:
        """All finished policies of the study."""
        if self.study.view is None:
            raise StoreError(f"Study '{self.study.name}' has no evaluated policies yet.")
        return self.study.view

    @cached_property
    def shown(self) -> FrontView:
        """The finished policies that the selection leaves."""
        selected = self.state.selected
        return self.whole if selected is None else self.whole.subset(selected)

    @cached_property
    def views(self) -> tuple[FrontView, ...]:
        """What the selection leaves of the study, and the overlays."""
        return (self.shown, *self.overlays)

    @cached_property
    def row_of(self) -> Mapping[int, int]:
        """Trial -> position in `whole`."""
        return {trial: row for row, trial in enumerate(self.whole.trials)}

    def link(self, path: str | None = None, **changes: str | int | None) -> str:
        """Returns the address of a neighbouring state."""
        return self.state.link(path, **changes)


Draw = Callable[[Context], go.Figure]
Fill = Callable[[Context], Any]


@final
@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: a fixed arrangement of named figures and panels, and what fills them.

    Attributes:
        path, name: address and title.
        about: one sentence below the title.
        layout: the arrangement; it must not depend on options of the address.
        figures, panels: what fills the graphs and panels, by name.
        needs_front: whether there is nothing to arrange before a policy is evaluated.
    """

    path: str
    name: str
    about: str
    layout: Callable[[Context], Sequence[Any]]
    figures: Mapping[str, Draw] = field(default_factory=dict)
    panels: Mapping[str, Fill] = field(default_factory=dict)
    needs_front: bool = True
