"""The arrows between packages, kept by reading every import, those inside functions too.

deploy -> flows -> tasks -> netsim: nothing points back, and netsim knows no orchestrator. Inside netsim, a package
imports only what stands on a lower floor, and what reads a store knows nothing of what computes
(docs/project/design.md).
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("errors", "cancellation", "allocator"),
    ("references", "storage", "similarity"),
    ("settings", "statistics"),
    ("images",),
    ("networks", "store", "measures"),
    ("inversion", "results"),
    ("report",),
    ("stages",),
    ("planning", "verify"),
    ("score", "opened", "in_memory"),
)
READING = ("store", "results", "report", "opened")
COMPUTING = ("images", "networks", "inversion", "stages", "planning", "score", "in_memory")
ORCHESTRATORS = ("prefect", "prefect_dask", "dask", "distributed", "dask_jobqueue", "dask_kubernetes")
COMMAND_LINE = "flows/cli/"  # in flows/, but no flows
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


def offences(folder: str, forbidden: tuple[str, ...], *, besides: str = "\0") -> list[str]:
    """'file: name' for each forbidden module that the Python files of `folder` name."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files(folder)
        if besides not in str(path.relative_to(ROOT))
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
    assert offences("flows", ("flows.cli",), besides=COMMAND_LINE) == []


def test_flows_do_no_arithmetic():
    assert offences("flows", ("torch", "torchvision", "zarr", "scipy"), besides=COMMAND_LINE) == []


def test_deploy_has_no_code():
    assert python_files("deploy") == [ROOT / "deploy/__init__.py"]
    (docstring,) = ast.parse((ROOT / "deploy/__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)


def package_of(path: Path) -> str:
    """The part of netsim that a file belongs to: a package, or a module beside them."""
    return path.relative_to(ROOT / "netsim").parts[0].removesuffix(".py")


def arrows() -> set[tuple[str, str]]:
    """(from, to) between the parts of netsim."""
    found = set()
    for path in python_files("netsim"):
        for name in named_modules(path.read_text(), package=".".join(path.relative_to(ROOT).parent.parts)):
            top, _, rest = name.partition(".")
            if top == "netsim" and rest and path.name != "__init__.py":
                found.add((package_of(path), rest.partition(".")[0]))
    return {(start, end) for start, end in found if start != end}


def test_every_part_of_netsim_stands_on_a_floor():
    parts = {package_of(path) for path in python_files("netsim")} - {"__init__"}
    assert parts == {part for floor in FLOORS for part in floor}


def test_a_part_of_netsim_imports_only_what_stands_on_a_lower_floor():
    height = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
    assert [(start, end) for start, end in sorted(arrows()) if end in height and height[start] <= height[end]] == []


def test_what_reads_a_store_knows_nothing_of_what_computes():
    assert [arrow for arrow in arrows() if arrow[0] in READING and arrow[1] in COMPUTING] == []


def test_what_computes_an_image_knows_nothing_of_stores():
    pure = ("images", "networks", "inversion", "similarity")
    assert [arrow for arrow in arrows() if arrow[0] in pure and arrow[1] in READING] == []


def test_no_test_shadows_a_package():
    """Tests are packages of their own names, below tests/, which is none."""
    assert not (ROOT / "tests/__init__.py").exists()
    assert not {path.name for path in (ROOT / "tests").iterdir()} & {"netsim", "tasks", "flows", "deploy"}


@pytest.mark.parametrize("folder", ["netsim", "tasks", "flows"])
def test_nothing_is_unpickled(folder):
    """But by a process of its own (unit/networks/test_convert.py). Naming the error of a refused pickle loads none."""
    found = offences(folder, UNPICKLERS, besides="networks/unpickle.py")
    harmless = (": pickle.UnpicklingError", "networks/tensor_files.py: torch.load")
    assert [name for name in found if not name.endswith(harmless)] == []


def test_what_loads_files_of_torch_runs_no_code():
    (file,) = (path for path in python_files("netsim") if path.name == "tensor_files.py")
    calls = [call for call in ast.walk(ast.parse(file.read_text())) if isinstance(call, ast.Call)]
    loads = [call for call in calls if ast.unparse(call.func) == "torch.load"]
    assert len(loads) == 2
    for call in loads:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given["weights_only"] == "True" and "pickle_module" not in given and None not in given


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


def test_each_module_of_netsim_has_its_test_file():
    modules = [path.relative_to(ROOT / "netsim") for path in python_files("netsim") if not path.stem.startswith("__")]
    expected = [ROOT / "tests/unit" / path.parent / f"test_{path.stem.removeprefix('_')}.py" for path in modules]
    assert [str(path.relative_to(ROOT)) for path in expected if not path.exists()] == []
