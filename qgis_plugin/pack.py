"""Packs the QGIS plugin as a zip: `python qgis_plugin/pack.py DIST` says where. The same files, the same bytes.

With geo-refdiff installed, `python qgis_plugin/pack.py --options` rewrites the plugin's options.json: what its forms
know of the command's options.
"""

from __future__ import annotations

import configparser
import json
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
NAME = "geo_refdiff_qgis"
_FILES = ("*.py", "*.txt", "*.svg", "*.json")


def write_options(path: Path = HERE / NAME / "options.json") -> None:
    """What the forms know of each option of `upscale`, from `geo_refdiff.options`."""
    from geo_refdiff.options import as_forms

    path.write_text(json.dumps(as_forms(), indent=1) + "\n", encoding="utf-8")


def pack(folder: Path) -> Path:
    """The zip that QGIS installs, `folder/geo_refdiff_qgis-VERSION.zip`."""
    metadata = configparser.ConfigParser()
    metadata.read_string((HERE / NAME / "metadata.txt").read_text(encoding="utf-8"))
    files = {f"{NAME}/{p.name}": p for pattern in _FILES for p in (HERE / NAME).glob(pattern)}
    files[f"{NAME}/LICENSE"] = HERE.parent / "LICENSE"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{NAME}-{metadata['general']['version']}.zip"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return out


if __name__ == "__main__":
    if sys.argv[1:] == ["--options"]:
        write_options()
    else:
        print(pack(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
