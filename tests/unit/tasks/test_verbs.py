"""Tasks of the stages."""

from netsim.store.stages import STAGES
from tasks import verbs

NAMES = [*(stage.name for stage in STAGES), "measure", "layers"]


def test_every_stage_has_a_task_of_its_name_that_the_ui_describes():
    for name in NAMES:
        task = getattr(verbs, name)
        assert task.name == name and task.description.endswith(".")
        assert task.task_run_name.startswith(name)


def test_no_task_result_is_cached_or_kept():
    """The store is the only memory of progress."""
    for name in NAMES:
        task = getattr(verbs, name)
        assert (task.cache_policy.__class__.__name__, task.persist_result, task.retries) == ("_None", False, 2)
