"""What `cluster:` says, in settings files, on the command line, and to SLURM."""

import pytest
import yaml
from pydantic import TypeAdapter

from flows.clusters.settings import Cluster, Kubernetes, Local, Scheduler, Slurm, chosen_cluster, parse_cluster
from netsim.errors import SettingsError
from netsim.settings import load_settings, parse_settings, read_settings
from support.servers import netsim
from support.sweeps import TINY

SLURM = {"kind": "slurm", "partition": "gpu", "walltime": "1-02:00:00"}


def test_a_settings_file_may_say_where_to_execute_and_names_the_same_run(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TINY | {"cluster": SLURM}))
    assert load_settings(str(path)).digest() == parse_settings(TINY).digest()
    said = read_settings(str(path), ["cluster.maximum=32"])["cluster"]
    chosen = chosen_cluster((str(path), said), shards_per_task=8)
    assert isinstance(chosen, Slurm)
    assert (chosen.seconds, chosen.maximum, chosen.shards_per_task) == (26 * 3600, 32, 8)


def test_a_command_line_says_it_louder_and_once(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump({"cluster": SLURM}))
    said = ("mine.yaml", {"kind": "kubernetes", "image": "netsim"})
    assert isinstance(chosen_cluster(said), Kubernetes)
    assert chosen_cluster(said, workers=3) == Local(workers=3)
    assert chosen_cluster(said, scheduler="tcp://here:1", credentials="lab") == Scheduler(
        address="tcp://here:1", credentials="lab"
    )
    assert isinstance(chosen_cluster(said, file=str(path)), Slurm)
    assert chosen_cluster(None) == Local()
    with pytest.raises(SettingsError, match=r"--workers and --cluster each say where to execute; give one of them"):
        chosen_cluster(None, workers=2, file=str(path))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "slrum"}, r"a cluster of kind 'slrum'; .* of kind local, scheduler, slurm, kubernetes"),
        ("slurm", r"a cluster 'slurm'; it is a group of settings"),
        (
            {"kind": "slurm", "walltim": "1:00:00"},
            r"cluster of kind slurm: no setting 'walltim'; did you mean 'walltime'",
        ),
        ({"kind": "slurm", "walltime": "4h"}, r"walltime must match pattern .*, got '4h'"),
        ({"kind": "slurm", "walltime": "00:05:00"}, r"leave_early 600 leaves nothing of walltime 00:05:00"),
        ({"kind": "kubernetes"}, r"the setting 'image' is missing"),
        ({"kind": "slurm", "minimum": 9}, r"minimum 9 is more than maximum 8"),
        ({"kind": "slurm", "minimum": 0}, r"minimum must be greater than 0, got 0"),
        ({"kind": "slurm", "memory": "lots"}, r"memory: 'lots' is no amount of memory, as 16GB"),
        ({"workers": 0}, r"cluster of kind local: workers must be greater than 0, got 0"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(values, says):
    with pytest.raises(SettingsError, match=says) as refused:
        parse_cluster(values, origin="mine.yaml")
    assert "\n" not in str(refused.value)


def test_every_kind_goes_through_the_form_of_the_ui():
    """Prefect gives flows what its form says, as JSON."""
    form = TypeAdapter(Cluster)
    for cluster in (Local(gpus=2), Scheduler(address="tcp://here:1"), parse_cluster(SLURM | {"directives": ["-x a"]})):
        assert form.validate_python(form.dump_python(cluster, mode="json")) == cluster


def test_a_mistake_about_the_cluster_ends_the_command_before_anything_is_made(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TINY | {"cluster": {"kind": "slurm"}}))
    without_slurm = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    found = netsim("run", str(path), "--set", "cluster.partitoin=gpu", env=without_slurm, cwd=tmp_path)
    assert found.returncode == 2 and "no setting 'partitoin'; did you mean 'partition'?" in found.stderr
    assert not (tmp_path / "runs").exists()
