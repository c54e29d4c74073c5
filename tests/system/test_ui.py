"""A sweep in the pages of Prefect's UI, in a headless Chromium. `make ui` runs it; it requires Debian's chromium.

The browser reaches nothing but the server: every other address is refused, as offline.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect, sync_playwright

from netsim.results.findings import network_table
from netsim.results.results import load_results
from netsim.settings import parse_settings
from netsim.store.run import Run
from support.servers import netsim, wait_until
from system.test_flow_sweep import runs_of, without_cohort

pytestmark = [pytest.mark.ui, pytest.mark.timeout(900)]  # a server, workers and a browser on two busy cores

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
PATIENCE = 120  # seconds
NOWHERE = Path("/nowhere/typed")

SETTINGS: dict[str, Any] = {
    "networks": ["small:vgg@none", "small:resnet18@none"],  # random weights take no training
    "pairs": {"count": 16, "shard_size": 4},
    "inversion": {"iterations": 5, "batch_size": 4},
}


@pytest.fixture(scope="module")
def sweep(server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """Run a sweep to its end, and return it with the page that the terminal links."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "seen.yaml").write_text(yaml.safe_dump(SETTINGS))
    store = folder / "runs" / "seen"
    done = netsim("run", "seen.yaml", "--store", str(store), "--workers", "2", env=server, cwd=folder)
    assert done.returncode == 0, done.stderr
    (link,) = re.findall(r"^follow it at (\S+)$", done.stdout, re.MULTILINE)
    return Run.open(str(store)), link


@pytest.fixture
def page(server: dict[str, str]) -> Iterator[Page]:
    """A page of a browser that reaches the server and nothing else."""
    ui = server["PREFECT_API_URL"].removesuffix("/api")

    def only_the_server(route: Route) -> None:
        if route.request.url.startswith((ui, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, chromium_sandbox=False)
        context = browser.new_context(base_url=ui, viewport={"width": 1400, "height": 1000})
        context.route("**/*", only_the_server)
        context.set_default_timeout(1000 * PATIENCE)
        expect.set_options(timeout=1000 * PATIENCE)
        yield context.new_page()
        browser.close()


def nodes_of(page: Page, name: str) -> set[tuple[str, str]]:
    """Open the run named `name` and return kind and label of the nodes in its graph, once they are drawn."""
    with page.expect_response(lambda response: response.url.endswith("/graph-v2") and response.ok) as answer:
        page.get_by_role("link", name=name, exact=True).first.click()
    expect(page.get_by_text("Artifacts", exact=True).last).to_be_visible()
    wait_until(lambda: green_pixels(page) > 200, seconds=PATIENCE, what=lambda: f"{green_pixels(page)} green pixels")
    return {(node["kind"], node["label"]) for _, node in answer.value.json()["nodes"]}


def green_pixels(page: Page) -> int:
    """Count the green pixels of the graph: it is a canvas in which completed runs are green."""
    picture = Image.open(io.BytesIO(page.locator("canvas").first.screenshot())).convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(picture).astype(int), -1, 0)
    return int(((green > red + 60) & (green > blue + 40)).sum())


def artifact(page: Page, run: str, key: str) -> None:
    """Open the newest artifact with this key from the page of a run."""
    page.goto(run)
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_role("link").filter(has_text=key).first.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()  # the newest of those with this key
    page.wait_for_url("**/artifacts/artifact/**")
    expect(page.get_by_role("tab", name="Raw")).to_be_visible()


def field(form: Page | Locator, name: str, *, optional: bool = True) -> Locator:
    """Return the innermost part of a form with the field of this name."""
    label = f"{name} (Optional)" if optional else name
    inside = form if isinstance(form, Page) else form.page
    return form.locator("div.group", has=inside.get_by_text(label, exact=True)).last


def cells_of(page: Page) -> list[list[str]]:
    """Read the cells of the first table."""
    rows = page.locator("table").first.locator("tr")
    expect(rows.nth(1)).to_be_visible()
    return [row.locator("th, td").all_inner_texts() for row in rows.all()]


