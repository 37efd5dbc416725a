"""The beginning of a new bundle: a whole one that runs, with the one method to fill in."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import check_writable, write_json
from common.release.versions import check_name

__all__ = ["new_bundle"]

_COPIED = ("configs", "models", "LICENSE", "docs/data_license.txt")
_FIRST_LINE = '"""TODO: the method in one line, and its paper. Change `restore`; this is what it was:\n\n'
_PAGE = """# {name}

TODO: what the method does, in three sentences, and its paper. It begins as a copy of `{like}`.

## Use
```bash
python -m monai.bundle run --config_file configs/inference.json --dataset_dir SCANS --output_dir OUT
python -m monai.bundle run --config_file "['configs/inference.json','configs/evaluate.json']" --dataset_dir DATALIST
python -m monai.bundle run --config_file "['configs/inference.json','configs/calibrate.json']" --dataset_dir HEALTHY
python -m monai.bundle run --config_file configs/train.json --dataset_dir HEALTHY
```
Run them inside the bundle. TODO: a table of the keys of `inference.json` that belong to the method.

## Results
TODO: run `evaluate.json`, put the figures into `results.json`, then `anomaly-zoo table --update`.

<!-- results: bundle -->
<!-- /results -->

## Differences from the paper and from the authors' code
TODO

## Licence
Code Apache-2.0; weights: see `data_license.txt`.
"""


def new_bundle(name: str, like: str | Path, folder: str | Path) -> Path:
    """Make a bundle that does what another does, with the method's code in a module of its own.

    The configs, the network and its weights are those of the other bundle; ``<name>_inferer.py`` in the bundle holds
    its inferer, under a new name, and ``inference.json`` uses it. So it runs before the first line is changed.

    Args:
        name: of the bundle.
        like: folder of the bundle to begin with.
        folder: gets the bundle.

    Returns:
        the bundle.

    Raises:
        InputError: a name that cannot be or is taken, a bundle whose inferer is in no module that can be copied, or a
            folder that cannot be written.
    """
    like, target = Path(like), Path(folder) / check_name(name)
    module = f"{name}_inferer"
    if target.exists():
        raise InputError(target, "exists already", "choose another name, or remove it")
    if importlib.util.find_spec(module) is not None:
        raise InputError(f"name '{name}'", f"would hide the module '{module}'", "choose another name")
    dotted = json.loads((like / "configs" / "inference.json").read_text(encoding="utf-8"))["inferer"]["_target_"]
    made = "".join(part.capitalize() for part in name.split("_")) + "Inferer"
    code = _inferer(dotted, made, like)
    check_writable(folder)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        bundle = work / name
        for part in _COPIED:
            if (like / part).is_dir():
                shutil.copytree(like / part, bundle / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                (bundle / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(like / part, bundle / part)
        (bundle / f"{module}.py").write_text(code, encoding="utf-8")
        config = bundle / "configs" / "inference.json"
        text = config.read_text(encoding="utf-8").replace(f'"{dotted}"', f'"{module}.{made}"')
        config.write_text(text, encoding="utf-8")
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        write_json(bundle / "configs" / "metadata.json", _metadata(metadata, name, like.resolve().name))
        (bundle / "docs" / "README.md").write_text(_PAGE.format(name=name, like=like.resolve().name), encoding="utf-8")
        write_json(bundle / "docs" / "results.json", {"version": "0.1.0", "results": []})
        os.rename(bundle, target)
    finally:
        shutil.rmtree(work)
    return target


def _inferer(dotted: str, made: str, like: Path) -> str:
    """The module of an inferer with its class under a new name."""
    package, _, name = dotted.rpartition(".")
    try:
        file = inspect.getsourcefile(getattr(importlib.import_module(package), name))
        code = Path(str(file)).read_text(encoding="utf-8")
    except (ImportError, AttributeError, TypeError, ValueError, OSError) as error:
        problem = f"has an inferer '{dotted}' that cannot be copied"
        raise InputError(like, problem, "begin with a bundle of the zoo") from error
    code = re.sub(rf"\b{re.escape(name)}\b", made, code)
    return code.replace('"""', _FIRST_LINE, 1)


def _metadata(metadata: dict[str, Any], name: str, like: str) -> dict[str, Any]:
    changes = {
        "name": name,
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "description": f"TODO: the method in a sentence. Begins as a copy of {like}.",
        "references": [],
    }
    return metadata | changes
