"""Running a bundle on a data set by its own configs, from Python, with what it writes replaced."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from common.errors import InputError
from common.networks import sha256
from common.version import __version__

__all__ = [
    "BundleRun",
    "names_file",
    "one_set_each",
    "overrides_of",
    "read_settings",
    "refuse_unknown",
    "settings_for",
    "the_process_as_before",
]

_CONFIG = Path("configs") / "inference.json"
# What says where to compute and where to write, and not what comes out.
_ELSEWHERE = {
    "_meta_", "imports", "run", "bundle_root", "dataset_dir", "split", "output_dir", "device", "progress", "batch_size",
    "threshold", "min_size", "handlers", "dataset", "dataloader", "protocol", "evaluator",
}  # fmt: skip


def names_file(key: str) -> bool:
    """Whether an entry of ``inference.json`` is the path of a file that belongs to a set of weights."""
    return key in ("threshold", "statistics") or key.endswith("weights")


def one_set_each(weights: str | None, bundles: Sequence[Path]) -> None:
    """Stop where one file of weights is given for several bundles.

    Raises:
        InputError: it is.
    """
    if weights is not None and len(bundles) > 1 and Path(weights).is_file():
        raise InputError(weights, f"is one file for {len(bundles)} bundles", "give a folder with BUNDLE/model.pt")


def read_settings(path: str | Path | None) -> dict[str, dict[str, Any]]:
    """The overrides of each bundle from a JSON file ``{"thor": {"noise_level": 200}, "*": {...}}``.

    ``*`` is for every bundle whose config has such a key. Paths of files are relative to the folder of the JSON.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    if path is None:
        return {}
    file = Path(path)
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(file, f"cannot be read as JSON ({error})", "correct it") from error
    if not isinstance(settings, dict) or not all(isinstance(value, dict) for value in settings.values()):
        raise InputError(file, "is no mapping of bundles to overrides", 'write {"thor": {"noise_level": 200}}')
    return {bundle: files_beside(values, file) for bundle, values in settings.items()}


def files_beside(overrides: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    """Overrides that stand in a JSON file, with the paths of files in them taken as relative to its folder."""
    return {
        key: str((Path(file).parent / value).resolve())
        if isinstance(value, str) and value != "none" and names_file(key)
        else value
        for key, value in overrides.items()
    }


def settings_for(bundles: Sequence[Path], path: str | Path | None) -> dict[str, dict[str, Any]]:
    """The overrides of each bundle as ``read_settings`` gives them, looked at for slips.

    Args:
        bundles: those that will run. One file may serve several runs: overrides of others are fine, as long as these
            stand in the same folders.
        path: of the JSON file.

    Raises:
        InputError: as ``read_settings``; a bundle that is not there, or a key of ``*`` that none of them all has.
    """
    settings = read_settings(path)
    refuse_unknown(set(settings) - {"*"}, bundles, path)
    around = {each.name: each for bundle in bundles for each in bundle.parent.iterdir()}
    configs = [_config(each) for each in around.values() if (each / _CONFIG).is_file()]
    slips = sorted(key for key in settings.get("*", {}) if not any(_has(config, key) for config in configs))
    if slips:
        problem = f"sets {', '.join(slips)} under '*', which no bundle has"
        raise InputError(path, problem, "write the name as inference.json has it, or leave it away")
    return settings


def refuse_unknown(names: Iterable[str], bundles: Sequence[Path], path: str | Path | None) -> None:
    """Stop where a file names a bundle that does not stand in the folders of those that will run.

    Raises:
        InputError: it does.
    """
    unknown = sorted(set(names) - {each.name for bundle in bundles for each in bundle.parent.iterdir()})
    if unknown:
        raise InputError(path, f"names bundles that are not there: {', '.join(unknown)}", "see anomaly-zoo list")


def _config(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / _CONFIG).read_text(encoding="utf-8"))


def _has(config: Mapping[str, Any], key: str) -> bool:
    """Whether a config has an entry, or what holds it."""
    return key.split("#")[0].split("::")[0] in config


def overrides_of(
    bundle: Path, settings: Mapping[str, Mapping[str, Any]], weights: str | Path | None = None
) -> dict[str, Any]:
    """What to change in a bundle's ``inference.json``.

    Args:
        bundle: its folder.
        settings: as :func:`read_settings` returns them.
        weights: a folder that holds ``<bundle>/model.pt`` (and other networks, ``statistics.json`` and
            ``threshold.json``, under the names that they have in the bundle), or ``<bundle>/models/…``. Bundles that
            are not in it keep their own. There must be all networks; without ``threshold.json`` there is no
            threshold. Or a file: weights of the main network, without a threshold.

    Raises:
        InputError: a key that the config does not have, no such folder or file, or some of the networks of the bundle
            in it and not the others.
    """
    config = _config(bundle)
    overrides: dict[str, Any] = {key: value for key, value in settings.get("*", {}).items() if _has(config, key)}
    own = settings.get(bundle.name, {})
    unknown = sorted(key for key in own if not _has(config, key))
    if unknown:
        raise InputError(f"settings of '{bundle.name}'", f"has no {', '.join(unknown)}", "see its inference.json")
    found: dict[str, Any] = {}
    if weights is not None and Path(weights).is_file():
        found = {"weights": str(Path(weights).resolve()), "threshold": None}
    elif weights is not None:
        found = _weights_in(Path(weights), bundle, config)
    together = {**overrides, **found, **own}
    missing = [together[key] for key in found if key.endswith("weights") and not Path(together[key]).is_file()]
    if missing:
        remedy = "put all networks of the bundle into one folder, or name the others in the settings"
        raise InputError(Path(missing[0]).parent, f"has no {', '.join(Path(each).name for each in missing)}", remedy)
    return together


