"""The engine: the only code that touches a model or a device.

`train` gives n adapters trained together, `generate` samples from them, `log_probs` scores given responses. Adapters
come from it on the CPU, where they can be mixed, joined and stored, and go to its device for a computation. What was
computed is remembered in the workspace: a finished training is loaded instead of repeated, an unfinished one goes on
from its last checkpoint, reference log-probs of a data set are computed once for all policies and methods.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PreferenceData, Responses, padded_passes
from moalign.policy.generate import Sampling
from moalign.policy.logprobs import sequence_kl, sequence_log_probs
from moalign.policy.model import LanguageModel, Policy
from moalign.policy.on_policy import Rollouts, Utility, train_on_policy
from moalign.policy.packing import packed_passes
from moalign.policy.samples import Generation, as_arrays, as_completions, draw, samples_key
from moalign.policy.step import Loss
from moalign.policy.train import Move, StepRecord, Training, TrainState, train
from moalign.policy.trainings import TrainingLog, remembered_training, training_logs
from moalign.policy.trunk import trunk_cache
from moalign.policy.workspace import Memory, Workspace

TOKENS_PER_PASS = 1 << 16  # tokens of one forward pass without gradients, which bounds its memory
ENOUGH_ON_CPU = 1 << 12  # more tokens leave a CPU's cache and make each of them slower


@final
class Engine:
    """Runs a base policy and stacks of adapters on it.

    Args:
        policy: the base policy's description.
        workspace: where trainings and caches are kept; None keeps them in memory for this engine only.
        seed: of adapter starts, data order and sampling.
        device: torch device name; an accelerator if there is one when None.
        on_step: called as on_step(training name, record, steps in all) after every optimiser step.
        should_stop: asked after every step; when it says yes, the state is saved and KeyboardInterrupt raised.
        stop_policies: asked as stop_policies(training name, record) after every step which policies train no more; the
            others go on as if they had been alone from the start.
        checkpoint_seconds: time between checkpoints.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        workspace: Workspace | None = None,
        seed: int = 0,
        device: str | None = None,
        on_step: Callable[[str, StepRecord, int], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        stop_policies: Callable[[str, StepRecord], Iterable[int]] = lambda name, record: (),
        checkpoint_seconds: float = 20.0,
    ) -> None:
        self.policy = policy
        self.language_model: LanguageModel = policy.load(device)
        self.workspace = workspace
        self.seed = seed
        self.on_step = on_step
        self.should_stop = should_stop
        self.stop_policies = stop_policies
        self.checkpoint_seconds = checkpoint_seconds
        self.remember = Memory(workspace)  # remember(key, compute) gives named arrays, computed once
        self.truncated = {"prompts": 0, "responses": 0}
        self._keys: dict[str, str] = {}  # of the last training of each name
        self._prompt_ids: dict[Any, tuple[int, ...]] = {}
        self.generated = 0  # tokens that `generate` has sampled
        self._duals: dict[str, torch.Tensor] = {}

    def within(self, workspace: Workspace | None) -> Engine:
        """Returns the same engine, model included, that keeps its work elsewhere."""
        other = copy.copy(self)
        other.workspace, other.remember = workspace, Memory(workspace)
        return other

    def on_device(self, stack: AdapterStack) -> AdapterStack:
        """Returns adapters where the model is."""
        return stack.to(self.language_model.device)

    # ---------------------------------------------------------------------------------------------- texts and tokens

    def encode_prompt(self, prompt: Any) -> tuple[int, ...]:
        """Returns a prompt's token ids (remembered)."""
        if prompt not in self._prompt_ids:
            self._prompt_ids[prompt] = tuple(self.language_model.encode_prompt(prompt))
        return self._prompt_ids[prompt]

    def encode(self, prompts: Sequence[Any], responses: Sequence[str]) -> Responses:
        """Returns prompt i with response i as tokens; equal prompts are stored once.

        Where the policy truncates, all responses to a prompt see the same cut prompt. `truncated` counts the cuts.

        Raises:
            ModelError: a text is longer than the context and the policy does not truncate; names the row.
        """
        number: dict[Any, int] = {}
        prompt_of = [number.setdefault(prompt, len(number)) for prompt in prompts]
        completions = [tuple(self.language_model.encode_response(r)) for r in responses]
        longest, row_of = [0] * len(number), [0] * len(number)
        for row, (p, completion) in enumerate(zip(prompt_of, completions, strict=True)):
            if len(completion) > longest[p]:
                longest[p], row_of[p] = len(completion), row
        cut = [self._fit(prompt, longest[p], f"Row {row_of[p]} ({str(prompt)[:40]!r})") for prompt, p in number.items()]
        room = [self.language_model.max_length - len(prompt) for prompt in cut]
        kept = tuple(c[: room[p]] for p, c in zip(prompt_of, completions, strict=True))
        self.truncated["responses"] += sum(len(a) < len(b) for a, b in zip(kept, completions, strict=True))
        return Responses(prompts=tuple(cut), prompt_of=np.array(prompt_of, dtype=np.int64), completions=kept)

    def sampled(self, prompts: Sequence[Any], generations: Sequence[Generation], sampling: Sampling) -> Responses:
        """Returns what `generate` drew for these prompts as responses with their own tokens (never tokenised again)."""
        return Responses(
            prompts=tuple(self._room(prompt, sampling.max_new_tokens) for prompt in prompts),
            prompt_of=np.array([g.prompt for g in generations], dtype=np.int64),
            completions=tuple(g.ids for g in generations),
        )

    # -------------------------------------------------------------------------------------------------- computations

    def train(
        self,
        name: str,
        data: PreferenceData,
        loss: Loss,
        policies: Mapping[str, np.ndarray],
        training: Training,
        described: Any = None,
        start: AdapterStack | None = None,
        move: Move | None = None,
    ) -> AdapterStack:
        """Returns the adapters trained together on `data`, one per row of the policy columns.

        Args:
            name: what the caller calls this training, unique among different trainings of one study.
            data: pairs; the column `reference` (log-probs of each response under the base) is added here.
            loss: see `moalign.policy.train.train`.
            policies: name -> array [policies, ...]; `learning_rate` and `steps` have the meaning told in
                `moalign.policy.train.train`.
            training: the settings.
            described: JSON-able facts about loss and settings that tell this training from others of the same name.
            start: the adapters to go on from, one per policy; new ones when None.
            move: of the other player of a game, see `moalign.policy.train.train`; `dual` tells where it ended.
        """
        reference = self.reference_log_probs(data.responses)
        data = data.with_response_columns(reference=reference)
        facts = described if start is None else [described, _array_hash(start.matrix)]
        key = f"{name}-{_digest(data, policies, facts, self.seed)[:12]}"
        begin = self._start(training, policies) if start is None else self.on_device(start)
        columns = _columns(policies, begin)

        def loop(state: TrainState) -> Iterator[tuple[StepRecord, TrainState]]:
            trunk = trunk_cache(self.language_model, data, begin, training, self.workspace)
            return train(
                self.language_model, data, loss, columns, training, state, self.seed, trunk,
                stop=lambda record: self.stop_policies(name, record), move=move,
            )  # fmt: skip

        return self._trained(name, key, begin, loop, training.steps, described)

    def train_on_policy(
        self,
        name: str,
        prompts: Sequence[Any],
        score: Callable[[Sequence[Any], Sequence[str]], FloatArray],
        utility: Utility,
        policies: Mapping[str, np.ndarray],
        training: Training,
        rollouts: Rollouts,
        described: Any = None,
        start: AdapterStack | None = None,
        move: Move | None = None,
    ) -> AdapterStack:
        """Returns the adapters trained together on their own samples, one per row of the policy columns.

        Args:
            name: what the caller calls this training, unique among different trainings of one study.
            prompts: training prompts.
            score: (prompts, texts) -> rewards [texts, objectives].
            utility, policies: see `moalign.policy.on_policy.train_on_policy`.
            training, rollouts: the settings.
            described: JSON-able facts about rewards, utility and settings that tell this training from others of the
                same name.
            start: the adapters to go on from, one per policy; new ones when None.
            move: of the other player of a game, see `moalign.policy.on_policy.train_on_policy`.
        """
        ids = [self._room(prompt, rollouts.sampling.max_new_tokens) for prompt in prompts]
        begin = self._start(training, policies) if start is None else self.on_device(start)
        facts = [described, [list(i) for i in ids], None if start is None else _array_hash(start.matrix)]
        key = f"{name}-{_digest(None, policies, facts, self.seed)[:12]}"
        columns = _columns(policies, begin)

        def loop(state: TrainState) -> Iterator[tuple[StepRecord, TrainState]]:
            return train_on_policy(
                self.language_model, ids, lambda numbers, texts: score([prompts[i] for i in numbers], texts), utility,
                columns, training, rollouts, state, self.seed, lambda responses: self.log_probs(responses)[0],
                stop=lambda record: self.stop_policies(name, record), move=move,
            )  # fmt: skip

        return self._trained(name, key, begin, loop, training.steps, described)

    def dual(self, name: str) -> FloatArray:
        """Returns what the other player of the last training of this name held at its end [policies, numbers]."""
        return np.asarray(self._duals[name].double().numpy())

    def _trained(
        self,
        name: str,
        key: str,
        start: AdapterStack,
        loop: Callable[[TrainState], Iterator[tuple[StepRecord, TrainState]]],
        steps: int,
        described: Any,
    ) -> AdapterStack:
        self._keys[name] = key

        def after(record: StepRecord) -> bool:
            if self.on_step is not None:
                self.on_step(name, record, steps)
            return self.should_stop()

        facts = {"name": name, "described": described}
        seconds = self.checkpoint_seconds
        stack, dual = remembered_training(self.workspace, key, start, loop, steps, facts, after, seconds)
        self._duals[name] = dual.cpu()
        return stack.to("cpu")

    def training_logs(self) -> dict[str, TrainingLog]:
        """Returns the log of every finished training by name; empty without a workspace.

        Of trainings with one name, such as the rounds of a search, it is the one that this engine came to last.
        """
        return training_logs(self.workspace, self._keys)

    def _start(self, training: Training, policies: Mapping[str, np.ndarray]) -> AdapterStack:
        count = len(next(iter(policies.values())))
        return AdapterStack.initial(self.language_model.model, training.lora, count, self.seed)

    def reference_log_probs(self, responses: Responses) -> FloatArray:
        """Returns summed log-probs [responses] under the frozen base, in nats; computed once per data set."""

        def compute() -> dict[str, np.ndarray]:
            return {"log_probs": self.log_probs(responses)[0]}

        return self.remember(f"reference-{responses.key()[:16]}", compute)["log_probs"]

    @torch.no_grad()
    def log_probs(self, responses: Responses, stack: AdapterStack | None = None) -> FloatArray:
        """Returns summed log-probs [policies, responses] in nats (one policy, the base, without a stack)."""
        policies = 1 if stack is None else len(stack)
        stack = None if stack is None else self.on_device(stack)
        result = np.empty((policies, len(responses)))
        for indices in self._passes(responses, policies):
            rows = self.language_model.rows(responses, indices)
            result[:, indices] = sequence_log_probs(self.language_model, rows, stack).double().cpu().numpy()
        return result

    @torch.no_grad()
    def kl(
        self, responses: Responses, policy: AdapterStack | None, base_responses: Responses | None = None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Returns (KL to the base, policy log-probs, base log-probs) [responses] on a policy's own samples, in nats.

        Args:
            responses: samples of the policy.
            policy: a stack of one; None is the base itself (KL 0).
            base_responses: the same completions to the prompts that the base is to see, where those are others.
        """
        if policy is None:
            reference = self.log_probs(responses)[0]
            return np.zeros(len(responses)), reference, reference
        policy = self.on_device(policy)
        result = np.empty((3, len(responses)))
        for indices in self._passes(responses, 2):
            rows = self.language_model.rows(responses, indices)
            of_base = None
            if base_responses is not None and base_responses.prompts != responses.prompts:
                of_base = self.language_model.rows(base_responses, indices)
            values = sequence_kl(self.language_model, rows, policy, of_base)
            result[:, indices] = torch.stack(values).double().cpu().numpy()
        return result[0], result[1], result[2]

    def generate(
        self, prompts: Sequence[Any], sampling: Sampling, stack: AdapterStack | None = None, seed: int | None = None
    ) -> list[list[Generation]]:
        """Returns the sampled responses per policy, ordered by prompt, then sample.

        Raises:
            ModelError: a prompt leaves no room for `max_new_tokens` in the context and the policy does not truncate.
        """
        ids = [self._room(prompt, sampling.max_new_tokens) for prompt in prompts]
        here = None if stack is None else self.on_device(stack)
        drawn = draw(self.language_model, ids, sampling, here, self.seed if seed is None else seed)
        self.generated += sum(len(g.ids) for rows in drawn for g in rows)
        return drawn

    def remembered_samples(
        self, name: str, prompts: Sequence[Any], sampling: Sampling, policy: AdapterStack | None = None
    ) -> tuple[Responses, list[str]]:
        """Returns samples for these prompts and their texts, drawn once and kept; ordered by prompt, then sample.

        Args:
            name: what the caller calls them.
            prompts, sampling: what to draw.
            policy: a stack of one, sampled with random numbers of this name's own; None is the base.
        """
        seed = self.seed
        if policy is not None:
            name = f"{name}-{_array_hash(policy.matrix)}"
            seed = int(np.random.default_rng([self.seed, *name.encode()]).integers(1 << 31))
        key = samples_key(name, self.seed, prompts, sampling)
        drawn = self.remember(key, lambda: as_arrays(self.generate(prompts, sampling, policy, seed)[0]))
        completions = as_completions(drawn)
        ids = tuple(self._room(prompt, sampling.max_new_tokens) for prompt in prompts)
        prompt_of = np.repeat(np.arange(len(ids)), sampling.samples)
        texts = [self.language_model.decode_response(ids[p], c) for p, c in zip(prompt_of, completions, strict=True)]
        return Responses(prompts=ids, prompt_of=prompt_of, completions=tuple(completions)), texts

    # ---------------------------------------------------------------------------------------------------- bookkeeping

    def _passes(self, responses: Responses, policies: int) -> Iterator[list[int]]:
        if self.language_model.native is not None:
            on_cpu = self.language_model.device.type == "cpu"
            return packed_passes(responses, policies, TOKENS_PER_PASS, ENOUGH_ON_CPU if on_cpu else TOKENS_PER_PASS)
        return padded_passes(responses, policies, TOKENS_PER_PASS)

    def _fit(self, prompt: Any, response_tokens: int, what: str) -> tuple[int, ...]:
        whole = self.encode_prompt(prompt)
        cut = self.language_model.fit_prompt(whole, response_tokens, what)
        self.truncated["prompts"] += len(cut) < len(whole)
        return cut

    def _room(self, prompt: Any, new_tokens: int) -> tuple[int, ...]:
        return self._fit(prompt, new_tokens, f"Prompt {str(prompt)[:60]!r}")


def _columns(policies: Mapping[str, np.ndarray], like: AdapterStack) -> dict[str, torch.Tensor]:
    """Returns the columns on the device and in the precision of the adapters, learning rates as given."""
    columns = {n: torch.tensor(c, device=like.matrix.device) for n, c in policies.items()}
    dtype = like.matrix.dtype
    return {n: c.to(dtype) if c.is_floating_point() and n != "learning_rate" else c for n, c in columns.items()}


def _array_hash(values: torch.Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _digest(data: PreferenceData | None, policies: Mapping[str, np.ndarray], described: Any, seed: int) -> str:
    responses = "none" if data is None else data.responses.key()
    digest = hashlib.sha256(f"{responses}:{seed}:{json.dumps(described, sort_keys=True)}".encode())
    if data is not None:
        digest.update(np.ascontiguousarray(data.pairs).tobytes())
    given = () if data is None else (data.response_columns, data.pair_columns)
    for columns in (*given, policies):
        for name in sorted(columns):
            if name != "reference":  # follows from the responses and the base
                digest.update(name.encode() + np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()
