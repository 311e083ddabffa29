"""The machine that commands run on: its devices, and libraries that should not draw on the terminal."""

from __future__ import annotations

from moalign.cli.errors import usage


def checked_device(device: str | None) -> str:
    """Returns the torch device to use; an accelerator if there is one when None.

    Raises:
        typer.BadParameter: torch does not know the device, or this machine does not have it.
    """
    import torch

    from moalign.policy.model import default_device

    if device is None:
        return str(default_device())
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise usage(f"{device!r} cannot be used: {reason}", "--device") from None
    return device


def quiet_models() -> None:
    """Turns off the progress bars that transformers draws while it loads a model."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
