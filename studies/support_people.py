"""People with different wishes for one support desk: who is served how well by which policy?

66 simulated people weigh the embedded problem's objectives in three hidden groups: 36 thorough, 20 hurried and 10
courteous ones. Each compared 40 pairs of replies. An EM mixture (arXiv 2402.08925) finds groups of people in the
comparisons; they become objectives, and PAL (arXiv 2406.08469) trains a policy for each of a few mixtures of them, one
of which is the mean over everybody. The page "Users" of the dashboard then shows what each group gains from each
policy, and the report here how far that is what the group really gains: the hidden weights say so.

Found with seed 0: the groups of 62 of 66 people, and over the eight policies utilities that correlate with the hidden
ones by 0.98, 0.98 and 0.87. Each group's own policy leaves another one worse off than the base; the policies for
courteous with hurried people and for the mean over everybody leave nobody below -0.1 standard deviations.

    moalign run studies/support_people.py                      the study
    python studies/support_people.py --seed 0 --store runs     the same, then the report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

import moalign as ma
from moalign.arrays import FloatArray
from moalign.data import load_prompts, toy
from moalign.demo import ToyFacts, toy_facts, toy_policy
from moalign.figures import People
from moalign.figures.people import shown_utilities, worst_group
from moalign.methods import PAL
from moalign.progress import TerminalProgress
from moalign.store import StudyStore, load_generations, load_reference_generations

GROUPS = 3  # hidden groups of people


def build(
    *, seed: int = 0, people: int = 66, answers: int = 40, judged: int = 20, weight_steps: int = 2, steps: int = 60,
    samples: int = 8, name: str = "support-people",
) -> ma.Study:  # fmt: skip
    """Returns the study.

    Args:
        seed: of people, answers, fit and training.
        people: users.
        answers: comparisons of each on training prompts, which the model of people is fitted on.
        judged: comparisons of each on held-out prompts, which it is judged by.
        weight_steps: lattice steps; 2 gives a policy for each found group and each half-and-half of two of them. One
            more is for the mean over all people.
        steps: optimiser steps of the policies.
        samples: replies per held-out prompt in the evaluation.
        name: of the study.
    """
    facts, policy = toy_facts(seed), toy_policy(seed)
    crowd = toy.annotators(people, seed)
    fitted = ma.rewards.Mixture(groups=GROUPS, seed=seed).fit(
        comparisons(facts, facts.split.train, facts.train_log_base, crowd, answers * people, seed),
        embed=ma.rewards.Embedding(policy.source),
    )
    return ma.Study(
        name=name,
        problem=ma.Problem(policy=policy, objectives=fitted.as_objectives(), prompts=list(facts.split.train)),
        method=PAL(
            people=fitted,
            beta=0.3,
            rollouts=ma.Rollouts(sampling=ma.Sampling(samples=8, max_new_tokens=48)),
            training=ma.Training(steps=steps, batch_size=8, learning_rate=4e-3, lora=ma.LoRA(rank=8, alpha=16.0)),
        ),
        weights=np.vstack([ma.grid(GROUPS, steps=weight_steps), fitted.average()]),
        evaluation=ma.Evaluation(
            prompts=load_prompts(list(facts.split.held_out)),
            samples=samples,
            max_new_tokens=48,
            comparisons=comparisons(facts, facts.split.held_out, facts.log_base, crowd, judged * people, seed + 1),
            groups={person.user: person.group for person in crowd},
        ),
        seed=seed,
    )


def comparisons(
    facts: ToyFacts, prompts: Sequence[str], log_base: FloatArray, crowd: Sequence[toy.Annotator], count: int, seed: int
) -> list[dict[str, str]]:
    """Returns `count` answers of a crowd to pairs of replies; arguments as `toy.annotator_pairs`."""
    drawn = toy.annotator_pairs(
        prompts, count, people=crowd, log_base=log_base, scales=facts.scale, label_scale=4.0, seed=seed
    )
    columns = zip(drawn.user, drawn.prompts, drawn.chosen, drawn.rejected, strict=True)
    return [dict(zip(("user", "prompt", "chosen", "rejected"), row, strict=True)) for row in columns]


def hidden_utilities(records: StudyStore, facts: ToyFacts, crowd: Sequence[toy.Annotator]) -> dict[str, list[float]]:
    """Returns what each hidden group really gains, for the reference policy and then each trial."""
    trials = [trial.number for trial in records.trials(prompt_values=False) if trial.state == "done"]
    found: dict[str, list[float]] = {person.group: [] for person in crowd}
    for rows in [load_reference_generations(records), *(load_generations(records, trial) for trial in trials)]:
        prompts, replies = [row["prompt"] for row in rows], [row["response"] for row in rows]
        raw = np.array([reward(prompts, replies) for reward in toy.rewards().values()]).T
        mean = ((raw - facts.mean) / facts.scale).mean(axis=0)
        for group, values in found.items():
            weights = np.mean([person.weights for person in crowd if person.group == group], axis=0)
            values.append(float(weights @ mean))
    return found


def report(study: ma.Study, front: ma.Front, seed: int, people: int = 66) -> str:
    """Returns what each group gains from each policy as the model of people sees it, beside what it really gains."""
    records = front[0].policy.records
    measured = People.load(records.folder)
    assert measured is not None  # written by the run
    hidden = hidden_utilities(records, toy_facts(seed), toy.annotators(people, seed))
    shown = shown_utilities(measured)
    groups = sorted(hidden)
    lines = ["utility by the model of people [95 %] | by the hidden weights; both in standard deviations of the base"]
    lines.append(f"{'policy for':<22}" + "".join(f"{group:>32}" for group in groups) + "   worst-off")
    for row, (trial, utilities) in enumerate(shown.items()):
        name = "reference" if trial is None else " ".join(f"{w:.2f}" for w in front[row - 1].weights)
        cells = [
            f"{f.value:8.2f} [{f.low:5.2f}, {f.high:5.2f}] | {hidden[group][row]:6.2f}"
            for group, f in ((group, utilities[group]) for group in groups)
        ]
        lines.append(f"{name:<22}" + "".join(f"{cell:>32}" for cell in cells) + f"   {worst_group(utilities)}")
    agree = [np.corrcoef([u[group].value for u in shown.values()], hidden[group])[0, 1] for group in groups]
    lines.append("correlation over policies: " + ", ".join(f"{g} {r:.2f}" for g, r in zip(groups, agree, strict=True)))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs or continues the study and prints its report; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="runs", help="folder of the results")
    asked = parser.parse_args(arguments)
    try:
        study = build(seed=asked.seed)
        with TerminalProgress() as progress:
            front = ma.run(study, asked.store, callbacks=[progress])
        print(report(study, front, asked.seed))
    except ma.MoalignError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
