"""Peak memory of training: K policies in one stack against one TRL run, each in a process of its own.

Counted is what training adds to the process once libraries and base model are loaded (peak resident set, so the
worst moment). A value above one means that the whole stack needs less than one TRL run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Options, Row, parse, ratio, run
from benchmarks.workload import SIZES, model, pairs, tokenizer

POLICIES = 16
PAIRS_PER_STEP = 4
STEPS = 3
PEER = "one TRL run, no checkpointing"


def peak_bytes() -> int:
    """Returns the largest resident set of this process so far.

    Linux: from /proc, because the figure of getrusage also covers what the process was before it became this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def train(side: str, folder: Path, size_name: str, policies: int, seed: int) -> int:
    """Returns the bytes that training adds to this process; for a fresh process."""
    size = SIZES[size_name]
    batch = pairs(PAIRS_PER_STEP, size.vocabulary, seed=seed)
    if side == "moalign":
        import numpy as np

        from benchmarks import ours
        from moalign import Policy
        from moalign.policy.engine import Engine

        engine = Engine(Policy(folder), seed=seed, device="cpu")
        before = peak_bytes()
        training = ours.settings(STEPS, PAIRS_PER_STEP)
        engine.train("memory", ours.data(batch), ours.loss, {"beta": np.linspace(0.05, 1, policies)}, training)
    else:
        import datasets  # noqa: F401  (everything TRL loads on first use belongs to the libraries)
        import torch
        from peft import PeftModel  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import DPOTrainer  # noqa: F401

        from benchmarks import peers

        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        words = AutoTokenizer.from_pretrained(folder)
        before = peak_bytes()
        peers.trl_trainer(base, words, [*batch] * STEPS, STEPS, PAIRS_PER_STEP, 0.1, copied=False).train()
    return peak_bytes() - before


def memory_row(size_name: str, policies: int, rounds: int, seed: int) -> Row:
    """Returns the row of one model size."""
    print(f"{size_name}, K={policies}, MB over the loaded base:", file=sys.stderr)
    found: dict[str, list[float]] = {"moalign": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        model(SIZES[size_name], seed).save_pretrained(folder)
        tokenizer(SIZES[size_name].vocabulary).save_pretrained(folder)
        for _ in range(rounds):
            for side, values in found.items():
                values.append(_child(side, folder, size_name, policies, seed))
                print(f"  {values[-1] / 2**20:7.0f}  {side}", file=sys.stderr, flush=True)
    what = f"peak memory of training, {size_name}, K={policies}"
    return ratio(what, PEER, found["trl"], found["moalign"], 1.0)


def _child(side: str, folder: str, size_name: str, policies: int, seed: int) -> float:
    arguments = json.dumps([side, folder, size_name, policies, seed])
    code = f"import json; from benchmarks import memory; memory.child(*json.loads({arguments!r}))"
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The {side} process failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.splitlines()[-1])


def child(side: str, folder: str, size_name: str, policies: int, seed: int) -> None:
    """Prints what `train` returns; threads follow the environment that the parent process set."""
    print(train(side, Path(folder), size_name, policies, seed))


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    sizes = ("s",) if options.quick else ("s", "m")
    return [memory_row(size, POLICIES, options.repeats(1, 3), options.seed) for size in sizes]


if __name__ == "__main__":
    run(measure, parse("Memory: moalign's stack against one TRL run."), ("torch", "transformers", "trl", "peft"))
