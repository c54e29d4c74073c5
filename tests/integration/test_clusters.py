"""What `cluster:` says, in settings files, on the command line, and to SLURM."""

import pytest
import yaml
from pydantic import TypeAdapter

from flows.clusters.settings import Cluster, Kubernetes, Local, Scheduler, Slurm, parse_cluster, resolve_cluster
from netsim.errors import SettingsError
from netsim.settings import load_settings, parse_settings, read_settings
from support.servers import netsim
from support.sweeps import TINY

SLURM = {"kind": "slurm", "partition": "gpu", "walltime": "1-02:00:00"}


def test_a_settings_file_may_say_where_to_execute_and_names_the_same_run(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TINY | {"cluster": SLURM}))
    assert load_settings(str(path)) == parse_settings(TINY)
    values = read_settings(str(path), ["cluster.maximum=32"])["cluster"]
    chosen = resolve_cluster(values, origin=str(path), shards_per_task=8)
    assert isinstance(chosen, Slurm)
    assert (chosen.walltime_seconds, chosen.maximum, chosen.shards_per_task) == (26 * 3600, 32, 8)


def test_a_command_line_says_it_louder_and_once(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump({"cluster": SLURM}))
    values = {"kind": "kubernetes", "image": "netsim"}
    assert isinstance(resolve_cluster(values), Kubernetes)
    assert resolve_cluster(values, workers=3) == Local(workers=3)
    assert resolve_cluster(values, scheduler="tcp://here:1", credentials="lab") == Scheduler(
        address="tcp://here:1", credentials="lab"
    )
    assert isinstance(resolve_cluster(values, file=str(path)), Slurm)
    assert resolve_cluster(None) == Local()
    with pytest.raises(SettingsError, match=r"--workers and --cluster exclude each other: .* Give only one"):
        resolve_cluster(None, workers=2, file=str(path))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "slrum"}, r"kind of cluster must be one of local, scheduler, slurm, kubernetes, got 'slrum'"),
        ({"kind": ["slurm"]}, r"kind of cluster must be one of local, .*, got \['slurm'\]"),
        ({"kind": {"slurm": 1}}, r"kind of cluster must be one of local, .*, got \{'slurm': 1\}"),
        (["slurm"] * 100, r"must be a group of settings with a kind, got \['slurm', 'slurm', .*\.\.\.\]$"),
        ("slurm", r"mine.yaml: cluster must be a group of settings with a kind, got 'slurm'"),
        (
            {"kind": "slurm", "walltim": "1:00:00"},
            r"cluster of kind slurm: no setting 'walltim'; did you mean 'walltime'",
        ),
        ({"kind": "slurm", "walltime": "4h"}, r"walltime must be HH:MM:SS or D-HH:MM:SS, got '4h'"),
        ({"kind": "slurm", "walltime": "00:05:00"}, r"leave_early must be less than walltime 00:05:00, got 600 s"),
        ({"kind": "kubernetes"}, r"the setting 'image' is missing"),
        ({"kind": "slurm", "minimum": 9}, r"minimum must be at most maximum 8, got 9"),
        ({"kind": "slurm", "minimum": 0}, r"minimum must be greater than 0, got 0"),
        ({"kind": "slurm", "memory": "lots"}, r"memory must be an amount such as 16GB or 16GiB, got 'lots'"),
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
