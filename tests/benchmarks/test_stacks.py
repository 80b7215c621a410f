"""The benchmarks of several processes and of torch.compile, at toy size. Nothing here is timed."""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.stacks import compile as compile_run
from benchmarks.stacks import compile_worker, ddp, examples, networks, processes, tables
from freezeout.wrappers import dynamo as _dynamo

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
RESNET = {"depths": range(5), "live": [5006, 4890, 4586, 3690, 170]}


@pytest.fixture
def compiling():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def run_script(name, out, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", name, "--device", "cpu", "--out", out, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text()), done.stdout


# several processes


@pytest.mark.slow
@pytest.mark.multiprocess
def test_elements_exchanged_are_those_of_live_layers_at_every_depth(tmp_path):
    result, printed = run_script("benchmarks.stacks.ddp", tmp_path / "new" / "ddp.json", "--toy")
    assert result["miscounted"] == []
    assert result["settings"]["backend"] == "gloo"
    assert result["settings"]["processes"] == 2
    assert result["hardware"]["threads"] == 1
    assert set(result["hardware"]["load"]) == {"before", "after"}
    assert result["versions"]["torch"] == torch.__version__
    for line in result["against"]:
        assert f"against: {line}" in printed

    (network,) = result["data_parallel"]
    assert [row["depth"] for row in network["rows"]] == list(RESNET["depths"])
    for row, live in zip(network["rows"], RESNET["live"], strict=True):
        ways = row["ways"]
        assert ways["followed"]["reduced"] == live == row["live_parameters"]
        assert ways["followed"]["operations"]["reduced"] == live
        assert ways["wrapped again"]["reduced"] == live
        assert (
            ways["find unused"]["reduced"] == ways["unfrozen"]["reduced"] == network["parameters"]
        )
        assert ways["find unused"]["operations"]["reduced"] > network["parameters"]
        assert ways["no exchange"]["reduced"] == 0
        assert not any(ways["no exchange"]["operations"].values())
        assert ways["unfrozen"]["ratio"]["median"] == 1.0
    sent = [row["ways"]["followed"]["operations"]["broadcast"] for row in network["rows"]]
    assert sent == sorted(sent, reverse=True)
    assert (sent[0], sent[-1]) == (127, 0)

    (following,) = result["following"]
    assert [way["way"] for way in following["ways"]] == ["followed", "wrapped again"]
    assert all(len(way["median_first_steps"]) == 2 for way in following["ways"])

    rows = result["fully_shard"]["rows"]
    counted = [row["ways"]["sharded"]["operations"] for row in rows]
    kept = [row["ways"]["kept"]["operations"] for row in rows]
    assert [one["reduced"] for one in counted] == [49610, 442, 170]
    assert [one["gathers"] for one in counted] == [6, 6, 5]
    assert [one["gathers"] for one in kept] == [6, 4, 2]
    assert kept[1]["reduced"] == counted[1]["reduced"]


def test_wrong_counts_are_said():
    way = {"reduced": 4, "operations": {"reduced": 4}}
    row = {"depth": 1, "live_parameters": 4, "ways": {"followed": way}}
    found = {"data_parallel": [{"model": "net", "rows": [row]}]}
    assert ddp.miscounted(found) == []
    way["reduced"] = 5
    assert ddp.miscounted(found) == [
        "net, 1 frozen: [4, 5] elements by hook, by operation and still learning"
    ]


def test_what_goes_against_freezing_is_said():
    def way(low, high, **more):
        return {"ratio": {"median": (low + high) / 2, "interval": [low, high]}, **more}

    def row(depth, ours, unused, again):
        ways = {"followed": ours, "find unused": unused, "wrapped again": again}
        return {"depth": depth, "ways": ways}

    good = row(1, way(0.5, 0.6), way(0.8, 0.9), way(0.7, 0.8))
    bad = row(2, way(0.9, 1.1), way(0.8, 0.9), way(0.7, 0.8))
    sharded = {"depth": 1, "ways": {"sharded": way(0.5, 0.6), "kept": way(0.3, 0.4)}}
    found = {
        "data_parallel": [{"model": "net", "rows": [good]}],
        "following": [],
        "fully_shard": {"rows": [sharded]},
    }
    assert ddp.against(found) == []
    found["data_parallel"][0]["rows"].append(bad)
    sharded["ways"]["kept"] = way(0.5, 0.7)
    assert ddp.against(found) == [
        "net: no clear saving of time with 2 frozen",
        "net: not clearly faster than find_unused_parameters=True with 2 frozen",
        "net: not clearly faster than a new wrapper with 2 frozen",
        "keep_unsharded: not clearly faster with 1 frozen",
    ]


def test_a_failure_in_a_process_is_told():
    with pytest.raises(RuntimeError, match="process 1 failed:\nwhy"):
        processes._collect([_Pipe((True, 1)), _Pipe((False, "why"))])
    with pytest.raises(RuntimeError, match="process 0 ended without an answer"):
        processes._collect([_Pipe(None)])
    assert processes._collect([_Pipe((True, 1)), _Pipe((True, 2))]) == 1


class _Pipe:
    def __init__(self, answer):
        self.answer = answer

    def poll(self, timeout):
        return True

    def recv(self):
        if self.answer is None:
            raise EOFError
        return self.answer


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (ddp, ["--rounds", "0"]),
        (ddp, ["--processes", "0"]),
        (examples, ["--repeats", "0"]),
    ],
)
def test_wrong_arguments_are_refused(script, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        script.main(["--toy", *arguments])
    assert stopped.value.code == 2
    assert "must be at least 1, got 0" in capsys.readouterr().err


# the examples of trainers

LINE = "{} layers frozen, {}, {:.2f} s of the processor\n"


def test_what_an_example_says_last_is_read():
    digits = examples.parse("step 3: 0 froze\n" + LINE.format(5, "test accuracy 96.9 %", 1.68))
    assert digits == examples.Run(5, 96.9, "%", 1.68)
    text = examples.parse(LINE.format(0, "2.91 bits per character", 15.2))
    assert text == examples.Run(0, 2.91, "bits per character", 15.2)
    for output in ("", LINE.format(0, "nothing", 1.0), 2 * LINE.format(1, "2.91 %", 1.0)):
        with pytest.raises(ValueError, match="must end with one line of layers, quality and sec"):
            examples.parse(output)


def test_runs_of_an_example_take_turns_and_are_compared_within_rounds(monkeypatch):
    done = []

    def run(example, t0, length):
        done.append((t0, length))
        slow = 2.0 if len(done) > 9 else 1.0  # the machine slows down for the last rounds
        return examples.Run(0 if t0 == "1" else 4, 95.0, "%", slow * (1.0 if t0 == "1" else 0.6))

    monkeypatch.setattr(examples, "run", run)
    found = examples.in_turns(examples.EXAMPLES["lightning"], 8, 6, seed=0)
    assert done[:2] == [("1", 1), ("0.5", 1)]  # not counted
    rounds = [{t0 for t0, _ in done[i : i + 2]} for i in range(2, 14, 2)]
    assert rounds == [{"1", "0.5"}] * 6
    assert len({t0 for t0, _ in done[2::2]}) == 2  # either is the first in some round
    one = examples.describe("lightning", examples.EXAMPLES["lightning"], 8, found)
    plain, frozen = one["rows"]
    assert (plain["t0"], plain["ratio"], frozen["t0"]) == (1.0, 1.0, 0.5)
    assert frozen["ratio"] == pytest.approx(statistics.median(frozen["ratios"]))
    assert frozen["ratio"] == pytest.approx(0.6)
    assert frozen["interval"] is not None
    assert one["length"] == "8 epochs"
    monkeypatch.setattr(examples, "run", lambda *words: examples.Run(1, 95.0, "%", 1.0))
    with pytest.raises(RuntimeError, match="layers must freeze, but for t0 = 1"):
        examples.in_turns(examples.EXAMPLES["lightning"], 8, 1, seed=0)


def test_what_examples_say_against_freezing():
    def example(unit, plain, frozen, high):
        rows = [
            {"t0": 1.0, "quality": plain, "interval": [1.0, 1.0], "ratio": 1.0},
            {"t0": 0.5, "quality": frozen, "interval": [0.5, high], "ratio": 0.7},
        ]
        for row in rows:
            row |= {"frozen": int(row["t0"] < 1), "median_seconds": 2.0, "seconds": [2.0] * 6}
        about = {"trainer": "some", "version": "1.0", "length": "8 epochs", "unit": unit}
        return {**about, "rows": rows}

    better = [example("%", 90.0, 91.0, 0.8), example("bits per character", 3.0, 2.9, 0.8)]
    assert examples.against(better) == []
    worse = [example("%", 90.0, 89.0, 1.1), example("bits per character", 3.0, 3.1, 0.8)]
    assert examples.against(worse) == [
        "some, t0 = 0.5: no clear saving of time",
        "some, t0 = 0.5: ends worse, 89.0 % against 90.0 with nothing frozen",
        "some, t0 = 0.5: ends worse, 3.1 bits per character against 3.0 with nothing frozen",
    ]
    result = examples.results(better[:1], 6, 0, 1.0)
    found = tables.tables(
        *(
            json.loads((RESULTS / f"{name}-cpu.json").read_text())
            for name in ("ddp_step", "compile_run", "callback_overhead")
        ),
        result,
    )
    assert "| some 1.0, 8 epochs | nothing frozen | 0 | 2.00 |  | 6 | 90 % |" in found["examples"]
    assert "| `t0=0.5` | 1 | 2.00 | 0.70 (0.50 to 0.80) | 6 | 91 % |" in found["examples"]
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert found["examples"] in tables.filled(page, found)


def test_an_example_that_fails_is_told():
    wrong = replace(examples.EXAMPLES["accelerate"], script="absent.py")
    with pytest.raises(RuntimeError, match=r"absent\.py --t0 1 --epochs 1 failed:\n.*No such file"):
        examples.run(wrong, "1", 1)


@pytest.mark.slow
def test_the_toy_run_of_the_examples_writes_everything_down(tmp_path, capsys):
    pytest.importorskip("accelerate")
    out = tmp_path / "new" / "examples.json"
    words = ["--toy", "--trainers", "accelerate", "--out", str(out)]
    assert examples.main(words) == 0
    result = json.loads(out.read_text())
    (one,) = result["examples"]
    assert [row["frozen"] for row in one["rows"]] == [0, 5]
    assert one["unit"] == "%"
    assert result["settings"]["repeats"] == 1
    assert set(result["hardware"]["load"]) == {"before", "after"}
    printed = capsys.readouterr().out
    assert f"Written to {out}" in printed
    for line in result["against"]:
        assert f"against: {line}" in printed


# torch.compile


def a_run(how, **more):
    cell = compile_worker.Cell("equal-3-8", how, **more)
    run = compile_worker.Run(cell, compile_worker.Length(10, 2, 8, "eager", "cpu", 0))
    steps = [run.step() for _ in range(10)]
    run.close()
    return cell, {"warned": run.warned, "layers": 5, "steps": steps}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at it
@pytest.mark.usefixtures("compiling")
def test_graphs_and_limits_of_whole_models_and_of_blocks(monkeypatch):
    compile_worker.warm_compiler(compile_worker.Length(10, 2, 8, "eager", "cpu", 0))
    before = torch._dynamo.config.recompile_limit
    rows = []
    try:
        for how, more in [
            ("eager", {}),
            ("hoarding", {"limit": 2}),
            ("whole", {"limit": 2}),
            ("block", {}),
            ("block", {"freezing": False}),
        ]:
            with monkeypatch.context() as patch:
                if how == "hoarding":  # a PyTorch that does not let graphs be dropped
                    how = "whole"
                    patch.setattr(_dynamo, "can_forget", lambda: False)
                rows.append(compile_run.describe(*a_run(how, **more)))
            torch.compiler.reset()
    finally:
        torch._dynamo.config.recompile_limit = before
    assert [row["graphs"] for row in rows] == [0, 2, 5, 3, 1]
    assert [row["limit_hit"] for row in rows] == [False, True, False, False, False]
    assert [row["warned"] for row in rows] == [False, True, False, False, False]
    assert [row["freezes"] for row in rows] == [4, 4, 4, 4, 0]
    for row in rows:
        assert row["seconds"] == pytest.approx(row["compiling_seconds"] + row["steady_seconds"])
        assert sum(row["step_graphs"]) == row["graphs"]
    compile_run.compared(rows)
    assert rows[0]["total_ratio"] == rows[0]["step_ratio"] == 1.0
    assert all(row["largest_loss_difference"] < 1e-4 for row in rows[:4])
    assert len(compile_run.table(rows)) == 6
    said = compile_run.against([{"network": "equal-3-8", "runs": rows[:4]}])
    assert "equal-3-8, whole model, limit 2: the limit of graphs was hit" in "\n".join(said)


def test_when_compiling_pays_is_computed_from_steps_that_compiled_nothing():
    eager = {"step_seconds": [2.0, 2.0, 2.0]}
    row = {
        "step_seconds": [11.0, 1.5, 1.5],
        "step_graphs": [1, 0, 0],
        "graphs": 1,
        "compiling_seconds": 11.0,
    }
    assert compile_run._even_after(row, eager) == 22
    assert compile_run._even_after({**row, "step_seconds": [11.0, 2.5, 2.5]}, eager) is None
    assert compile_run._even_after({**row, "graphs": 0}, eager) is None


def test_every_way_is_run_with_and_without_freezing():
    for name in compile_run.FULL.networks:
        ways = compile_run.cells(name)
        assert len(set(ways)) == len(ways)
        for how in ("eager", "whole", "block"):
            assert {cell.freezing for cell in ways if cell.how == how} == {True, False}
        assert any(cell.max_freezes == 3 for cell in ways)
    assert any(cell.limit == 64 for cell in ways)


@pytest.mark.slow
def test_the_toy_run_of_compile_run_writes_everything_down(tmp_path):
    result, printed = run_script("benchmarks.stacks.compile", tmp_path / "compile.json", "--toy")
    (network,) = result["networks"]
    assert network["network"] == "equal-2-8"
    assert {row["how"] for row in network["runs"]} == {"eager", "whole", "block"}
    for line in result["against"]:
        assert f"against: {line}" in printed
    assert result["settings"]["backend"] == "eager"


@pytest.mark.slow
@pytest.mark.multiprocess
def test_runs_in_processes_take_turns(tmp_path):
    out = tmp_path / "compile.json"
    arguments = ["--networks", "equal-2-8", "--steps", "8", "--batch-size", "2"]
    result, _ = run_script("benchmarks.stacks.compile", out, *arguments, "--backend", "aot_eager")
    (network,) = result["networks"]
    rows = {(row["name"], row["freezing"]): row for row in network["runs"]}
    assert len(rows) == 7
    assert rows["whole model", True]["graphs"] == 4
    assert rows["each block", True]["graphs"] == 3
    assert rows["eager", True]["graphs"] == 0


def test_blocks_of_a_stack_share_their_code():
    stack = networks.Stack(3, 8, patch=4)
    assert stack(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    shapes = {tuple(p.shape for p in block.parameters()) for block in stack.blocks}
    assert len(shapes) == 1
    assert isinstance(stack.blocks, nn.Sequential)
