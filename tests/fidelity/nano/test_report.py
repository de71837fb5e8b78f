import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from consisid_fidelity.nano.record import Findings, NanoRecord, read
from consisid_fidelity.nano.report import block, order, plots
from consisid_fidelity.nano.variants import EXACT, STEPS
from consisid_measurement.record import Gate, Machine
from consisid_runtime.options import Options


def figure(mean: float, change: float | None = None, n: int = 100) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": n}
    return found if change is None else found | {"change": figure(change, n=n)}


@pytest.fixture
def record() -> NanoRecord:
    def identity(arc: float, change: float | None = None) -> dict[str, dict[str, Any]]:
        return {"facesim_arc": figure(arc, change), "person.eye_colour": figure(arc, change), "rank1": figure(0.97)}

    figures = {
        "ground-truth": identity(0.96, 0.15),
        EXACT: identity(0.81) | {"prompt.place": figure(0.99), "facesim_other": figure(-0.02), "own.scar": figure(0.9)},
        "other-local": {"own.scar": figure(0.3), "other.scar": figure(0.6)},
        "no-local": identity(0.70, -0.11),
        "no-global": identity(0.75, -0.06),
        "neither": identity(0.01, -0.8),
        "3-bit-weights": {"latents": figure(0.5), "psnr": figure(18.0), "facesim_arc": figure(0.6, -0.2)},
        "8-bit-weights": {"latents": figure(0.01), "psnr": figure(45.0), "facesim_arc": figure(0.81, 0.0)},
    }
    figures |= {
        f"dpm-{steps}-steps": {
            "facesim_arc": figure(0.8),
            "latents": figure(1 / steps),
            "denoise_seconds": figure(steps / 20),
        }
        for steps in STEPS
    }
    verdicts = {
        "8-bit-weights": {"passed": True, "failed": [], "criteria": []},
        "3-bit-weights": {"passed": False, "failed": ["identity", "latents"], "criteria": []},
    }
    spectra = {"ground-truth": [-1.0, -2.0], EXACT: [-1.1, -2.5]}
    return NanoRecord(
        gate=Gate("tests/x.py", passed=True),
        machine=Machine("cpu-2core", "A CPU", 2, 24, None),
        versions={"torch": "2.13.0"},
        commit="0123456789ab",
        when="2026-11-20T12:00:00Z",
        settings={"people": 100, "sweep": 24, "gallery": 100, "options": asdict(Options(steps=50, guidance=6.0))},
        digests={"bundle": "f" * 64, "judges": {}, "code": "0" * 64},
        findings=Findings(figures, spectra, verdicts),
    )


def cells(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables_hold_figures_changes_and_the_papers_figures(record: NanoRecord) -> None:
    text = block([record])
    assert "100 held-out people" in text and "50 steps of dpm, guidance 6" in text and "0123456789ab" in text
    shown = ["96 % (95 to 97)", "–", "81 % (80 to 82)", "75 % (−6 ± 1)", "70 % (−11 ± 1)", "1 % (−80 ± 1)"]
    assert cells(text, "eye colour") == ["eye colour", *shown]
    assert cells(text, "scar")[1:5] == ["90 % (89 to 91)", "–", "30 % (29 to 31)", "60 % (59 to 61)"]
    deprived = [line for line in text.splitlines() if line.startswith("| `no-local` |")]
    assert deprived and "0.70 (0.69 to 0.71) | −0.110 ± 0.010" in deprived[0] and deprived[0].endswith("| 0.66 |")
    assert cells(text, "50 `dpm`")[-1] == "0.52" and cells(text, "5 `dpm`")[-1] == "–"
    assert cells(text, "200 `dpm`")[3:5] == ["–", "–"]


def test_the_gate_table_reports_what_was_caught(record: NanoRecord) -> None:
    assert cells(block([record]), "damage: 3 bit weights")[1:3] == ["caught", "identity, latents"]
    assert cells(block([record]), "control: 8 bit weights")[1:3] == ["passed", "–"]
    verdicts = record.findings.verdicts
    verdicts["3-bit-weights"]["passed"], verdicts["8-bit-weights"]["passed"] = True, False
    assert cells(block([record]), "damage: 3 bit weights")[1] == "NOT CAUGHT"
    assert cells(block([record]), "control: 8 bit weights")[1] == "FAILED"


def test_the_order_is_compared_with_the_papers(record: NanoRecord) -> None:
    figures = record.findings.figures
    assert "`no-local` < `no-global` < `exact`; the paper's is `no-global` < `no-local` < `exact`" in order(figures)
    figures["no-global"]["facesim_arc"] = figure(0.1)
    assert order(figures).startswith("The order by FaceSim-Arc is the paper's")


def test_ablations_within_chance_of_exact_are_named(record: NanoRecord) -> None:
    figures = record.findings.figures
    figures["no-local"]["facesim_arc"] |= {"change": {"mean": -0.006, "low": -0.015, "high": 0.003, "n": 24}}
    assert order(figures).endswith("Not distinguishable from `exact` by it: `no-local`.")
    figures["no-local"]["facesim_arc"] |= {"change": {"mean": -0.006, "low": -0.009, "high": -0.003, "n": 24}}
    assert "`no-local`." not in order(figures)


def test_plots_are_the_same_bytes_for_the_same_record(record: NanoRecord) -> None:
    first = plots(record)
    assert list(first) == ["fidelity-steps.png", "fidelity-spectra.png"]
    assert all(picture.startswith(b"\x89PNG") for picture in first.values()) and plots(record) == first
    record.findings.spectra[EXACT][1] = -2.6
    assert plots(record)["fidelity-spectra.png"] != first["fidelity-spectra.png"]


def test_a_record_is_read_back(record: NanoRecord, tmp_path: Path) -> None:
    path = record.write(tmp_path)
    assert path == tmp_path / "cpu-2core" / "fidelity.json" and read(path) == record
    content = json.loads(path.read_bytes())
    assert content["suite"] == "fidelity"
    path.write_text(json.dumps({name: value for name, value in content.items() if name != "findings"}))
    with pytest.raises(ValueError, match=r"fidelity\.json: not a record"):
        read(path)
    elsewhere = tmp_path / "h200" / "fidelity.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="cpu-2core"):
        read(elsewhere)


def test_no_record_is_reported() -> None:
    assert "Not measured yet" in block([])
