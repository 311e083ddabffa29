"""What a study leaves on disk for people: trial folders, the front as CSV, the report, and model cards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moalign.errors import StoreError
from moalign.front import Front
from moalign.results import ADAPTER, POLICIES, StoredPolicy, trial_config
from moalign.store import StudyStore, is_complete, publish, write_text_atomic

if TYPE_CHECKING:
    from moalign.evaluation import Judged
    from moalign.methods.base import PolicySet
    from moalign.methods.serving import Selection
    from moalign.policy.adapters import AdapterStack
    from moalign.policy.trainings import TrainingLog

REPORT = "report.html"


def publish_generations(folder: Path, judged: Judged) -> None:
    """Writes generations.jsonl, one JSON object per sampled response."""
    with (folder / "generations.jsonl").open("w", encoding="utf-8") as stream:
        for row in judged.generations:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def publish_trial(
    folder: Path,
    judged: Judged,
    policy: AdapterStack,
    config: Mapping[str, Any],
    log: tuple[TrainingLog, int] | None,
    base: str | None,
) -> None:
    """Fills a trial folder: the adapter in PEFT format, configuration, training metrics and generations.

    Args:
        folder: an empty folder.
        judged: what the evaluation showed.
        policy: a stack of one.
        config: trial number, weights by objective, study.
        log: the training's log and this policy's row in it.
        base: folder or name of the base model.
    """
    from moalign.policy.export import save_adapter

    (folder / ADAPTER).mkdir()
    save_adapter(policy, 0, folder / ADAPTER, base)
    (folder / "config.json").write_text(json.dumps(config, indent=1, allow_nan=False) + "\n")
    publish_generations(folder, judged)
    if log is not None:
        metrics, row = log
        with (folder / "metrics.jsonl").open("w") as stream:
            columns = zip(
                metrics.loss[:, row], metrics.gradient_norm[:, row], metrics.learning_rate[:, row], strict=True
            )
            for step, (loss, norm, rate) in enumerate(columns, 1):
                record = {"step": step, "loss": loss, "gradient_norm": norm, "learning_rate": rate}
                stream.write(json.dumps({k: float(v) for k, v in record.items()}) + "\n")


def publish_policies(records: StudyStore, policies: PolicySet) -> None:
    """Writes the trained adapters and their rule where the trials' own adapters do not say how weights are served."""
    from moalign.methods.serving import Nearest
    from moalign.methods.stored import save_policies

    folder = records.folder / POLICIES
    if not isinstance(policies.serving, Nearest) and not is_complete(folder):
        with records.publish(folder) as target:
            save_policies(policies, target)


def publish_results(records: StudyStore, front: Front) -> None:
    """Writes front.csv, report.html and the study's README.md into its folder."""
    from moalign.figures.study import write_study_report

    front.to_csv(records.folder / "front.csv")
    write_study_report(records, front, records.folder / REPORT)
    write_text_atomic(records.folder / "README.md", study_card(records, front))


