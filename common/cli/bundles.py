"""Commands on bundles: to see, show, begin, release and fetch them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from common.bundles import bundle_folder, find_bundle, find_bundles
from common.errors import InputError

__all__ = ["BundleCommands"]


class BundleCommands:
    """What there is, and how it comes and goes."""

    def list(self, bundles_dir: str | None = None) -> None:
        """List the bundles: name, version, supervision, description.

        Args:
            bundles_dir: the folder that holds them; by default the one of this repository, or ./bundles.
        """
        folder = bundle_folder(bundles_dir)
        rows = [("name", "version", "supervision", "description")]
        rows += [_row(file) for file in sorted(folder.glob("*/configs/metadata.json"))]
        if len(rows) == 1:
            raise InputError(folder, "holds no bundle", "give the folder that holds the bundles with --bundles_dir")
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            print("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]))

    def demo(
        self, output_dir: str = "demo_output", bundle: str = "thor", num_inference_steps: int | None = None
    ) -> None:
        """Draw a lesion into a healthy brain, find it again, and write the result.

        Args:
            output_dir: where the files go.
            bundle: the bundle that looks for it.
            num_inference_steps: how many steps its sampler takes; by default as many as the bundle says.
        """
        importlib.import_module("common.demo").run(output_dir, bundle, num_inference_steps)

    def new(self, name: str, like: str = "ddpm", bundles_dir: str | None = None) -> None:
        """Begin a new bundle: a whole one that runs, with the one method to fill in.

        Args:
            name: of the bundle.
            like: the bundle whose configs, network and weights it begins with.
            bundles_dir: the folder that gets it, as of ``list``.
        """
        from common.release.scaffold import new_bundle

        print(new_bundle(name, find_bundle(bundles_dir, like), bundle_folder(bundles_dir)))

    def package(
        self,
        *names: str,
        out: str = "dist",
        bundles_dir: str | None = None,
        base_url: str | None = None,
        replace: bool = False,
    ) -> None:
        """Make releases: one zip a bundle, which is always the same for the same files, with hashes and an index.

        Args:
            names: of bundles, or their folders; none for all.
            out: where the zips, SHA256SUMS and model_info.json go.
            bundles_dir: the folder that holds the bundles, as of ``list``.
            base_url: the address at which the zips will lie.
            replace: write over a release of the same version that has other content.
        """
        from common.release import package

        for path in package(find_bundles(bundles_dir, names or "all"), out, base_url=base_url, replace=replace):
            print(path)

    def download(self, name: str, source: str, version: str | None = None, bundle_dir: str = ".") -> None:
        """Download a release, check it against its hashes, and unpack it; all of it or nothing.

        Args:
            name: of the bundle.
            source: the folder or address that holds the zips and SHA256SUMS.
            version: by default the latest.
            bundle_dir: where the bundle's folder goes.
        """
        from common.release import download

        print(download(name, source, version, bundle_dir))

    def verify(self, bundle: str, manifest_sha256: str | None = None) -> None:
        """Compare every file of an unpacked release with its manifest; exit code 1 if one that would be read differs.

        Args:
            bundle: its folder.
            manifest_sha256: of the manifest, from the release's model_info.json, which shows that nobody rewrote it.
        """
        from common.release import verify_bundle

        findings = verify_bundle(bundle, manifest_sha256)
        for finding in findings:
            print(f"{finding.severity:<6} {finding.file} {finding.problem}")
        errors = sum(finding.severity == "error" for finding in findings)
        print(f"{bundle}: {errors} error(s)" if errors else f"{bundle}: every file is as it was released")
        if errors:
            raise SystemExit(1)

    def export(
        self,
        bundle: str,
        output: str,
        format: str | None = None,
        network: str = "network_def",
        bundles_dir: str | None = None,
    ) -> None:
        """Write a network as a file that runs without MONAI: inputs are image, noise level and what else it takes.

        Args:
            bundle: its name or folder.
            output: the file.
            format: pt2 (torch.export) or onnx; by default what the file's name ends in.
            network: id of its definition in inference.json.
            bundles_dir: the folder that holds the bundles, as of ``list``.
        """
        from common.release.export import export

        made = export(find_bundle(bundles_dir, bundle), output, format, network)
        sizes = "any size and batch" if made["free"] else "any batch"
        print(f"{output}: {', '.join(made['inputs'])}; {sizes}; differs by {made['largest_difference']:.1g} at most")


def _row(file: Path) -> tuple[str, str, str, str]:
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        version, supervision = (str(metadata.get(key, "?")) for key in ("version", "supervision"))
        return file.parents[1].name, version, supervision, " ".join(str(metadata.get("description", "")).split())
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(file, f"is not usable metadata ({error})", "restore the file from the release") from error
