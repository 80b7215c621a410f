"""The settings of a training run: one frozen object, checked when made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from freezeout.errors import RunError, check_bool, check_fraction, check_number, check_whole
from freezeout.schedule import Schedule, Spacing
from freezeout.text import did_you_mean

__all__ = ["OptimizerName", "Precision", "Settings", "check_names", "setting_fields"]

OptimizerName: TypeAlias = Literal["sgd", "adamw"]
Precision: TypeAlias = Literal["fp32", "bf16"]


def _setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    kind: type = str,
    **bounds: float,
) -> Any:
    """Return a field of `Settings`.

    Args:
        default: Its default.
        help: What it means, and its range.
        choices: The values it may have.
        kind: Their type.
        **bounds: `least`, `above` and `most` of a number; none for those that `Schedule` checks.
    """
    words = {"help": help, "choices": choices, "kind": kind, "bounds": bounds}
    return field(default=default, metadata=words)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides what a run computes. Every field can be set on the command line and in TOML.

    Ranges stand in the help texts, which ``freezeout train --help`` prints. ``None`` means: what is
    customary for the data set (`padding`, `flip`), all (`train_size`), whole epochs (`steps`), none
    (`scale_cap`, `times`, `max_freezes`), as many as a step is fastest with (`threads`). The
    settings of the schedule are those of `freezeout.Schedule`, with its defaults.

    Raises:
        ValueError: If a value is outside its range.
        TypeError: If a value has the wrong type.

    Example:
        >>> Settings(t0=0.5, epochs=3).schedule.freeze_times(2)
        (0.125, 1.0)
    """

    model: str = _setting(
        "resnet-20",
        "network: densenet-76-12, wrn-40-4, vgg16, resnet-20 ...; a custom one: module:function",
    )
    data: str = _setting(
        "digits",
        "data set: digits, fashion-mnist, cifar10, cifar100; custom data: module:function",
    )
    data_dir: str | None = _setting(
        None, "folder with the data's official files; fetched if absent"
    )
    train_size: int | None = _setting(
        None, "use only the first so many training images (default: all)", kind=int, least=2
    )
    holdout: int = _setting(
        0,
        "hold the last so many training images out and test on them (paper: 5000)",
        kind=int,
        least=0,
    )
    shrink: int = _setting(
        1,
        "average squares of so many by so many pixels into one (2: 32x32 becomes 16x16)",
        kind=int,
        least=1,
    )
    padding: int | None = _setting(
        None,
        "black pixels around an image before a random crop (default: the data's)",
        kind=int,
        least=0,
    )
    flip: bool | None = _setting(None, "random left-right flip (default: the data's)", kind=bool)
    epochs: int = _setting(
        10,
        "passes over the training data, at least 1; steps, where given, wins",
        kind=int,
        least=1,
        most=10**6,
    )
    steps: int | None = _setting(
        None,
        "train for so many optimizer steps, at least 1, in place of whole epochs; "
        "wins over epochs (default: epochs times batches)",
        kind=int,
        least=1,
        most=10**9,
    )
    const_time: bool = _setting(
        False,
        "train for as many more steps as freezing is predicted to save the time of "
        "(the paper's constant-time mode)",
        kind=bool,
    )
    batch_size: int = _setting(
        50, "images a step, of all processes together, at least 1", kind=int, least=1, most=10**6
    )
    optimizer: OptimizerName = _setting("sgd", "optimizer", choices=get_args(OptimizerName))
    lr: float = _setting(0.1, "base learning rate, above 0", kind=float, above=0, most=1e30)
    momentum: float = _setting(0.9, "momentum of SGD (AdamW: beta1), in [0, 1)", kind=float)
    nesterov: bool = _setting(True, "Nesterov momentum (SGD)", kind=bool)
    weight_decay: float = _setting(1e-4, "weight decay, at least 0", kind=float, least=0, most=1e30)
    t0: float = _setting(
        Schedule.t0,
        "freeze time of the first layer before spacing, in (0, 1]; 1: no freezing",
        kind=float,
    )
    spacing: Spacing = _setting(
        Schedule.spacing, "growth of freeze times", choices=get_args(Spacing)
    )
    scaled: bool = _setting(Schedule.scaled, "scale each layer's initial rate by 1/t_i", kind=bool)
    freeze: bool = _setting(
        True,
        "take layers out of the backward pass once their rate is zero; --no-freeze keeps the rates "
        "and computes all: the control",
        kind=bool,
    )
    anneal: Literal["cosine", "linear"] = _setting(
        Schedule.anneal, "annealing curve", choices=("cosine", "linear")
    )
    warmup_steps: int = _setting(
        Schedule.warmup_steps, "linear warm-up in steps, at least 0", kind=int
    )
    scale_cap: float | None = _setting(
        Schedule.scale_cap, "largest factor that scaling may put on a rate, at least 1", kind=float
    )
    times: tuple[float, ...] | None = _setting(
        Schedule.times,
        "explicit freeze times, one per layer: 0.3,0.6,1 (t0 and spacing do not count then)",
        kind=tuple,
    )
    max_freezes: int | None = _setting(
        Schedule.max_freezes,
        "most moments at which layers freeze, at least 1; neighbours freeze together at the mean "
        "of their times, which plan weighs by cost and train does not",
        kind=int,
    )
    precision: Precision = _setting(
        "fp32", "bf16: autocast to bfloat16", choices=get_args(Precision)
    )
    channels_last: bool = _setting(True, "memory layout (N, H, W, C)", kind=bool)
    device: str = _setting("auto", "auto, cpu, cuda or cuda:N")
    threads: int | None = _setting(
        None,
        "CPU threads, at least 1, part of the result's last bits (default: measured by train and "
        "plan, 1 for each run of compare and sweep)",
        kind=int,
        least=1,
        most=1024,
    )
    deterministic: bool = _setting(
        True,
        "the same bits every time: on a GPU by the choice of cuDNN kernels, in three processes and "
        "more by adding gradients in a fixed order",
        kind=bool,
    )
    seed: int = _setting(
        0, "seed of weights, order and augmentation, at least 0", kind=int, least=0, most=2**63 - 1
    )
    evaluate_every: int = _setting(
        1, "test after every so many epochs, at least 1", kind=int, least=1
    )
    checkpoint_minutes: float = _setting(
        10.0, "save at least this often, besides after every epoch; above 0", kind=float, above=0
    )

    def __post_init__(self) -> None:
        times: Any = self.times
        if isinstance(times, list):  # as TOML has it
            object.__setattr__(self, "times", tuple(times))
        # Imported here: the command line knows its options before torch is there.
        from freezeout.lab.data import canonical_name
        from freezeout.lab.importing import is_custom
        from freezeout.lab.models import check_name

        for spec in setting_fields():
            _check(spec, getattr(self, spec.name))
        if self.data_dir is not None:
            if not self.data_dir:
                raise ValueError(f"data_dir must name a folder, got ''. {_help('data_dir')}")
            object.__setattr__(self, "data_dir", _expanded(self.data_dir))
        object.__setattr__(self, "data", canonical_name(self.data))
        if is_custom(self.model):  # the names of built-in networks are checked when one is built
            check_name(self.model)
        check_fraction("momentum", self.momentum, "The paper has 0.9.", within="[0, 1)")
        if self.const_time and not self.freeze:
            raise ValueError(
                "const_time needs freeze, got freeze=False: a run in which nothing freezes saves "
                "no time to be used. Leave one of them out."
            )
        if self.nesterov and self.momentum == 0.0 and self.optimizer == "sgd":
            raise ValueError(
                "momentum must be above 0 with Nesterov momentum, got 0.0. Add --no-nesterov."
            )
        if self.device not in ("auto", "cpu", "cuda") and not _is_cuda_index(self.device):
            raise ValueError(
                f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}. "
                "'auto' takes a GPU where there is one."
            )
        _ = self.schedule  # checks the rest

    @property
    def schedule(self) -> Schedule:
        """The FreezeOut settings among these."""
        return Schedule(**{name: getattr(self, name) for name in _OF_SCHEDULE})

    @property
    def title(self) -> str:
        """Network, data and schedule in a few words."""
        if self.times is not None:
            schedule = "explicit freeze times"
        elif self.t0 == 1.0:
            schedule = "no freezing"
        else:
            schedule = f"{self.spacing}, t0 = {self.t0:g}"
        merged = "" if self.max_freezes is None else f", at most {self.max_freezes} freezes"
        unscaled = "" if self.scaled else ", unscaled"
        control = "" if self.freeze else ", rates only"
        return f"{self.model} on {self.data}, {schedule}{merged}{unscaled}{control}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values without those that are ``None``, for TOML or a checkpoint."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Make settings from plain values.

        Args:
            values: Names and values; what is missing takes its default.

        Raises:
            RunError: If a name is unknown or a value is not allowed.
        """
        check_names(values, "the settings")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise RunError(str(error)) from error


def check_names(values: Mapping[str, Any], source: str) -> None:
    """Raise `RunError`, naming `source`, if `values` has a name that is not a setting."""
    known = [spec.name for spec in setting_fields()]
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known, f"Settings are {', '.join(known)}.")
            raise RunError(f"{name!r} in {source} is not a setting. {hint}")


def setting_fields() -> tuple[Field[Any], ...]:
    """Return the fields of `Settings`; ``metadata`` has help, choices and kind of each."""
    return fields(Settings)


_OF_SCHEDULE = tuple(f.name for f in fields(Schedule))


def _help(name: str) -> str:
    text: str = next(f for f in setting_fields() if f.name == name).metadata["help"]
    return f"{text[0].upper()}{text[1:]}."


def _check(spec: Field[Any], value: Any) -> None:
    """Raise where a value has the wrong type or is out of bounds."""
    name, kind, choices = spec.name, spec.metadata["kind"], spec.metadata["choices"]
    bounds = dict(spec.metadata["bounds"])
    most = bounds.pop("most", None)  # far out of the way: it is named only where it is exceeded
    if value is None and spec.default is None:
        return
    for number in value if isinstance(value, tuple) else (value,):
        if type(number) is int and not -_MOST_INTEGER <= number < _MOST_INTEGER:
            words = "fit into" if most is None else f"be at most {most:g}, and not beyond"
            raise ValueError(f"{name} must {words} 64 bits, got a larger number. {_help(name)}")
    if name in _OF_SCHEDULE and kind in (int, float):
        return  # `Schedule` checks its numbers
    if kind is int:
        check_whole(name, value, _help(name), **bounds)
    elif kind is float:
        check_number(name, value, _help(name), **bounds)
    elif kind is bool:
        check_bool(name, value, _help(name))
    elif not isinstance(value, kind):
        raise TypeError(f"{name} must be {_KIND_WORDS[kind]}, got {value!r}. {_help(name)}")
    elif kind is str and not _is_plain(value):
        raise ValueError(
            f"{name} must be text in UTF-8 without NUL characters, got {value!r}. {_help(name)}"
        )
    if choices and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most:g}, got {value}. {_help(name)}")


_MOST_INTEGER = 1 << 63  # what TOML can hold


def _is_plain(text: str) -> bool:
    """Return whether files of settings can hold a text: bytes that are no UTF-8 are surrogates."""
    return not any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in text)


def _expanded(path: str) -> str:
    """Return a path with ``~`` as the home folder, where no shell has done that."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # no such user: a folder of that name
        return path


_KIND_WORDS = {str: "text", tuple: "a list of numbers"}


def _is_cuda_index(device: str) -> bool:
    kind, _, index = device.partition(":")
    return kind == "cuda" and index.isdecimal() and len(index) < 4
