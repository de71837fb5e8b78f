import json
from pathlib import Path

import pytest

from consisid_measurement.proof import Proof


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text("1\n")
    return tmp_path


def resume(root: Path) -> Proof:
    return Proof.resume(root / "results" / "kills.json", root, ["test_it.py"], "test_kills")


def test_trials_are_kept_while_the_source_files_are_the_same(root: Path) -> None:
    resume(root).record("0", killed=True)
    again = resume(root)
    again.record("1", killed=False)
    found = Proof.read(again.path)
    assert [trial["killed"] for trial in found.trials.values()] == [True, False]
    assert found.trials["0"]["test"] == "test_kills" and found.trials["0"]["when"].endswith("Z")
    assert (found.sources, found.commit) == (again.sources, "unknown")
    (root / "test_it.py").write_text("2\n")
    assert resume(root).trials == {}


def test_a_record_without_a_digest_is_read_and_not_continued(root: Path) -> None:
    path = resume(root).path
    path.parent.mkdir()
    path.write_text(json.dumps({"trials": {"0": {"killed": True, "when": "2026-11-20T14:23:36Z"}}}))
    assert Proof.read(path).sources is None
    assert resume(root).trials == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"trials": {}, "surplus": 1}', '{"sources": {"entry": []}}'])
def test_a_malformed_record_is_named(root: Path, content: str) -> None:
    (root / "kills.json").write_text(content)
    with pytest.raises(ValueError, match=r"kills\.json: not the record of a proof"):
        Proof.read(root / "kills.json")


def test_the_fixture_knows_test_and_source_files(proof: object, request: pytest.FixtureRequest) -> None:
    assert callable(proof)
    found = proof("never-recorded")
    assert found.sources.entry == ("tests/measurement/test_proof.py", "tests/conftest.py")
    assert found.test == request.function.__name__
    assert not found.path.exists()
