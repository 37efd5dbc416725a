"""What would make a comparison unfair, as far as a program can see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from common.anomaly import Threshold, changed_settings
from common.data import Case, marks_anything, split_of, subject_of
from common.evaluation.calibration import subject_hash
from common.evaluation.comparison.scores import Scores

__all__ = ["Finding", "check_data", "check_folded", "check_scores", "check_threshold", "is_ill"]

_ORIGIN = "threshold is not from the test cases"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        check: what was looked for.
        status: ``ok``; ``leak``, which makes numbers wrong; ``warning``, which a reader must know; ``unknown`` where
            what is needed was not recorded.
        detail: in words.
        bundle: concerned; none for the data.
    """

    check: str
    status: Literal["ok", "leak", "warning", "unknown"]
    detail: str
    bundle: str = ""

    def to_dict(self) -> dict[str, str]:
        """As a mapping."""
        return asdict(self)


def check_data(listed: Sequence[Case], used: Sequence[Case]) -> list[Finding]:
    """Check the data set.

    Args:
        listed: all cases of the data list, of every split.
        used: those that are scored; the masks of those without a label are read.
    """
    findings = [_splits(listed), _subjects_named(used)]
    ill = {case["case"]: is_ill(case) for case in used}
    healthy = [case for case in used if not ill[case["case"]]]
    if healthy:
        findings.append(Finding("healthy cases are scored too", "ok", f"{len(healthy)} of {len(used)} cases"))
    else:
        detail = "every case has a lesion: false positives in healthy images are not seen"
        findings.append(Finding("healthy cases are scored too", "warning", detail))
    diseased = {subject_of(case) for case in used if ill[case["case"]]}
    mixed = sum(subject_of(case) in diseased for case in healthy)
    check = "healthy cases are of healthy subjects"
    if mixed:
        detail = f"{mixed} of {len(healthy)} are of a subject with a lesion elsewhere (right for planted lesions only)"
        findings.append(Finding(check, "warning", detail))
    elif healthy:
        findings.append(Finding(check, "ok", "no subject has both"))
    shares = [_share("brain_mask" in case for case in used if ill[case["case"]] == kind) for kind in (False, True)]
    if healthy and len(healthy) < len(used) and shares[0] != shares[1]:
        detail = f"brain masks are given for {shares[0]:.0%} of the healthy cases and {shares[1]:.0%} of the others"
        findings.append(Finding("healthy and other cases are prepared alike", "leak", detail))
    elif healthy:
        findings.append(Finding("healthy and other cases are prepared alike", "ok", "as to their brain masks"))
    detail = "which settings and checkpoints were chosen on these cases is known to people only"
    return [*findings, Finding("nothing was tuned on the test cases", "unknown", detail)]


def check_threshold(
    bundle: str,
    threshold: Threshold | float | None,
    cases: Sequence[Case],
    settings: Mapping[str, Any],
    weights_sha256: Mapping[str, str],
) -> list[Finding]:
    """Check where a bundle's threshold comes from.

    Args:
        bundle: its name.
        threshold: as loaded, or a bare number, or none.
        cases: that are scored.
        settings: now in force.
        weights_sha256: of the weights in use.
    """
    check = _ORIGIN
    if threshold is None:
        return [Finding(check, "ok", "no threshold is used", bundle)]
    if not isinstance(threshold, Threshold):
        return [Finding(check, "unknown", f"the number {threshold:g} was given without its origin", bundle)]
    findings = []
    if not threshold.subjects:
        detail = f"its file names no subjects ({threshold.calibrated_on}): calibrate anew to have this checked"
        findings.append(Finding(check, "warning", detail, bundle))
    else:
        shared = {subject_hash(subject_of(case)) for case in cases} & set(threshold.subjects)
        detail = f"{len(shared)} of its {len(threshold.subjects)} subjects are among the test subjects"
        detail += " (--folds takes thresholds from other subjects)" * bool(shared)
        findings.append(Finding(check, "leak" if shared else "ok", detail, bundle))
    changed = changed_settings(threshold.settings, settings)
    other = threshold.weights_sha256 and threshold.weights_sha256 not in weights_sha256.values()
    reasons = [f"other settings ({', '.join(changed)})"] * bool(changed) + ["other weights"] * bool(other)
    fits = "threshold belongs to settings and weights"
    if reasons:
        findings.append(Finding(fits, "warning", f"calibrated under {' and '.join(reasons)}", bundle))
    else:
        findings.append(Finding(fits, "ok", f"quantile {threshold.quantile} of {threshold.cases} cases", bundle))
    return findings


def check_folded(bundle: str, folds: int) -> Finding:
    """What is to be said of thresholds from the test set itself (``fold_thresholds``)."""
    return Finding(_ORIGIN, "ok", f"for each subject from other subjects of the test set, {folds} folds", bundle)


def check_scores(scores: Scores) -> list[Finding]:
    """Check the maps of a bundle: a maximum that is the same in every case tells of a scaling image by image."""
    check = "maps are not scaled image by image"
    tops = [row["raw_maximum"] for row in scores.rows if row["raw_maximum"] > 0]
    same = max((sum(abs(top - other) <= 1e-6 * other for top in tops) for other in tops[:20]), default=0)
    if len(tops) >= 4 and same > len(tops) / 2:
        detail = f"{same} of {len(tops)} maps have the same maximum"
        return [Finding(check, "leak", detail, scores.name)]
    return [Finding(check, "ok", "their maxima differ", scores.name)]


def _splits(listed: Sequence[Case]) -> Finding:
    check = "no subject is in two splits"
    splits: dict[str, set[str]] = {}
    for case in listed:
        if "split" in case:
            splits.setdefault(subject_of(case), set()).add(split_of(case))
    both = sorted(subject for subject, names in splits.items() if len(names) > 1)
    if both:
        detail = f"{len(both)} of {len(splits)} subjects are: {', '.join(both[:5])}{', …' * (len(both) > 5)}"
        return Finding(check, "leak", detail)
    if not splits:
        return Finding(check, "unknown", "the data set names no splits")
    return Finding(check, "ok", f"{len(splits)} subjects")


def _subjects_named(used: Sequence[Case]) -> Finding:
    bare = sum("subject" not in case for case in used)
    if bare:
        detail = f"{bare} of {len(used)} cases have none: each counts as a subject, so intervals may be too narrow"
        return Finding("cases name their subject", "warning", detail)
    return Finding("cases name their subject", "ok", f"{len({subject_of(case) for case in used})} subjects")


def is_ill(case: Case) -> bool:
    """Whether a case has a lesion: by its label, or else by its mask, which of a healthy case may be an empty one."""
    return bool(case["label"]) if "label" in case else "mask" in case and marks_anything(case["mask"])


def _share(flags: Any) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
