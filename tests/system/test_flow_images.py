"""A sweep on photographs in object storage, as users run it: unreadable ones stop it, or are skipped."""

import json

import numpy as np
import yaml

from netsim.settings import parse_settings
from support import image_formats
from support.seaweed import BUCKET
from support.servers import netsim, netsim_in_process
from support.sweeps import TINY, new_run, run_all


def test_a_sweep_stops_at_unreadable_images_by_name_or_skips_them(server, object_storage, tmp_path):
    image_formats.make_folder(tmp_path / "images", np.random.default_rng(0))
    for name in ("ant/1", "cat/0"):
        (tmp_path / f"images/test/{name}.png").write_bytes(b"broken")
    object_storage.filesystem().put(f"{tmp_path}/images/", f"{BUCKET}/photographs/", recursive=True)
    settings = TINY | {
        "images": {"source": f"folder:s3://{BUCKET}/photographs", "size": 32},
        "networks": ["a=torchvision:shufflenet_v2_x0_5@none", "b=torchvision:mobilenet_v3_small@none"],
        "pairs": {"count": 8, "shard_size": 4},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(settings))
    env = server | object_storage.environment

    stopped = netsim("run", "s.yaml", "--store", "stopped", "--workers", "1", env=env, cwd=tmp_path)
    assert stopped.returncode == 1 and "Traceback" not in stopped.stderr
    assert "cannot read 2 of 12 images" in stopped.stderr and "'ant/1.png'" in stopped.stderr

    without = parse_settings(settings | {"images": settings["images"] | {"unreadable": "skip"}})
    run_all(new_run(str(tmp_path / "skipped"), without))
    done = netsim_in_process("run", "--store", "skipped", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 12 test images were unreadable and skipped" in " ".join(done.stdout.split())
    status = json.loads(netsim_in_process("status", "skipped", "--json", env=env, cwd=tmp_path).stdout)
    assert [image["name"] for image in status["images"]["test"]["unreadable"]] == ["ant/1.png", "cat/0.png"]
    assert status["stages"][0]["name"] == "check" and status["stages"][0]["done"] == 1