def export_policy(records: StudyStore, trial: int, folder: Path) -> Path:
    """Writes a trial's adapter as a PEFT folder with model card and manifest; returns the folder.

    Raises:
        StoreError: the folder exists and holds something, or the trial has no finished policy.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists and is not empty; choose another folder for the export.")
    source = StoredPolicy(records, trial).folder
    if folder.exists():
        folder.rmdir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with publish(folder) as target:
        for file in sorted(source.iterdir()):
            shutil.copyfile(file, target / file.name)
        (target / "moalign.json").write_text(json.dumps(_facts(records, trial), indent=1, allow_nan=False) + "\n")
        (target / "README.md").write_text(policy_card(records, trial), encoding="utf-8")
    return folder


def export_selection(records: StudyStore, selection: Selection, folder: Path) -> Path:
    """Writes the adapter that serves some weights, which was not evaluated, as `export_policy` writes a trial's.

    Raises:
        ArtefactError: the folder exists and holds something.
    """
    from moalign.policy.export import save_adapter

    weights = dict(zip(records.info["objectives"], map(float, selection.weights), strict=True))
    text = None if selection.text is None else asdict(selection.text)
    facts = {
        "study": records.name,
        "served": selection.how,
        "weights": weights,
        "shares": {str(policy): share for policy, share in selection.shares},
        "prompt_text": text,
        "base_weights": records.description["problem"]["policy"]["weights"],
        "versions": records.info["versions"],
    }
    shown = ", ".join(f"{name} {weight:.4g}" for name, weight in weights.items())
    base = records.info["base"]["source"]
    card = [
        *_header(base),
        f"# {records.name}, policy for {shown}",
        "",
        f"A LoRA adapter for these preference weights, {selection.how} from policies trained with "
        f"{records.info['method']}. It was not evaluated: nothing is known of its rewards and its KL to the base.",
        "",
        *_served(facts),
        *_usage(base, facts["base_weights"]),
    ]
    with publish(folder, replace=False) as target:
        save_adapter(selection.adapter, 0, target, base)
        (target / "moalign.json").write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")
        (target / "README.md").write_text("\n".join(card), encoding="utf-8")
    return folder


def _header(base: str | None) -> list[str]:
    header = ["---", "library_name: peft", "tags: [moalign, multi-objective-alignment, lora]"]
    if base:
        header.append(f"base_model: {json.dumps(base)}")
    return [*header, "---"]


def _served(facts: Mapping[str, Any]) -> list[str]:
    """Returns what a user of the adapter must know: from what it is mixed, what it must be told."""
    lines = []
    if facts.get("served") == "interpolated":
        parts = " + ".join(f"{share:.4g} × expert {policy}" for policy, share in facts["shares"].items())
        lines += [f"The adapter is the sum of weighted updates ({parts}), exact: its rank is the sum of theirs.", ""]
    text = facts.get("prompt_text")
    if text:
        lines += ["The policy follows these weights only if every prompt is written as", ""]
        lines += ["```python", f"prompt = {text['before']!r} + prompt + {text['after']!r}", "```", ""]
    return lines


def _usage(base: str | None, fingerprint: str) -> list[str]:
    return [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({base or 'BASE'!r})",
        'policy = PeftModel.from_pretrained(base, "PATH/TO/THIS/FOLDER")',
        "```",
        "",
        f"Fingerprint of the base weights: `{fingerprint[:16]}`. Rewards are those of the study and "
        "measure only what its objectives measure.",
        "",
    ]


def policy_card(records: StudyStore, trial: int) -> str:
    """Returns the model card of one policy, in the model hub's format."""
    facts = _facts(records, trial)
    base = records.info["base"]["source"]
    rows = [
        f"| {name} | {facts['weights'][name]:.4g} | {facts['values'][name]:.4g} ± {facts['standard_errors'][name]:.2g} "
        f"| {facts['reference'][name]:.4g} |"
        for name in records.info["objectives"]
    ]
    return "\n".join(
        [
            *_header(base),
            f"# {records.name}, policy {trial}",
            "",
            f"A LoRA adapter made with {records.info['method']} for one vector of preference weights, evaluated by "
            f"sampling on held-out prompts. KL to the base: {facts['kl']:.3f} ± {facts['kl_standard_error']:.2g} nats "
            "per response.",
            "",
            "| objective | weight | mean reward ± standard error | base model |",
            "|---|---|---|---|",
            *rows,
            "",
            *_served(facts),
            *_usage(base, facts["base_weights"]),
        ]
    )


def study_card(records: StudyStore, front: Front) -> str:
    """Returns the README.md of a study's folder."""
    members = front.non_dominated()
    lines = [
        f"# {records.name}",
        "",
        f"{records.info['method']} on {', '.join(front.objectives)}: {len(front)} policies, {int(members.sum())} "
        f"non-dominated, hypervolume {front.hypervolume(unattained='ignore')} over the reference point "
        f"({', '.join(f'{v:.4g}' for v in front.reference_point)}).",
        "",
        "| trial | "
        + " | ".join(f"w {n}" for n in front.objectives)
        + " | "
        + " | ".join(front.objectives)
        + " | KL | front |",
        "|" + "---|" * (2 * len(front.objectives) + 3),
    ]
    for point, member in zip(front.points, members, strict=True):
        cells = [f"{w:.3g}" for w in point.weights]
        cells += [f"{v:.4g} ± {e:.2g}" for v, e in zip(point.values, point.standard_errors, strict=True)]
        lines.append(f"| {point.trial} | " + " | ".join(cells) + f" | {point.kl:.3g} | {'yes' if member else ''} |")
    lines += [
        "",
        "Files: `study.json` (definition), `store.db` (facts), `trials/NNNN/` (adapter in PEFT format, generations, "
        f"metrics), `front.csv`, `{REPORT}`.",
        "",
    ]
    return "\n".join(lines)


def _facts(records: StudyStore, trial: int) -> dict[str, Any]:
    record, reference = records.trial(trial), records.reference()
    names = records.info["objectives"]

    def by_name(values: Any) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    return {
        "study": records.name,
        "trial": trial,
        "weights": by_name(record.weights),
        **{n: v for n, v in trial_config(records, trial).items() if n in ("served", "shares", "prompt_text")},
        "values": by_name(record.values),
        "standard_errors": by_name(record.standard_errors),
        "reference": by_name(reference.values) if reference is not None else {},
        "kl": record.kl,
        "kl_standard_error": record.kl_standard_error,
        "base_weights": records.description["problem"]["policy"]["weights"],
        "versions": records.info["versions"],
    }
