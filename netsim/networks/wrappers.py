"""The classifier inside DataParallel, torch.compile and robustness's AttackerModel, and its preprocessing.

Each of the wrappers, and the classifier, may state the preprocessing: all that do must agree. What cannot be understood
is an error, because a network without its normalisation is another network.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from netsim.errors import NetworkError
from netsim.networks.preprocessing import Preprocessing

# Fields that say nothing about pixels. One statement may have them, and another one not.
ADDITIONS = ("size", "crop", "interpolation")


def unwrap(model: nn.Module) -> tuple[nn.Module, Preprocessing]:
    """Return the classifier inside all wrappers, in whatever order they are, and its preprocessing.

    Raises
    ------
    NetworkError
        For a preprocessing that is not a `Preprocessing`, for two that disagree, for one that only a layer of the
        classifier has, and for an AttackerModel whose normalizer is not robustness's.
    """
    stated: list[Preprocessing] = []
    inner: nn.Module | None = model
    while inner is not None:
        classifier = inner
        inner, normalization = _peel(classifier)
        attribute = _understood(getattr(classifier, "preprocessing", None), classifier)
        stated += [preprocessing for preprocessing in (attribute, normalization) if preprocessing is not None]
    if not stated:
        _require_none_inside(classifier)
        return classifier, Preprocessing()
    agreed = stated[0]
    for other in stated[1:]:
        agreed = _merged(agreed, other, name=_name(classifier))
    return classifier, agreed


def _peel(model: nn.Module) -> tuple[nn.Module | None, Preprocessing | None]:
    """Return the module inside a wrapper, and the normalisation that the wrapper applies; None for what is not there.

    torch's wrappers keep references to layers that a cut replaces. An AttackerModel returns more than logits.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return model.module, None
    compiled = getattr(model, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return compiled, None
    inner, normalizer = getattr(model, "model", None), getattr(model, "normalizer", None)
    if not isinstance(inner, nn.Module) or normalizer is None:
        return None, None
    if hasattr(normalizer, "new_mean") and hasattr(normalizer, "new_std"):
        return inner, Preprocessing(normalizer.new_mean, normalizer.new_std)
    if any(kind.__name__ == "AttackerModel" for kind in type(model).__mro__):
        raise NetworkError(
            f"the normalizer of {_name(model)} must have new_mean and new_std, as robustness's InputNormalize has, "
            f"got {_name(normalizer)}. Give its .model, with a netsim.Preprocessing in the attribute preprocessing."
        )
    return None, None  # a classifier that normalises its images itself


def _understood(value: Any, owner: nn.Module) -> Preprocessing | None:
    """Return the value of an attribute `preprocessing`, if it is what the rest of netsim understands, or None."""
    if value is None or isinstance(value, Preprocessing):
        return value
    if value is Preprocessing:
        kind, way_out = "the class itself", "Call it, as in netsim.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)."
    else:
        kind = _name(value)
        way_out = (
            f"Write netsim.Preprocessing({_numbers_in(value) or 'mean=..., std=...'}), "
            "or rename the attribute if the forward pass applies it."
        )
    raise NetworkError(f"preprocessing of {_name(owner)} must be a netsim.Preprocessing, got {kind}. {way_out}")


def _numbers_in(value: Any) -> str:
    """Write the mean and std in a dict or a transform as arguments of a Preprocessing."""
    fields = value if isinstance(value, Mapping) else {key: getattr(value, key, None) for key in ("mean", "std")}
    return ", ".join(f"{key}={_as_tuple(fields[key])}" for key in ("mean", "std") if fields.get(key) is not None)


def _as_tuple(values: Any) -> str:
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return "..."
    return str(tuple(float(f"{number:.6g}") for number in numbers))


def _require_none_inside(classifier: nn.Module) -> None:
    """Refuse a preprocessing that only a layer states: whether the classifier applies it is unknown."""
    for path, layer in classifier.named_modules():
        if path and isinstance(getattr(layer, "preprocessing", None), Preprocessing):
            raise NetworkError(
                f"preprocessing of {_name(classifier)} must be stated by itself, got it from its layer {path!r}. "
                "Assign it to the outer module too, or netsim.Preprocessing() if that one takes RGB in [0, 1]."
            )


def _merged(one: Preprocessing, other: Preprocessing, *, name: str) -> Preprocessing:
    """Return what both state together."""
    same = one.order == other.order and all(map(_same, _on_unit_scale(one), _on_unit_scale(other)))
    if not same or any(len({getattr(one, key), getattr(other, key)} - {None}) > 1 for key in ADDITIONS):
        raise NetworkError(
            f"{name} must have one preprocessing, got two that disagree: {one.to_json()} and {other.to_json()}. "
            "Remove one of them."
        )
    return replace(one, **{key: getattr(other, key) for key in ADDITIONS if getattr(one, key) is None})


def _on_unit_scale(preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Return mean and std for pixels in [0, 1]: one number per channel, or one for all."""
    mean = 0.0 if preprocessing.mean is None else preprocessing.mean
    std = 1.0 if preprocessing.std is None else preprocessing.std
    mean, std = (torch.as_tensor(values, dtype=torch.float64).detach().cpu().flatten() for values in (mean, std))
    return mean / preprocessing.largest, std / preprocessing.largest


def _same(one: Tensor, other: Tensor) -> bool:
    """Return True if equal up to rounding in float32."""
    return (len(one) == len(other) or 1 in (len(one), len(other))) and torch.allclose(one, other, rtol=1e-6, atol=1e-9)


def _name(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__
