"""The site of the documentation: every page is in the menu, it builds without a warning, its links hold."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from geo_refdiff.cli.main import cli

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which dask brings")

ROOT = Path(__file__).parents[2]


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """mkdocs' own tags, if there are any, are of no interest here."""


def menu() -> list[str]:
    def pages(entries: list[Any]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values() if isinstance(entry, dict) else [entry]:
                yield from pages(value) if isinstance(value, list) else [value]

    return list(pages(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]))


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install 'geo-refdiff[docs]'")
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_menu_once(hooks: ModuleType) -> None:
    held = {
        path.relative_to(ROOT / "docs").as_posix()
        for kind in ("*.md", "*.ipynb")
        for path in ROOT.glob(f"docs/**/{kind}")
    }
    assert sorted(menu()) == sorted(held | set(hooks.ELSEWHERE.values()))
    assert all((ROOT / source).is_file() for source in hooks.ELSEWHERE)


def test_links_are_those_of_the_site(hooks: ModuleType) -> None:
    def relinked(text: str, source: str) -> str:
        return str(hooks.relinked(text, source))

    assert relinked("see [b](docs/batch.md#x) ![p](docs/a.jpg)", "README.md") == "see [b](batch.md#x) ![p](a.jpg)"
    assert relinked("[m](../models/default/README.md)", "docs/training.md") == "[m](model-card.md)"
    assert relinked("[d](../../docs/data.md)", "models/default/README.md") == "[d](data.md)"
    assert relinked("[batch.md](batch.md) [docs/qgis.md](docs/qgis.md)", "README.md").endswith("[qgis](qgis.md)")
    assert relinked("[l](LICENSE), ![q](models/x.png)", "README.md") == "l, q"
    assert (
        relinked("[w](https://example.org/a.md) [h](#here)", "README.md") == "[w](https://example.org/a.md) [h](#here)"
    )


PLACES = ("", "geo_refdiff", "benchmarks")
"""Where the files that pages name may lie."""


def all_flags(command: click.Command) -> Iterator[str]:
    for option in command.params:
        yield from (*option.opts, *option.secondary_opts)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from all_flags(inner)


def test_files_and_options_that_pages_name_exist() -> None:
    flags = set(re.findall(r"--[a-z][a-z-]+", "".join(path.read_text() for path in ROOT.glob("benchmarks/*.py"))))
    flags |= {"--help", "--resources"} | set(all_flags(cli))  # --resources: of dask worker
    wrong = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for code in re.findall(r"`([^`\n]+)`", page.read_text()):
            if re.fullmatch(r"([\w-]+/)*\w+\.py", code) and not any((ROOT / place / code).exists() for place in PLACES):
                wrong.append(f"{page.name}: {code}")
            named = re.match(r"--[a-z][a-z-]+", code)
            if named and named[0] not in flags:
                wrong.append(f"{page.name}: {code}")
    assert not wrong


@pytest.fixture(scope="module")
def site(hooks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning."""
    for name in ("material", "mkdocs_jupyter"):
        pytest.importorskip(name, reason="needs the extra docs: pip install 'geo-refdiff[docs]'")
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    surroundings = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "WARNING" not in run.stderr
    return folder


def test_the_site_has_every_page_of_the_menu(site: Path) -> None:
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {page.rpartition(".")[0] + ".html" for page in menu()} <= built
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"products.html", "models.html", "tutorial.html", "model-card.html"} <= found


def test_pages_from_disk_can_be_searched(site: Path, browse: Callable[..., str]) -> None:
    page = browse(site / "index.html", "--dump-dom", query="?q=lattice")
    matches = re.search(r'md-search-result__meta">\s*(\d+) matching documents', page)
    assert matches is not None
    assert int(matches[1]) > 1
    assert 'href="design.html' in page


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["title"], citation["version"], citation["license"]) == (
        project["name"], project["version"], project["license"],
    )  # fmt: skip
    paper = citation["references"][0]
    assert paper["title"].startswith("Building Bridges across Spatial and Temporal Resolutions")
    assert (paper["year"], len(paper["authors"]), paper["url"]) == (2024, 9, "https://arxiv.org/abs/2403.17460")
