"""A definition is recognised when it is described again: in another process, folder or layout of the code."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.errors import DefinitionError
from moalign.store import describe, differences, fingerprint


class Kind(Enum):
    SIGMOID = "sigmoid"
    HINGE = "hinge"


@dataclass(frozen=True, kw_only=True)
class Objective:
    name: str
    reward: Any = None


@dataclass(frozen=True, kw_only=True)
class Method:
    beta: float = 0.1
    kind: Kind = Kind.SIGMOID


@dataclass(frozen=True, kw_only=True)
class OtherMethod:
    beta: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Study:
    method: Any = Method()
    objectives: tuple[Objective, ...] = ()
    weights: Any = None
    label: str = field(default="", metadata={"fingerprint": False})


@dataclass(frozen=True)
class LengthReward:
    target: int

    def __call__(self, prompts: list[str], responses: list[str]) -> list[float]:
        return [-abs(len(r) - self.target) for r in responses]


class Remembered:
    """Describes itself by a number."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __fingerprint__(self) -> Any:
        return {"value": self.value}


class Unknown:
    def score(self, prompts: list[str], responses: list[str]) -> list[float]:
        return [0.0 for _ in responses]


def length(prompts: list[str], responses: list[str]) -> list[float]:
    return [len(r) for r in responses]


@functools.lru_cache
def cached_length(text: str) -> int:
    return len(text)


@torch.no_grad()
def decorated_length(prompts: list[str], responses: list[str]) -> list[float]:
    return length(prompts, responses)


def scaled(function: Any, factor: float) -> Any:
    @functools.wraps(function)
    def wrapper(*texts: Any) -> list[float]:
        return [factor * value for value in function(*texts)]

    return wrapper


def made(factor: float) -> Any:
    def inner(prompts: list[str], responses: list[str]) -> list[float]:
        return [factor * len(r) for r in responses]

    return inner


HERE = str(describe(length)["@callable"]).split(":")[0]  # type: ignore[index,call-overload]


def load(path: Path, source: str) -> Any:
    """Imports a file as the command line does with a study file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    spec = importlib.util.spec_from_file_location(f"loaded_{abs(hash(path))}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


REWARD = """
    def reward(prompts, responses):
        return [len(r) for r in responses]
