import pytest

from engine.errors import BundleError, DeviceError, NotFiniteError, RequestError, unknown_name
from export.errors import ParityError, SourceError
from safelight.exits import ExitStatus, UsageError, exit_status
from vault import errors as vault_errors

EXPECTED = {
    UsageError("x"): 2,
    RequestError("x"): 2,
    unknown_name("sampler", "eular", ("euler",)): 2,
    vault_errors.BadValueError("x"): 2,
    vault_errors.NoKeyError("x"): 3,
    vault_errors.KeyStoreBrokenError("x"): 3,
    vault_errors.PhraseError("x"): 3,
    vault_errors.DamagedError("x"): 4,
    vault_errors.UnsupportedFormatError("x"): 4,
    vault_errors.NotFoundError("x"): 5,
    FileNotFoundError(2, "x"): 5,
    BundleError("x"): 6,
    NotFiniteError("x"): 6,
    SourceError("x"): 6,
    ParityError("x"): 6,
    DeviceError("x"): 7,
    vault_errors.StorageError("x"): 8,
    OSError(28, "No space left on device"): 8,
    KeyboardInterrupt(): 130,
    ZeroDivisionError("x"): 1,
}


@pytest.mark.parametrize(
    ("error", "status"), EXPECTED.items(), ids=lambda value: getattr(value, "name", None)
)
def test_each_error_ends_with_its_documented_status(error, status):
    assert exit_status(error) == status


def test_every_error_of_the_packages_has_a_status_other_than_unexpected():
    for module in (vault_errors, __import__("engine.errors", fromlist=["x"])):
        for name in module.__all__:
            cls = getattr(module, name)
            if isinstance(cls, type) and cls.__bases__ != (Exception,):
                assert exit_status(cls("x")) is not ExitStatus.UNEXPECTED, name