def _weights_in(folder: Path, bundle: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The files of a bundle in a folder of weights; nothing where none of its networks is there."""
    if not folder.is_dir():
        raise InputError(folder, "is no folder", "give one that holds BUNDLE/model.pt for each bundle")
    names = {
        key: Path(value.strip("$'\" ")).name
        for key, value in config.items()
        if names_file(key) and isinstance(value, str)
    }
    networks = [name for key, name in names.items() if key.endswith("weights")]
    places = [folder / bundle.name / "models", folder / bundle.name]
    place = next((each for each in places if any((each / name).is_file() for name in networks)), None)
    if place is None:
        return {}
    # What else a method reads is looked for beside its networks, so that nothing of other weights is mixed with them.
    found: dict[str, Any] = {key: str((place / name).resolve()) for key, name in names.items()}
    if not Path(found.get("threshold", "")).is_file():
        found["threshold"] = None
    return found


class BundleRun:
    """A bundle's workflow for inference, ready to run on chosen cases.

    Results stay on the grid of the network, where they are scored; the handlers of the config, which write files, are
    left out unless ``overlay`` brings its own.

    Args:
        bundle: its folder.
        dataset_dir: the data set, as of ``inference.json``.
        split: of it.
        overrides: of ``inference.json``.
        overlay: the config that lies over it.
        own_handlers: keep those of the overlay.
        device: overrides the config's.

    Attributes:
        parser: of the config, with the overrides.
        key: names settings and weights together: two runs of one key give the same maps.
        weights_sha256: hash of each file of weights, by its key in the config.
    """

    def __init__(
        self,
        bundle: Path,
        dataset_dir: str | Path,
        split: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        overlay: str = "evaluate.json",
        own_handlers: bool = False,
        device: str | None = None,
    ) -> None:
        self.bundle = bundle
        if str(bundle) not in sys.path:
            sys.path.insert(1, str(bundle))  # a bundle may bring a module of its own; MONAI's runner does the same
        config = _config(bundle)
        given: dict[str, Any] = {"dataset_dir": str(dataset_dir), "split": split, **(overrides or {})}
        given |= {"progress": False} if "progress" in config else {}
        device = device or _device_of_rank()
        given |= {"device": device} if device is not None and "device" in config else {}
        nulls = [key for key, value in given.items() if value is None]
        files = [str(bundle / "configs" / name) for name in ("inference.json", overlay)]
        self.workflow = ConfigWorkflow(
            files,
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(bundle),
            **{key: value for key, value in given.items() if value is not None},
        )
        self.parser = self.workflow.parser
        for key in nulls:  # which MONAI would take for an argument that is not given
            self.parser[key] = None
        if not own_handlers:
            self.parser["handlers"] = []
        paths = {key: self.parser.get_parsed_content(key) for key in config if names_file(key) and key != "threshold"}
        self.weights_sha256 = {key: sha256(path) for key, path in paths.items() if path and Path(path).is_file()}
        kept = {key: value for key, value in self.parser.get().items() if key not in {*_ELSEWHERE, *paths}}
        text = json.dumps([__version__, self.weights_sha256, kept], sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]

    def get(self, name: str, default: Any = None) -> Any:
        """What an entry of the config has become; ``default`` where there is none."""
        return self.parser.get_parsed_content(name) if name in self.parser.get() else default

    def evaluator(self, cases: Sequence[Mapping[Any, Any]] | None = None, transform: Any = None) -> Any:
        """The evaluator over these cases (by default all of the data set), which the bundle's own checks have passed.

        Args:
            cases: as ``common.data.load_cases`` gives them.
            transform: instead of the preprocessing.
        """
        self.workflow.initialize()
        dataset = self.parser.get_parsed_content("dataset")
        if cases is not None:
            dataset.data = list(cases)
        if transform is not None:
            dataset.transform = transform
        return self.parser.get_parsed_content("evaluator")


@contextmanager
def the_process_as_before() -> Iterator[None]:
    """Undo what a bundle does to a process that it believes to be its own: paths, hook, random state.

    What is said of the data set once need not be said again by each bundle.
    """
    path, hook, state = list(sys.path), sys.excepthook, torch.get_rng_state()
    loggers = [logging.getLogger(name) for name in ("common.data.integrity", "monai.bundle.workflows")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        sys.path[:], sys.excepthook = path, hook
        torch.set_rng_state(state)


def _device_of_rank() -> str | None:
    """The GPU of this process under torchrun; None leaves it to the bundle."""
    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
