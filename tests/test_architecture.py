"""The arrows between the folders, kept by reading every import, those inside functions too.

deploy -> flows -> tasks -> netsim: nothing points back, and netsim knows no orchestrator (docs: design).
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORCHESTRATORS = ("prefect", "prefect_dask", "dask", "distributed", "dask_jobqueue", "dask_kubernetes")
COMMAND_LINE = tuple(
    path.name for path in (Path(__file__).parents[1] / "flows/cli").glob("*.py")
)  # in flows/, but no flows
UNPICKLERS = ("pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "torch.load")


def named_modules(source: str, package: str = "") -> set[str]:
    """Dotted names that `source` takes from elsewhere: imported, imported by a string, or reached through a module.

    `from a import b` counts as a.b, whether b is a module or not; relative imports are resolved against `package`.
    """
    names: set[str] = set()
    modules: dict[str, str] = {}  # what `import a.b as c` calls a.b here
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            modules |= {alias.asname: alias.name for alias in node.names if alias.asname}
            modules |= {name: name for alias in node.names if not alias.asname for name in alias.name.split(".")[:1]}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            names |= {f"{modules[root]}.{rest}"} if root in modules else set()
    return names


def within(name: str, module: str) -> bool:
    """Whether dotted `name` is `module` or lies in it: a.b.c is within a.b, a.bc is not."""
    return f"{name}.".startswith(f"{module}.")


def offences(folder: str, forbidden: tuple[str, ...], *, besides: tuple[str, ...] = ()) -> list[str]:
    """'file: name' for each forbidden module that the Python files of `folder` name."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files(folder)
        if path.name not in besides
        for name in sorted(named_modules(path.read_text(), package=".".join(path.relative_to(ROOT).parent.parts)))
        if any(within(name, module) for module in forbidden)
    ]


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import prefect.flows as p", "prefect.flows"),
        ("def f():\n    from distributed import get_worker", "distributed.get_worker"),
        ("from ..tasks import invert", "tasks.invert"),
        ("from . import cka", "netsim.part.cka"),
        ("import_module('tasks.invert')", "tasks.invert"),
        ("import torch\nweights = torch.load(path)", "torch.load"),
        ("def f():\n    import torch as t\n    return t.load(path)", "torch.load"),
        ("import torch.nn.functional\ntorch.load(path)", "torch.load"),
        ("from torch import load", "torch.load"),
    ],
)
def test_every_way_to_import_is_seen(source, name):
    package = "part" if source.startswith("from ..") else "netsim.part"
    assert name in named_modules(source, package=package)


def test_a_variable_is_not_taken_for_a_module():
    assert named_modules("tasks = []\ntasks.append(1)") == set()


@pytest.mark.parametrize("folder", ["netsim", "tasks", "flows"])
def test_each_layer_has_code_to_check(folder):
    assert len(python_files(folder)) > 2


def test_netsim_knows_no_orchestrator_and_no_layer_above_it():
    assert offences("netsim", (*ORCHESTRATORS, "tasks", "flows", "deploy")) == []


def test_tasks_know_neither_flows_nor_deploy():
    assert offences("tasks", ("flows", "deploy")) == []


def test_flows_take_only_settings_and_errors_from_netsim():
    taken = [
        offence
        for offence in offences("flows", ("netsim",), besides=COMMAND_LINE)
        if not any(within(offence.split(": ")[1], allowed) for allowed in ("netsim.settings", "netsim.errors"))
    ]
    assert taken == []


def test_flows_know_nothing_of_the_command_line():
    assert offences("flows", ("flows.cli.run", "flows.cli.console", "flows.cli.tables"), besides=COMMAND_LINE) == []


def test_flows_do_no_arithmetic():
    assert offences("flows", ("torch", "torchvision", "zarr", "scipy"), besides=COMMAND_LINE) == []


def test_deploy_has_no_code():
    assert python_files("deploy") == [ROOT / "deploy/__init__.py"]
    (docstring,) = ast.parse((ROOT / "deploy/__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)


def test_tests_are_flat_so_that_none_shadows_a_package():
    assert [path for path in python_files("tests") if path.parent != ROOT / "tests"] == []
    assert not (ROOT / "tests/__init__.py").exists()


@pytest.mark.parametrize("folder", ["netsim", "tasks", "flows"])
def test_nothing_is_unpickled(folder):
    """But by a process of its own (tests/test_convert.py). Naming the error of a refused pickle loads none."""
    found = offences(folder, UNPICKLERS, besides=("unpickle.py",))
    assert [name for name in found if not name.endswith(": pickle.UnpicklingError")] == []


def test_what_unpickles_is_a_process_of_its_own_that_knows_nothing_of_netsim():
    (file,) = (path for path in python_files("netsim") if path.name == "unpickle.py")
    assert not any(within(name, "netsim") for name in named_modules(file.read_text()))
    for folder in ("netsim", "tasks", "flows"):
        assert offences(folder, ("netsim.networks.unpickle",)) == []


@pytest.mark.parametrize("folder", ["netsim", "tasks", "flows"])
def test_no_array_file_may_hold_pickles(folder):
    allowed = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in python_files(folder)
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)  # as np.load
        for given in call.keywords
        if given.arg == "allow_pickle" and ast.unparse(given.value) != "False"
    ]
    assert allowed == []
