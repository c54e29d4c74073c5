"""`make gpu` at sizes that a CPU finishes in seconds, so that it works when there is a GPU for the first time."""

import json
import sys
import time

import pytest
import torch
import yaml

from benchmarks import gpu
from netsim.settings import SweepSettings


def results(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs the real one")
def test_the_table_is_written_line_by_line_and_says_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--steps", "table", "--out", str(tmp_path)])
    gpu.main()
    rows = [row for row in results(tmp_path) if row["step"] == "table"]
    done = {(row["network"], row["code"], row["precision"]) for row in rows if "left_out" not in row}
    networks = ("torchvision:shufflenet_v2_x1_0@none", "small:mobilenet@none")
    assert {(name, "netsim", "float32") for name in networks} <= done
    assert {(name, "published", "float32") for name in networks} <= done
    assert all(row["images_per_s"] > 0 for row in rows if "left_out" not in row)
    assert [row["left_out"].rpartition(": ")[2] for row in rows if "left_out" in row] == ["this device has no TF32"] * 4
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.count("small:mobilenet@none") == 6
    assert "## Left out" in page


def test_what_a_budget_leaves_no_time_for_is_left_out(tmp_path):
    kept = gpu.Results(tmp_path)
    gpu.table(kept, gpu.TINY, time.monotonic() - 1)
    gpu.run_program(
        kept, "sweep", [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], 1.0, tmp_path
    )
    reasons = [row["left_out"] for row in results(tmp_path) if "left_out" in row]
    assert reasons[0] == "torchvision:shufflenet_v2_x1_0@none, batch 2: no time left"
    assert reasons[-1] == "not finished within 1 s; see sweep.log"


@pytest.mark.parametrize("size", [gpu.FULL, gpu.TINY], ids=["full", "tiny"])
def test_the_settings_of_the_sweep_are_valid(size):
    settings = SweepSettings.model_validate(yaml.safe_load(gpu.SWEEP.format(**size.sweep)))
    assert settings.pairs.count % settings.pairs.shard_size == 0


def test_a_program_is_kept_with_its_last_line_and_its_code(tmp_path):
    kept = gpu.Results(tmp_path)
    gpu.run_program(kept, "tests", [sys.executable, "-c", "print('first'); print('last'); exit(3)"], 60, tmp_path)
    (row,) = results(tmp_path)
    assert (row["code"], row["last_line"]) == (3, "last")
    assert "first" in (tmp_path / "tests.log").read_text(encoding="utf-8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_real_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="torch finds no GPU"):
        gpu.main()