def test_the_ui_shows_a_sweep_with_its_graph_progress_tables_and_images(page, sweep, server):
    run, link = sweep
    page.goto("/")
    page.get_by_role("link", name="Runs").click()
    assert {("flow-run", "train / train-seen"), ("flow-run", "compare / compare-seen")} <= nodes_of(page, "sweep-seen")
    landing = page.url.partition("?")[0]
    assert landing == link

    page.get_by_role("tab", name="Subflow Runs").click()
    tasks = {"draw-0000", "invert-vgg-0000", "embed-inverted/resnet18-0000", "aggregate-natural/vgg-4", "report"}
    nodes = {(kind, without_cohort(name)) for kind, name in nodes_of(page, "compare-seen")}
    assert {("task-run", name) for name in tasks} <= nodes

    page.get_by_role("tab", name="Task Runs").click()
    expect(page.get_by_text("invert-vgg-0000").first).to_be_visible()
    for tag in ("network:vgg", "stage:invert"):
        expect(page.get_by_text(tag).first).to_be_visible()
    page.get_by_role("tab", name="Logs").click()
    expect(page.get_by_text("invert vgg shard 0 took").first).to_be_visible()

    artifact(page, landing, "Shards inverted: 8 of 8")
    expect(page.get_by_text("Progress: 100%")).to_be_visible()

    results = load_results(run)
    artifact(page, landing, "seen-natural-cka")
    header, first, _ = cells_of(page)
    assert header == ["through", "vgg", "resnet18"] and first[0] == "vgg"
    assert first[2].startswith(f"{results.cells('natural')[0, 1]:.3f} [".replace("-", "−"))

    artifact(page, landing, "seen-losses")
    assert cells_of(page)[1:] == [list(row.values()) for row in network_table(results)]

    artifact(page, landing, "seen-throughput-invert")
    header, *workers = cells_of(page)
    assert header == ["worker", "device", "shards", "images", "seconds", "images/s", "of peak"]
    assert sum(int(row[3]) for row in workers if row[1]) == 2 * 16  # rows of workers have a device

    artifact(page, landing, "seen-summary")
    expect(page.locator("pre").filter(has_text=f"netsim report {run.url} -o report")).to_be_visible()

    for key in ("seen-heatmaps", "seen-gallery"):
        artifact(page, landing, key)
        image = page.locator("img[src^='data:image/']").first
        expect(image).to_be_visible()
        wait_until(lambda: image.evaluate("image => image.naturalWidth") > 100, seconds=PATIENCE)  # noqa: B023


@pytest.fixture
def deployment(server: dict[str, str]) -> Iterator[UUID]:
    """Deploy the sweep as in deploy/prefect.yaml. No worker polls for its runs."""
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import RunnerDeployment
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.sweep import sweep

    parameters = {"settings": parse_settings(SETTINGS).model_dump(mode="json"), "store": str(NOWHERE)}
    with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}):
        made: Any = RunnerDeployment.from_flow(sweep, name="typed", parameters=parameters).apply()
        yield made
        with get_client(sync_client=True) as client:
            for run in runs_of(server, NOWHERE):
                client.delete_flow_run(UUID(run["id"]))
            client.delete_deployment(made)


def test_the_parameter_form_enforces_the_bounds_and_starts_a_run_with_the_typed_values(deployment, page, server):
    """The deployment is made first: while Playwright runs, Prefect takes its synchronous functions for asynchronous."""
    page.goto(f"/v2/deployments/deployment/{deployment}/run")
    count, submit = page.get_by_label("count (Optional)"), page.get_by_role("button", name="Submit")
    expect(count).to_have_value("16")
    expect(count).to_have_attribute("min", "4")
    expect(page.get_by_text("no target occurs twice")).to_be_visible()
    count.fill("2")
    submit.click()
    assert "greater than or equal to 4" in count.evaluate("field => field.validationMessage")
    count.fill("64")
    page.get_by_label("iterations (Optional)").fill("7")
    until = field(page, "until")
    until.get_by_role("tab", name="rule").click()
    field(until, "half_width").get_by_role("tab", name="float").click()
    field(until, "half_width").get_by_role("spinbutton").fill("0.02")
    networks = field(page, "networks", optional=False)
    networks.get_by_role("button", name="Add item").click()
    networks.get_by_role("tab", name="mapping").last.click()
    field(networks, "reference", optional=False).get_by_role("textbox").last.fill("small:vgg")
    field(networks, "name").get_by_role("tab", name="str").click()
    field(networks, "name").get_by_role("textbox").fill("late")
    networks.get_by_role("tab", name="changes").click()
    networks.get_by_role("tabpanel", name="changes").get_by_label("epochs (Optional)").fill("3")
    page.get_by_role("tab", name="slurm").click()
    field(page, "partition").get_by_role("tab", name="str").click()
    field(page, "partition").get_by_role("textbox").fill("gpu")
    with page.expect_response(lambda response: response.url.endswith("/create_flow_run") and response.ok):
        submit.click()  # requests of the page pass only while Playwright waits for something

    page.goto(f"/v2/deployments/deployment/{deployment}/run")
    page.get_by_label("iterations (Optional)").fill("-5")
    submit.click()
    expect(page.get_by_text("-5 is less than or equal to the minimum of 0").first).to_be_visible()

    (made,) = runs_of(server, NOWHERE)
    settings = made["parameters"]["settings"]
    assert (settings["inversion"]["iterations"], settings["pairs"]["count"]) == (7, 64)
    assert settings["pairs"]["until"]["half_width"] == 0.02
    late = {"reference": "small:vgg", "name": "late", "group": None, "training": {"epochs": 3}, "grid": None}
    assert settings["networks"] == [*SETTINGS["networks"], late]
    cluster = made["parameters"]["cluster"]
    assert (cluster["kind"], cluster["partition"], cluster["walltime"]) == ("slurm", "gpu", "04:00:00")
    assert made["state_type"] == "SCHEDULED"
