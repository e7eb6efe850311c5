"""Hooks of mkdocs: pages that lie outside docs/ become pages of the site, and links between all of them hold."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "models/default/README.md": "model-card.md",
    "models/detectors/change/README.md": "detector-card.md",
    "sample_tiles/valley/README.md": "sample-scene.md",
}
"""Files of the repository -> pages of the site."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)((?:#[^)]*)?)\)")
_FILE_NAME = re.compile(r"(?:docs/)?([\w-]+)\.md")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere."""
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a page of docs/ to pages that lie elsewhere."""
    path = page.file.src_uri
    return markdown if path in ELSEWHERE.values() else relinked(markdown, f"docs/{path}")


def relinked(text: str, source: str) -> str:
    """A page with its links as they are on the site; what the site does not hold is plain text.

    Args:
        text: Markdown.
        source: its file, from the root of the repository.
    """

    def link(match: re.Match[str]) -> str:
        mark, label, path, anchor = match.groups()
        if name := _FILE_NAME.fullmatch(label):  # "docs/batch.md" is no name for a page of a site
            label = name[1]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = ELSEWHERE.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else "")
        return f"{mark}[{label}]({page}{anchor})" if page else label

    return _LINK.sub(link, text)
