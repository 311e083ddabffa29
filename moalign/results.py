"""From a study's records back to its front. Reads the store only; a model is loaded when a policy generates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, StoreError
from moalign.front import Front, front_of_records
from moalign.store import StudyStore, is_complete, verify
from moalign.store import load_generations as load_generations

if TYPE_CHECKING:
    from moalign.data.prompt_text import PromptText
    from moalign.evaluation import Judged
    from moalign.methods.serving import Selection
    from moalign.policy.adapters import AdapterStack
    from moalign.policy.model import Policy

ADAPTER = "adapter"
POLICIES = "policies"  # folder of the trained adapters where trials are served by mixing or conditioning them


@final
@dataclass(frozen=True, eq=False)
class StoredPolicy:
    """A trained policy as it lies in a study's folder: exports and generates.

    Attributes:
        records: the study's store.
        trial: its number.
        base: the base policy; None reads its folder from the study.
        keep: whatever must live as long as the policy (the folder of a run without a store).
    """

    records: StudyStore
    trial: int
    base: Policy | None = None
    keep: Any = None

    @property
    def folder(self) -> Path:
        """The PEFT adapter folder, its checksums verified.

        Raises:
            StoreError: the trial has no finished adapter.
        """
        found = self.records.trial_folder(self.trial)
        if not is_complete(found):
            raise StoreError(f"Trial {self.trial} of study {self.records.name!r} has no finished policy to use.")
        verify(found)
        return found / ADAPTER

    @property
    def text(self) -> PromptText | None:
        """What is written around every prompt of this policy, if anything."""
        from moalign.data.prompt_text import PromptText

        text = trial_config(self.records, self.trial).get("prompt_text")
        return None if text is None else PromptText(**text)

    @property
    def generations(self) -> list[dict[str, Any]]:
        """What the policy answered when it was evaluated, one row per sample.

        Raises:
            StoreError: a line that is not JSON; names it.
        """
        return load_generations(self.records, self.trial)

    def adapter(self, model: Any) -> AdapterStack:
        """Returns the adapter as a stack of one on the base model."""
        from moalign.policy.adapters import AdapterStack
        from moalign.policy.export import load_adapter, lora_of

        folder = self.folder
        return load_adapter(folder, AdapterStack.initial(model, lora_of(folder), 1, seed=0))

    def export(self, folder: str | Path) -> Path:
        """Writes an ordinary PEFT adapter with model card and manifest; returns the folder."""
        from moalign.publish import export_policy

        return export_policy(self.records, self.trial, Path(folder))

    def generate(self, prompts: str | Sequence[Any], *, samples: int = 1, seed: int = 0, **sampling: Any) -> list[Any]:
        """Returns `samples` texts for one prompt, or a list of such lists for several.

        Args:
            prompts: one prompt or several.
            samples: responses per prompt.
            seed: of the random numbers.
            sampling: max_new_tokens, temperature, top_p (see `Sampling`).
        """
        from moalign.data.prompt_text import PromptText

        base = self.base or base_policy(self.records)
        return _generate(base, self.adapter, self.text or PromptText(), prompts, samples, seed, sampling)


@final
@dataclass(frozen=True, eq=False)
class ServedPolicy:
    """What serves weights that the study did not evaluate: a mixture, or a conditioned policy.

    Attributes:
        records: the study's store.
        selection: which adapters, and how.
        base, keep: as in `StoredPolicy`.
        judged: what its samples on the held-out prompts showed; None if it was not measured.
    """

    records: StudyStore
    selection: Selection
    base: Policy | None = None
    keep: Any = None
    judged: Judged | None = None

    @property
    def how(self) -> str:
        return self.selection.how

    @property
    def weights(self) -> FloatArray:
        """The preference weights it serves [objectives]."""
        return self.selection.weights

    @property
    def values(self) -> FloatArray:
        """Expected rewards [objectives]."""
        return self._measured().values

    @property
    def standard_errors(self) -> FloatArray:
        """Of the values [objectives]."""
        return self._measured().standard_errors

    @property
    def kl(self) -> float:
        """KL to the reference policy, nats per completion."""
        return self._measured().kl

    @property
    def kl_standard_error(self) -> float:
        return self._measured().kl_standard_error

    @property
    def columns(self) -> dict[str, float]:
        """Side columns, such as mean_tokens."""
        return self._measured().columns

    def _measured(self) -> Judged:
        if self.judged is None:
            raise DefinitionError(f"{self!r}. Ask front.for_weights(..., evaluate=True) for its values.")
        return self.judged

    def export(self, folder: str | Path) -> Path:
        """Writes an ordinary PEFT adapter with model card and manifest; returns the folder."""
        from moalign.publish import export_selection

        return export_selection(self.records, self.selection, Path(folder))

    def generate(self, prompts: str | Sequence[Any], *, samples: int = 1, seed: int = 0, **sampling: Any) -> list[Any]:
        """Returns texts as `StoredPolicy.generate` does."""
        from moalign.data.prompt_text import PromptText

        text, adapter = self.selection.text or PromptText(), self.selection.adapter
        base = self.base or base_policy(self.records)
        return _generate(base, lambda model: adapter.to(model.device), text, prompts, samples, seed, sampling)

    def __repr__(self) -> str:
        weights = ", ".join(f"{w:.3g}" for w in self.selection.weights)
        if self.judged is None:
            return f"<Policy for weights ({weights}): {self.how}, not measured>"
        values = ", ".join(f"{v:.3g}±{e:.2g}" for v, e in zip(self.values, self.standard_errors, strict=True))
        return f"<Policy for weights ({weights}): {self.how}, values ({values}), KL {self.kl:.3g} nats>"


def _generate(
    base: Policy,
    adapter: Callable[[Any], AdapterStack],
    text: PromptText,
    prompts: str | Sequence[Any],
    samples: int,
    seed: int,
    sampling: dict[str, Any],
) -> list[Any]:
    from moalign.policy.engine import Engine
    from moalign.policy.generate import Sampling

    engine = Engine(base, seed=seed)
    several = not isinstance(prompts, str)
    listed: Sequence[Any] = prompts if several else [prompts]
    drawing = Sampling(samples=samples, **sampling)
    [drawn] = engine.generate(list(map(text, listed)), drawing, adapter(engine.language_model.model))
    texts = [[g.text for g in drawn if g.prompt == i] for i in range(len(listed))]
    return texts if several else texts[0]


def trial_config(records: StudyStore, trial: int) -> dict[str, Any]:
    """Returns the configuration that was written beside a trial's adapter; empty if there is none."""
    path = records.trial_folder(trial) / "config.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _serve(records: StudyStore, base: Policy | None, keep: Any) -> Callable[[FloatArray], ServedPolicy] | None:
    """Returns what serves any weights, or None where the nearest evaluated policy does."""
    folder = records.folder / POLICIES
    if not is_complete(folder):
        return None

    def serve(weights: FloatArray) -> ServedPolicy:
        from moalign.methods.stored import load_policies

        verify(folder)
        return ServedPolicy(records, load_policies(folder).for_weights(weights), base, keep)

    return serve


