"""All of the package ``pytorch_optimizer``: most by their defaults, the others as they need it.

It writes most optimizers out that people take from elsewhere (lion-pytorch, prodigyopt,
dadaptation, torch-optimizer, muon, schedulefree, ...), in one place and without further packages.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytorch_optimizer as po
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from tests.compatibility.rows import Row, Twin
from tests.compatibility.small_run import by_closure, loss_of, second_order

PACKAGE = "pytorch_optimizer"

_NAMES = """
    ADOPT APOLLO AccSGD AdEMAMix AdaBelief AdaBound AdaDelta AdaFactor AdaGC AdaMax AdaMod AdaNorm
    AdaPNM AdaSmooth AdaTAM Adai Adalite Adam AdamC AdamG AdamP AdamS AdamW AdamWSN Adan AggMo
    Aida Alice Amos Ano ApolloDQN AvaGrad BCOS CAME Conda DASH DiffGrad DualAdam EXAdam EmoFact
    EmoLynx EmoNavi FAdam FOCUS FTRL Fira FlashAdamW Fromage GaLore Grams Gravity GrokFastAdamW
    Kate Kron LARS LaProp Lamb Lion LoRARite MADGRAD MARS MSVAG Magma NAdam Nero NovoGrad PAdam
    PID PNM QHAdam QHM RACS RAdam RMSprop ROSE Ranger SCION SCIONLight SGD SGDP SGDSaI SGDW SM3
    SOAP SPAM SPlus SRMM SWATS ScalableShampoo ScheduleFreeAdamW ScheduleFreeRAdam ScheduleFreeSGD
    Shampoo SignSGD SimplifiedAdEMAMix StableAdamW StableSPAM TAM Tiger VSGD Yogi
"""
BY_DEFAULT = _NAMES.split()
"""Made from the parameters alone, with weight decay where they have it."""

_WELL_KNOWN = """
    AdaBelief AdaBound AdaFactor AdamP Adan CAME DAdaptAdam Kron LOMO Lamb Lion Lookahead Muon
    Prodigy RAdam Ranger SAM SOAP ScheduleFreeAdamW SophiaH
