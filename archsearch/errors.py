"""What can go wrong, as a user can act on it.

    ArchsearchError
    ├── FileFault        a file a user wrote breaks a rule; one line per fault, all faults at once
    │   ├── SpecError    a network that cannot be
    │   ├── SpaceError   a search space that cannot be
    │   └── RecipeError  a training recipe that cannot be
    ├── DataError        a data set that cannot be used
    │   └── VideoError   one video that cannot be used
    ├── WeightsError     a weight file that cannot be used
    ├── SurgeryError     networks that have too little in common
    ├── TrainingError    one training ended early (not finite, out of memory)
    ├── RunError         a run folder that cannot be used
    └── MissingExtra     an optional package is needed

The command line prints each line of `ArchsearchError.lines` and exits with 1; every other exception is our bug.
"""


class ArchsearchError(Exception):
    """Anything a user can act on. `lines` holds one sentence per fault, each naming file, place, value and rule."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

    def __reduce__(self) -> tuple[type["ArchsearchError"], tuple[str, ...]]:
        """Errors cross process borders; the default would forget `lines`."""
        return type(self), self.lines


class FileFault(ArchsearchError):
    """A file a user wrote breaks a rule."""


class SpecError(FileFault):
    """A network that cannot be: an unknown field, a feature map that becomes empty, ..."""


class SpaceError(FileFault):
    """A search space that cannot be."""


class RecipeError(FileFault):
    """A training recipe that cannot be."""


class DataError(ArchsearchError):
    """A data set that cannot be used."""


class VideoError(DataError):
    """One video that cannot be used: missing, empty, truncated, without a video stream."""


class WeightsError(ArchsearchError):
    """A weight file that cannot be used: of another network, cut, or one that holds code."""


class SurgeryError(ArchsearchError):
    """One network cannot be made of another: they have too little in common."""


class TrainingError(ArchsearchError):
    """One training ended early: a loss that is not finite, or memory that ran out."""


class RunError(ArchsearchError):
    """A run folder that cannot be used: another search's, or in use."""


class MissingExtra(ArchsearchError):
    """An optional package is needed; the message says which to install."""