def base_policy(records: StudyStore) -> Policy:
    """Returns the base policy that the study's folder names.

    Raises:
        StoreError: the base model was only in memory when the study ran.
    """
    from moalign.policy.model import Policy

    facts = records.info.get("base", {})
    if not facts.get("source"):
        raise StoreError(
            f"Study {records.name!r} ran on a model in memory, so its base cannot be loaded again. Save the model to a "
            "folder and use Policy(folder)."
        )
    return Policy(facts["source"], dtype=facts["dtype"], max_length=facts["max_length"], truncate=facts["truncate"])


def load_front(
    records: StudyStore,
    base: Policy | None = None,
    keep: Any = None,
    measure: Callable[[ServedPolicy], ServedPolicy] | None = None,
) -> Front:
    """Returns the front of all finished trials of a study, in trial order.

    Args:
        records: the study's store.
        base, keep: as in `StoredPolicy`.
        measure: as in `Front`.

    Raises:
        StoreError: nothing has been evaluated yet.
    """
    reference = records.reference()
    corner = [e.data["values"] for e in records.events("reference_point")]
    if reference is None or not corner:
        raise StoreError(f"Study {records.name!r} has no evaluated policies yet; see: moalign status {records.name}")
    return front_of_records(
        records.name,
        records.info["objectives"],
        [t for t in records.trials() if t.state == "done"],
        reference=reference,
        reference_point=corner[-1],
        policy_of=lambda trial: StoredPolicy(records, trial, base, keep),
        serve=_serve(records, base, keep),
        measure=measure,
    )