"""
WELL_KNOWN = _WELL_KNOWN.split()
"""These are tried in the default run; all in the slow one."""

_AT_ZERO = "these move weights also at a rate of zero"
_SUMS = "these sum over all gradients, and find those of frozen layers too"
_DRAWS = "these draw random numbers for frozen layers too"
_AVERAGES = "these stay at their training values, while a layer that freezes takes its average"

WITHOUT_GRADIENTS = {
    _AT_ZERO: "AccSGD AdaFactor AdaGO ApolloDQN BSAM FTRL LaProp Lookahead MADGRAD Ranger Ranger21",
    _DRAWS: "AdaHessian Kron Magma SophiaH",
    _SUMS: "Adai AdamS FriendlySAM GSAM LoRARite LookSAM PCGrad SAM WSAM",
}
"""Those that end as with the same rates and no gradients of layers that are done, and why."""

NO_TWIN = {_AVERAGES: "ScheduleFreeAdamW ScheduleFreeRAdam ScheduleFreeSGD ScheduleFreeWrapper"}
"""Those that a freeze moves, once."""

UNTRIED = {
    "DeMo": "needs einops and a process group",
    "DistributedMuon": "needs a process group",
    "TRAC": "finds the scale 0 for so small a task, so nothing moves, with or without freezing",
}


def classes() -> set[str]:
    """The names of all optimizers of the installed version."""
    return {
        name
        for name, item in vars(po).items()
        if inspect.isclass(item) and issubclass(item, Optimizer)
    }


def _by_default(name: str) -> Callable[[nn.Module], Any]:
    kind = getattr(po, name)
    known = inspect.signature(kind.__init__).parameters
    settings: dict[str, Any] = {}
    if "lr" in known and known["lr"].default in (inspect.Parameter.empty, None):
        settings["lr"] = 1e-2
    if "weight_decay" in known:
        settings["weight_decay"] = 0.05
    return lambda model: kind(model.parameters(), **settings)


def _muon(name: str) -> Callable[[nn.Module], Any]:
    def make(model: nn.Module) -> Any:
        matrices = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim != 2]
        groups = [
            {"params": matrices, "use_muon": True, "lr": 0.02},
            {"params": others, "use_muon": False, "lr": 0.01},
        ]
        return getattr(po, name)(groups, weight_decay=0.05)

    return make


def _over(name: str, **settings: Any) -> Callable[[nn.Module], Any]:
    """A wrapper around SGD with momentum."""

    def make(model: nn.Module) -> Any:
        inner = SGD(model.parameters(), lr=0.1, momentum=0.9)
        return getattr(po, name)(inner, **settings)

    return make


def _sam(name: str, **settings: Any) -> Callable[[nn.Module], Any]:
    def make(model: nn.Module) -> Any:
        return getattr(po, name)(
            params=model.parameters(), base_optimizer=SGD, lr=0.1, momentum=0.9, **settings
        )

    return make


def _schedule_free(model: nn.Module) -> Any:
    optimizer = _over("ScheduleFreeWrapper")(model)
    optimizer.train()
    return optimizer


def _gsam(model: nn.Module) -> Any:
    inner = SGD(model.parameters(), lr=0.1, momentum=0.9)
    radius = SimpleNamespace(step=lambda: 0.05)
    return po.GSAM(model.parameters(), inner, model, radius)


def _stored_closure(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.set_closure(nn.functional.cross_entropy, x, y)
    optimizer.step()
    optimizer.zero_grad()


def _with_loss(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    loss = loss_of(model, x, y)
    loss.backward()
    optimizer.step(lambda: loss)
    optimizer.zero_grad()


def _in_backward(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.fused_backward(loss_of(model, x, y), lr=0.1)


def _two_tasks(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.pc_backward([loss_of(model, x, y), model(x).square().mean()])
    optimizer.step()
    optimizer.zero_grad()


def _one_rate(name: str) -> tuple[Row, Row]:
    """It freezes, and takes no rates by layer."""
    make = _by_default(name)
    return (
        Row(name, make, "refused", "finds one rate", anneals=("cosine",)),
        Row(name, make, anneals=(None,)),
    )


_SLOW = "its load_state_dict raises ValueError without slow weights of frozen layers"
_MASKS = "its load_state_dict raises KeyError without masks of frozen layers"
_FUSED = "it updates in the backward pass: call `scheduler.step(n)` with the updates done"
_UNCOUNTED: Any = {"anneals": (None,), "counted": False}


def _without_rates(name: str, make: Callable[[nn.Module], Any], **given: Any) -> tuple[Row, Row]:
    """It freezes, and has no rate in its groups."""
    return (
        Row(name, make, "refused", "no learning rate", anneals=("cosine",), **given),
        Row(name, make, anneals=(None,), **given),
    )


def _alig(model: nn.Module) -> Any:
    return po.AliG(model.parameters(), max_lr=0.1)


SPECIAL = [
    *_without_rates("A2Grad", _by_default("A2Grad")),
    *_without_rates("AliG", _alig, update=_with_loss),
    Row(
        "ASGD",
        _by_default("ASGD"),
        anneals=(None,),
        note="annealed it fails at the first freeze: it divides by its rate",
    ),
    *(Row(name, _muon(name)) for name in ("AdaGO", "AdaMuon", "Muon", "MuonClip", "NorMuon")),
    Row("AdaHessian", _by_default("AdaHessian"), update=second_order),
    Row("AdaLOMO", lambda m: po.AdaLOMO(m), note=_FUSED, update=_in_backward, **_UNCOUNTED),
    Row("LOMO", lambda m: po.LOMO(m), note=_FUSED, update=_in_backward, **_UNCOUNTED),
    Row("AdaShift", lambda m: po.AdaShift(m.parameters(), lr=0.01, keep_num=3)),
    Row("AdamMini", lambda m: po.AdamMini(m, lr=0.01, weight_decay=0.05)),
    Row("BSAM", lambda m: po.BSAM(m.parameters(), num_data=256), update=by_closure),
    Row("FriendlySAM", _sam("FriendlySAM"), update=by_closure),
    Row("GSAM", _gsam, update=_stored_closure),
    Row("LBFGS", lambda m: po.LBFGS(m.parameters(), lr=0.1), "refused", "have no gradient"),
    Row("LookSAM", _sam("LookSAM"), update=by_closure),
    *(
        row
        for end in ("AdaGrad", "Adam", "Adan", "Lion", "SGD")
        for row in _one_rate(f"DAdapt{end}")
    ),
    *_one_rate("Prodigy"),
    Row("Lookahead", _over("Lookahead"), resume_differs=_SLOW),
    Row("OrthoGrad", _over("OrthoGrad")),
    Row("PCGrad", _over("PCGrad"), update=_two_tasks),
    Row("Ranger21", lambda m: po.Ranger21(m.parameters(), num_iterations=32, lr=0.01)),
    Row("SAM", _sam("SAM"), update=by_closure),
    Row("SaRA", lambda m: po.SaRA(m.parameters(), lr=0.01, threshold=10.0), resume_differs=_MASKS),
    Row(
        "SafeFP16Optimizer",
        _over("SafeFP16Optimizer"),
        "refused",
        "holds no parameter of",
        "it trains copies in float32, which are not in the model",
        net="half",
    ),
    Row("ScheduleFreeWrapper", _schedule_free),
    Row("SophiaH", _by_default("SophiaH"), update=second_order),
    Row("SpectralSphere", _by_default("SpectralSphere"), net="matrices"),
    Row(
        "WSAM",
        lambda m: po.WSAM(m, m.parameters(), SGD, lr=0.1, momentum=0.9),
        update=by_closure,
    ),
]

_TWINS: dict[str, tuple[Twin, str]] = {
    name: (twin, why)
    for twin, names in (("no gradients", WITHOUT_GRADIENTS), ("neither", NO_TWIN))
    for why, known in names.items()
    for name in known.split()
}


def _with_twin(row: Row) -> Row:
    if row.anneals[0] is None:
        return replace(row, twin="neither" if not row.counted else "no gradients")
    twin, why = _TWINS.get(row.name, ("rates", ""))
    return replace(row, twin=twin, why=why)


ROWS = [
    _with_twin(row) for row in (*(Row(name, _by_default(name)) for name in BY_DEFAULT), *SPECIAL)
]
