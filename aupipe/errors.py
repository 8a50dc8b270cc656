"""What can go wrong, each kind with the exit code the command line answers with."""

from __future__ import annotations


class AupipeError(Exception):
    """An error a user can act on: one line of what, where, and what to do."""

    exit_code = 1


class UsageError(AupipeError):
    """The request itself is wrong: unknown name, unknown key, impossible option."""

    exit_code = 2


class RecordingError(AupipeError):
    """One recording cannot be processed; the others go on."""

    exit_code = 3


class NoStoreError(AupipeError):
    """There is no feature store where one was expected."""

    exit_code = 10


class StoreVersionError(AupipeError):
    """The store was written by a newer aupipe, or in another way this one must not touch."""

    exit_code = 11


class WeightsMissingError(AupipeError):
    """Weights an encoder or detector needs are not on this machine."""

    exit_code = 12


class DamageError(AupipeError):
    """Stored data is not what was published."""

    exit_code = 13
