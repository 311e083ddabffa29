"""The words of a page as one component: each component costs time whenever anything happens, each element does not."""

from __future__ import annotations

from typing import Any, ClassVar, final

from dash import dcc
from dash.development.base_component import Component

_ELEMENTS = "dash_html_components"


@final
class Words(Component):  # type: ignore[misc]
    """Elements that the browser shows as they are; assets/dashboard.js builds them.

    One with an id is updated in place: what has the focus keeps it, and what was unfolded stays so.

    Args:
        id: of what is updated.
        tree: texts, and elements as [tag, attributes, *children].
    """

    _namespace = "moalign_dashboards"
    _type = "Words"
    _prop_names: ClassVar[list[str]] = ["id", "tree"]
    _valid_wildcard_attributes: ClassVar[list[str]] = []
    available_wildcard_properties: ClassVar[list[str]] = []


@final
class Field(Component):  # type: ignore[misc]
    """A field to type into, which the elements of dash leave out; a script listens to it, no callback does.

    Args:
        type, step, placeholder: of the element.
        key: what it is known by, so that it stays when others come and go.
    """

    _namespace = _ELEMENTS
    _type = "Input"
    _prop_names: ClassVar[list[str]] = ["type", "step", "placeholder", "key"]
    _valid_wildcard_attributes: ClassVar[list[str]] = ["data-", "aria-"]
    available_wildcard_properties: ClassVar[list[str]] = ["data-", "aria-"]


def words(content: Any) -> list[Any]:
    """Returns the same content in few components: what nobody calls back becomes `Words`, graphs and fields remain."""
    parts: list[Any] = []
    still: list[Any] = []
    for item in _listed(content):
        if _is_still(item):
            still.append(_element(item))
            continue
        if still:
            parts.append(Words(tree=still))
            still = []
        if item._namespace == _ELEMENTS and getattr(item, "children", None) is not None:
            item.children = words(item.children)
        parts.append(item)
    return [*parts, Words(tree=still)] if still else parts


def tree(content: Any) -> list[Any]:
    """Returns content for the `tree` of one component.

    Raises:
        TypeError: something in it is more than words, such as a graph.
    """
    for item in _listed(content):
        if not _is_still(item):
            raise TypeError(f"{item!r} holds more than words and cannot be updated in place.")
    return [_element(item) for item in _listed(content)]


def _listed(content: Any) -> list[Any]:
    if content is None:
        return []
    return list(content) if isinstance(content, (list, tuple)) else [content]


def _is_still(item: Any) -> bool:
    if not isinstance(item, Component):
        return True
    if not (item._namespace == _ELEMENTS or isinstance(item, dcc.Link)) or isinstance(getattr(item, "id", None), dict):
        return False
    return all(_is_still(child) for child in _listed(getattr(item, "children", None)))


def _element(item: Any) -> Any:
    if not isinstance(item, Component):
        return item if item is None or isinstance(item, str) else str(item)
    attributes = dict(item.to_plotly_json()["props"])
    children = [_element(child) for child in _listed(attributes.pop("children", None))]
    if isinstance(item, dcc.Link):
        return ["a", {**attributes, "data-inside": ""}, *children]
    return [item._type.lower(), attributes, *children]