"""


class TestEqualDefinitionsAreRecognised:
    def test_a_rebuilt_study_has_the_same_fingerprint_also_through_json(self) -> None:
        def build() -> Study:
            return Study(objectives=(Objective(name="a", reward=length),), weights=np.eye(2))

        first = describe(build())
        assert fingerprint(first) == fingerprint(describe(build())) == fingerprint(json.loads(json.dumps(first)))

    def test_order_of_keys_and_kind_of_sequence_do_not_count(self) -> None:
        assert fingerprint(describe({"a": 1, "b": (1, 2)})) == fingerprint(describe({"b": [1, 2], "a": 1}))
        assert describe({3, 1, 2}) == describe(frozenset({2, 3, 1}))

    def test_a_field_may_be_left_out(self) -> None:
        assert describe(Study(label="x")) == describe(Study(label="y"))

    def test_paths_are_their_text(self) -> None:
        assert describe(Path("models") / "base") == describe("models/base") == "models/base"

    def test_numpy_scalars_are_the_numbers_they_hold(self) -> None:
        assert describe([np.float64(0.1), np.int64(3), np.bool_(True)]) == [0.1, 3, True]

    def test_numbers_that_json_lacks_are_texts(self) -> None:
        assert describe([math.nan, math.inf, -math.inf]) == ["nan", "inf", "-inf"]

    def test_the_same_file_in_another_folder_with_other_comments_is_the_same(self, tmp_path: Path) -> None:
        commented = """
            # another comment
            def reward(prompts,   responses):   # and one here

                return [ len(r)  for r in responses ]
        """
        here, there = load(tmp_path / "a" / "hh.py", REWARD), load(tmp_path / "b" / "hh.py", commented)
        assert describe(here.reward) == describe(there.reward)
        assert describe(here.reward)["@callable"] == "hh.py:reward"  # type: ignore[index,call-overload]

    def test_a_study_file_run_as_a_script_is_the_same_as_imported(self, tmp_path: Path) -> None:
        source = "from moalign.store import describe, fingerprint\n" + textwrap.dedent(REWARD)
        source += "if __name__ == '__main__':\n    print(fingerprint(describe(reward)))\n"
        module = load(tmp_path / "hh.py", source)
        printed = subprocess.run([sys.executable, tmp_path / "hh.py"], capture_output=True, text=True, check=True)
        assert printed.stdout.strip() == fingerprint(describe(module.reward))

    def test_package_functions_and_builtins_have_their_module(self) -> None:
        assert describe(textwrap.dedent)["@callable"] == "textwrap.py:dedent"  # type: ignore[index,call-overload]
        assert describe(json.dumps)["@callable"] == "json:dumps"  # type: ignore[index,call-overload]
        assert describe(len) == {"@callable": "builtins:len"}
        assert describe(str.strip) == {"@callable": "builtins:str.strip"}
        assert describe(np.exp) == {"@callable": "numpy:exp"}

    def test_decorated_functions_of_a_file_are_known_by_their_name(self) -> None:
        for function in (cached_length, decorated_length):
            assert str(describe(function)["@callable"]).startswith(f"{HERE}:")  # type: ignore[index,call-overload]

    def test_the_same_object_twice_is_no_circle(self) -> None:
        shared = [1]
        assert describe([shared, shared]) == [[1], [1]]


class TestDifferentDefinitionsDiffer:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (1, True),
            ("1", 1),
            (None, "None"),
            (b"a", b"b"),
            (Kind.SIGMOID, Kind.HINGE),
            (Method(), OtherMethod()),
            (np.zeros(2), np.zeros(3)),
            (np.zeros(2), np.zeros(2, dtype=np.float32)),
            (np.zeros((2, 3)), np.zeros((3, 2))),
            (np.array([1.0, 2.0]), np.array([2.0, 1.0])),
            (torch.zeros(2), torch.ones(2)),
            (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
            (length, cached_length),
            (functools.partial(made, factor=1), functools.partial(made, factor=2)),
            (LengthReward(3), LengthReward(4)),
            (Remembered(1), Remembered(2)),
            ({"@type": "x"}, {"type": "x"}),
            ({"@enum": f"{HERE}:Kind.SIGMOID"}, Kind.SIGMOID),
            ([1, [2]], [[1], 2]),
            ("x".join, "y".join),
        ],
    )
    def test_pairs(self, one: Any, other: Any) -> None:
        assert fingerprint(describe(one)) != fingerprint(describe(other))

    def test_the_smallest_change_of_a_float_counts(self) -> None:
        assert describe(0.1) != describe(math.nextafter(0.1, 1))

    def test_changed_code_counts_also_behind_call_and_decorators(self, tmp_path: Path) -> None:
        source = """
            import functools
            from dataclasses import dataclass
            def scale(by):
                def decorate(f):
                    @functools.wraps(f)
                    def inner(*texts):
                        return by * f(*texts)
                    return inner
                return decorate
            @scale(2)
            def reward(prompts, responses):
                return 1.0
            @dataclass(frozen=True)
            class Reward:
                def __call__(self, prompts, responses):
                    return 1.0
        """
        before = load(tmp_path / "1" / "hh.py", source)
        code, decorator = source.replace("return 1.0", "return 2.0"), source.replace("@scale(2)", "@scale(3)")
        after, rescaled = load(tmp_path / "2" / "hh.py", code), load(tmp_path / "3" / "hh.py", decorator)
        assert describe(before.Reward()) != describe(after.Reward())
        assert describe(before.reward) != describe(after.reward)
        assert describe(before.reward) != describe(rescaled.reward)
        assert describe(before.Reward()) == describe(rescaled.Reward())

    def test_non_contiguous_views_are_described_by_their_content(self) -> None:
        table = np.arange(6.0).reshape(2, 3)
        assert describe(table.T) == describe(table.T.copy()) != describe(table)
        assert describe(torch.from_numpy(table).T) == describe(torch.from_numpy(table.T.copy()))
        assert describe(table.astype(">f8"))["sha256"] == describe(table)["sha256"]  # type: ignore[index,call-overload]

    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=4)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    )

    @settings(max_examples=30, deadline=None)
    @given(values, values)
    def test_plain_values_have_equal_fingerprints_only_if_equal(self, one: Any, other: Any) -> None:
        equal = repr_sorted(one) == repr_sorted(other)
        assert (fingerprint(describe(one)) == fingerprint(describe(other))) is equal
        assert bool(differences(describe(one), describe(other))) is not equal


def repr_sorted(value: Any) -> str:
    """A second, independent canonical form: Python's own repr with sorted dictionaries."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{repr_sorted(value[k])}" for k in sorted(value)) + "}"
    return "[" + ",".join(map(repr_sorted, value)) + "]" if isinstance(value, list) else repr(value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (lambda p, r: r, "is a lambda: it cannot be recognised"),
            (made(2.0), "keeps 'factor' from the place it was made"),
            (Unknown(), "is a Unknown, which cannot be compared"),
            ({1: "a"}, "has the key 1"),
            (np.array([object()]), "array of Python objects"),
            (torch.zeros(2, device="meta"), "without plain values"),
        ],
    )
    def test_the_field_path_and_the_reason_are_named(self, value: Any, words: str) -> None:
        objectives = (Objective(name="a"), Objective(name="b"), Objective(name="c", reward=value))
        with pytest.raises(DefinitionError) as caught:
            describe(Study(objectives=objectives))
        assert "objectives[2].reward" in str(caught.value)
        assert words in str(caught.value)

    def test_a_wrapper_made_by_hand_is_not_taken_for_the_function_inside(self) -> None:
        """`functools.wraps` gives the wrapper the name of the function, but not its behaviour."""
        with pytest.raises(DefinitionError, match="keeps a decorator from the place it was made"):
            describe(scaled(length, 2.0))

    def test_methods_of_unknown_objects_are_refused_and_of_known_ones_not(self) -> None:
        with pytest.raises(DefinitionError, match="__self__ is a Unknown"):
            describe(Unknown().score)
        assert describe(LengthReward(3).__call__) != describe(LengthReward(4).__call__)

    def test_all_problems_are_collected(self) -> None:
        rewards = [lambda: 0, length, Unknown(), made(1.0)]
        with pytest.raises(DefinitionError) as caught:
            describe(Study(objectives=tuple(Objective(name=str(i), reward=r) for i, r in enumerate(rewards))))
        assert [p.split()[0] for p in caught.value.problems] == [f"objectives[{i}].reward" for i in (0, 2, 3)]

    def test_an_object_that_contains_itself_is_refused(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        with pytest.raises(DefinitionError, match="contains itself"):
            describe(circle, name="circle")

    def test_the_fingerprint_of_something_else_than_json_is_refused(self) -> None:
        with pytest.raises(DefinitionError, match="plain JSON"):
            fingerprint({"x": math.nan})


class TestDifferences:
    def compare(self, old: Any, new: Any, **options: int) -> list[str]:
        return differences(json.loads(json.dumps(describe(old))), describe(new), **options)

    def test_a_number(self) -> None:
        assert self.compare(Study(), Study(method=Method(beta=0.03))) == ["method.beta: 0.1 -> 0.03"]

    def test_a_name_in_a_list_and_an_added_entry(self) -> None:
        old = Study(objectives=(Objective(name="a"), Objective(name="b")))
        new = Study(objectives=(Objective(name="a"), Objective(name="c"), Objective(name="d")))
        added = f"objectives[2]: added {HERE}:Objective"
        assert self.compare(old, new) == ['objectives[1].name: "b" -> "c"', added]
        assert self.compare(new, old)[1] == added.replace("added", "removed")

    def test_another_type_is_one_line_not_one_per_field(self) -> None:
        line = f"method: {HERE}:Method -> {HERE}:OtherMethod"
        assert self.compare(Study(), Study(method=OtherMethod(beta=9.0))) == [line]

    def test_enums_arrays_functions_and_keys(self) -> None:
        old, new = Study(weights=np.zeros((2, 3))), Study(weights=np.ones((2, 3)), method=Method(kind=Kind.HINGE))
        kind, weights = self.compare(old, new)
        assert kind == f'method.kind: "{HERE}:Kind.SIGMOID" -> "{HERE}:Kind.HINGE"'
        assert weights.startswith("weights: float64[2, 3] ") and len(weights) < 70
        assert self.compare({"a": 1, "@b": 2}, {"@b": 3, "c": 4}) == ["@b: 2 -> 3", "a: removed 1", "c: added 4"]
        function, cached = f"{HERE}:length", f"{HERE}:cached_length"
        assert self.compare([length], [cached_length]) == [f"[0]: {function} -> {cached}"]
        assert self.compare(functools.partial(made, 1.0), functools.partial(made, 2.0)) == ["args[0]: 1.0 -> 2.0"]

    def test_changed_code(self, tmp_path: Path) -> None:
        old = load(tmp_path / "1" / "hh.py", REWARD)
        new = load(tmp_path / "2" / "hh.py", REWARD.replace("len(r)", "-len(r)"))
        line = "objectives[0].reward: the code of hh.py:reward changed"
        assert self.compare(*(Study(objectives=(Objective(name="a", reward=m.reward),)) for m in (old, new))) == [line]

    def test_equal_definitions_have_none(self) -> None:
        assert self.compare(Study(), replace(Study(), label="x")) == []

    def test_at_most_twenty_and_the_count_of_the_rest(self) -> None:
        lines = self.compare(list(range(50)), list(range(1, 51)))
        assert len(lines) == 21
        assert lines[0] == "[0]: 0 -> 1"
        assert lines[-1] == "and 30 more differences"

    def test_long_values_are_shortened(self) -> None:
        (line,) = self.compare({"a": "x" * 500}, {"a": "y" * 500})
        assert len(line) < 140
