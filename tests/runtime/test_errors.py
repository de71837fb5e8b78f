"""Error codes are unique, have consistent statuses, and are recovered from a server's message."""

import ast
from pathlib import Path

import pytest

import consisid_fidelity.errors  # noqa: F401  it defines subclasses, as the next one
import consisid_gateway.errors  # noqa: F401
from consisid_runtime import errors

ROOT = Path(__file__).parents[2]
KINDS = errors.all_errors()
STATUSES = {
    (400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "NOT_FOUND"),
    (409, "FAILED_PRECONDITION"), (409, "ALREADY_EXISTS"), (410, "NOT_FOUND"), (413, "RESOURCE_EXHAUSTED"),
    (416, "OUT_OF_RANGE"), (429, "RESOURCE_EXHAUSTED"), (499, "CANCELLED"), (500, "INTERNAL"), (502, "ABORTED"),
    (503, "UNAVAILABLE"), (504, "DEADLINE_EXCEEDED"), (507, "RESOURCE_EXHAUSTED"),
}  # fmt: skip
EXITS = {
    "INTERNAL": 1, "INVALID_OPTION": 3, "EMPTY_PROMPT": 3, "IMAGE_UNREADABLE": 3, "IMAGE_TOO_LARGE": 3,
    "IMAGE_TOO_SMALL": 3, "NO_FACE": 3, "MULTIPLE_FACES": 3, "FACE_INDEX_OUT_OF_RANGE": 3, "BUNDLE_MISSING": 4,
    "TIER_UNAVAILABLE": 3, "IDENTITY_EXPIRED": 3, "CHECKPOINT_REFUSED": 3, "MEMORY_TOO_SMALL": 3,
    "BUNDLE_CORRUPT": 4, "BUNDLE_VERSION": 4, "CHECKPOINT_INVALID": 4, "EXPORT_REFUSED": 4, "COLLECTION_INVALID": 4,
    "VIDEO_UNREADABLE": 4, "EXPORT_CANCELLED": 130, "NOT_FINITE": 8, "OUTPUT_UNWRITABLE": 5, "OUTPUT_BUSY": 5,
    "MISSING_EXTRA": 7, "SERVER_ERROR": 6, "SERVER_UNREACHABLE": 6, "SERVER_TIMEOUT": 6,
    "CLIENT_CLOSED": 3, "FORKED_PROCESS": 3, "FILE_INACCESSIBLE": 4,
    "MALFORMED_REQUEST": 3, "REQUEST_TOO_LARGE": 3, "NOT_FOUND": 3, "UNAUTHENTICATED": 3, "CANCELLED": 3, "BUSY": 6,
    "SERVER_DIED": 6, "CERTIFICATE_REFUSED": 6, "CONSENT_REFUSED": 3, "SIGNING_FAILED": 9, "HOOK_FAILED": 9,
    "SHARED_MEMORY_FULL": 6, "VIDEO_NOT_FOUND": 3, "VIDEO_NOT_READY": 3, "VIDEO_EXPIRED": 3, "BODY_UNREADABLE": 3,
    "RANGE_REFUSED": 3, "CHARACTER_NOT_READY": 3, "IDEMPOTENCY_CONFLICT": 3, "SCOPE_MISSING": 3, "KEY_UNKNOWN": 3,
    "CROSS_SITE": 3, "LIMIT_REACHED": 3, "ADDRESS_REFUSED": 3, "STORAGE_UNAVAILABLE": 6, "SCHEMA_NEWER": 4,
}  # fmt: skip
"""Scripts of users depend on these: a change belongs in the changelog."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_an_error_is_recovered_from_a_servers_message(kind: type[errors.ConsisIDError]) -> None:
    wrapped = f"in ensemble 'consisid', {kind('width must be 720: got 719').wire()}"
    received = errors.from_wire(wrapped)
    assert type(received) is kind
    assert str(received) == "width must be 720: got 719"


def test_a_message_without_a_code_is_a_server_error_with_the_whole_text() -> None:
    received = errors.from_wire("unexpected shape for input 'image'")
    assert type(received) is errors.ServerError
    assert str(received) == "unexpected shape for input 'image'"


def test_exit_codes_are_stable_and_codes_unique() -> None:
    assert {kind.code: kind.exit for kind in KINDS} == EXITS
    assert len(KINDS) == len(EXITS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_an_error_has_a_meaning_a_remedy_and_statuses_that_agree(kind: type[errors.ConsisIDError]) -> None:
    assert (kind.http, kind.grpc) in STATUSES
    for sentence in (kind.__dict__["__doc__"].partition("\n")[0], kind.__dict__["remedy"]):
        assert sentence.endswith(".") and sentence[0].isupper() and "\n" not in sentence


def test_parents_come_before_children() -> None:
    places = {kind: place for place, kind in enumerate(KINDS)}
    for kind, place in places.items():
        assert all(places[parent] < place for parent in kind.__mro__[1:] if parent in places)
    assert places[errors.ServerTimeout] == places[errors.ServerError] + 5, "a subtree is contiguous"


def test_every_exit_code_has_one_meaning() -> None:
    meanings = errors.exit_codes()
    assert set(meanings) == set(EXITS.values())
    assert meanings[3] == "The request cannot be carried out; nothing was generated."
    assert "NaN" in meanings[8]


def test_a_class_without_a_code_of_its_own_is_never_raised() -> None:
    abstract = {"InvalidRequest", "BundleError", "Unusable"}
    assert not abstract & {kind.__name__ for kind in KINDS}
    for path in ROOT.glob("*/consisid_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in abstract, f"{path}:{node.lineno}"
