"""Every error and warning that moalign raises on purpose.

    MoalignError
    |- DefinitionError (ValueError)     a study, problem, method or argument that cannot be meant
    |- DataError (ValueError)           a data file or table with unusable rows
    |- RewardError                      a reward that failed or returned something else than one number per text
    |- ModelError                       a model folder that cannot be loaded, or a text that does not fit the model
    |- StoreError                       the results folder
    |  |- StudyBusyError                another driver is running this study
    |  |- StudyChangedError             same study name, other definition
    |  `- ArtefactError                 a stored file is missing or does not match its checksum
    `- StopStudy                        raised by callbacks to end a run early; everything finished is kept

    MoalignWarning (UserWarning)
    |- DataWarning                      dropped, truncated or contradictory rows
    |- NumericsWarning                  a number that is defined but misleading
    `- MixWarning                       a policy that was interpolated, not trained

A message says what was expected, what arrived, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class MoalignError(Exception):
    """Root of all errors that moalign raises on purpose."""


class DefinitionError(MoalignError, ValueError):
    """A definition that cannot be meant; `problems` lists every reason found, not only the first."""

    def __init__(self, problems: str | Sequence[str], where: str | None = None) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        self.where = where
        place = f" in {where}" if where else ""
        if len(self.problems) == 1:
            message = f"{self.problems[0]}" if not where else f"{where}: {self.problems[0]}"
        else:
            lines = "\n".join(f"  {i}. {p}" for i, p in enumerate(self.problems, 1))
            message = f"{len(self.problems)} problems{place}\n{lines}"
        super().__init__(message)


class DataError(MoalignError, ValueError):
    """A data file or table with unusable rows; the message names file and row."""


class RewardError(MoalignError):
    """A reward failed, or did not return one finite number per text."""


class ModelError(MoalignError):
    """A model folder that cannot be loaded, or a text that does not fit the model."""


class StoreError(MoalignError):
    """The results folder cannot be used."""


class StudyBusyError(StoreError):
    """Another driver holds the lease of this study."""


class StudyChangedError(StoreError):
    """A study of this name but with another definition exists; the message lists the differing fields."""


class ArtefactError(StoreError):
    """A stored file is missing or does not match its checksum."""


class StopStudy(MoalignError):
    """Raised by a callback to end a run early. What is finished is kept; the same command continues."""


class MoalignWarning(UserWarning):
    """Root of all warnings."""


class DataWarning(MoalignWarning):
    """Rows were dropped, truncated or contradict each other."""


class NumericsWarning(MoalignWarning):
    """A number is defined but misleading."""


class MixWarning(MoalignWarning):
    """A policy was interpolated, not trained; its values are not measured."""
