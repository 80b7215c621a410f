"""The command line: what it prints, what it leaves, and one line for every mistake."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from freezeout.lab.cli import main
from freezeout.lab.locks import is_lock
from freezeout.lab.training import RunFolder, Settings, read_toml, setting_fields
from freezeout.lab.training.checkpoint import load_checkpoint
from tests.lab.runs import SMALL_ARGUMENTS, assert_same_end, search_path, train

TRAIN = ("-m", "freezeout", "train")


def freezeout(*words, env=None, **kwargs):
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "freezeout", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, **(env or {})},
        **kwargs,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run of the program and what it printed."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    result = freezeout("train", *SMALL_ARGUMENTS, "--out", folder)
    assert result.returncode == 0, result.stderr
    return RunFolder(folder), result


def refused(capsys, *words):
    """Runs in this process; returns the one line of complaint."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err.strip()


# -- a whole run --------------------------------------------------------------------------------


def test_lines_tell_of_every_epoch_and_freeze_without_control_codes(done):
    folder, result = done
    log = folder.read_log()
    assert len(re.findall(r"^epoch [123]/3 ", result.stdout, re.M)) == 3
    for record in log:
        if record["event"] == "freeze":
            assert f"froze layer {record['index']} ({record['name']})" in result.stdout
        if record["event"] == "epoch":
            assert f"test error {record['test_error']:.2f} %" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stderr == ""


def test_the_summary_gives_error_times_and_saving(done):
    folder, result = done
    summary = json.loads(folder.summary_file.read_text())
    last = [r for r in folder.read_log() if r["event"] == "epoch"][-1]
    assert summary["test_error"] == last["test_error"]
    assert f"test error      {last['test_error']:.2f} %" in result.stdout
    assert summary["steps"] == 12
    assert len(summary["seconds_per_epoch"]) == 3
    assert summary["total_seconds"] >= summary["train_seconds"] > 0
    assert sum(cost["steps"] for cost in summary["depth_costs"]) == 12
    costs = {c["frozen"]: (c["steps"], c["median_seconds"]) for c in summary["depth_costs"]}
    unfrozen = costs[0][1]
    spent = sum(steps * seconds for steps, seconds in costs.values())
    assert summary["saving"] == pytest.approx(1 - spent / (12 * unfrozen))
    assert f"{100 * summary['saving']:.1f} % measured, against this run's own" in result.stdout
    assert str(folder.path) in result.stdout.replace("\n", "").replace(" ", "")
    assert summary["hardware"]["torch"]


def test_the_folder_holds_what_the_readme_says(done):
    folder, _ = done
    assert sorted(p.name for p in folder.path.iterdir() if not is_lock(p)) == [
        "checkpoint.pt",
        "log.jsonl",
        "run.png",
        "settings.toml",
        "summary.json",
    ]
    assert folder.picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert Settings.from_dict(read_toml(folder.settings_file)).model == "resnet-8-8"


def test_the_picture_shows_the_rates_of_the_schedule(done, monkeypatch):
    from freezeout.lab.cli import show
    from freezeout.lab.training import resume

    folder, _ = done
    drawn = []
    monkeypatch.setattr(
        "freezeout.lab.report.figures.RunFigure.save",
        lambda figure, path, title: drawn.append((figure.record, path, title)),
    )
    trainer = resume(folder).trainer
    show._draw(trainer, folder)
    ((record, path, title),) = drawn
    assert path == folder.picture
    assert title == trainer.settings.title
    assert record.rate_steps == tuple(range(13))
    assert record.freeze_steps == (3, 5, 7, 9, None)
    assert len(record.rates) == 5
    assert record.rates[0][0] == pytest.approx(0.1 / 0.6**3)
    assert record.rates[0][3:] == (0.0,) * 10
    assert record.rates[4][0] == pytest.approx(0.1)
    assert [time.step for time in record.step_times] == list(range(1, 13))


def test_so_many_steps_in_place_of_epochs(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    words = [*SMALL_ARGUMENTS, "--epochs", "7", "--steps", "10", "--display", "lines"]
    assert main(["train", *words, "--out", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^epoch (\d/\d) ", out, re.M) == ["1/3", "2/3", "3/3"]
    assert "(3 epochs)" in out
    summary = json.loads(folder.summary_file.read_text())
    assert (summary["steps"], summary["total_steps"], summary["epochs"]) == (10, 10, 3)
    assert read_toml(folder.settings_file)["steps"] == 10


def test_default_folders_are_numbered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", *SMALL_ARGUMENTS, "--epochs", "1", "--display", "none"]
    assert main(words) == 0
    assert main(words) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "digits-resnet-8-8-1",
        "digits-resnet-8-8-2",
    ]
    assert "test error" in capsys.readouterr().out


def test_tensorboard_on_request(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    words = [*SMALL_ARGUMENTS, "--epochs", "1", "--tensorboard", "--display", "none"]
    assert main(["train", *words, "--out", str(folder.path)]) == 0
    assert list(folder.tensorboard.glob("events.out.tfevents.*"))


def test_preset_then_file_then_command_line(tmp_path, capsys):
    config = tmp_path / "my.toml"
    config.write_text(
        'preset = "paper"\nlr = 0.03\nbatch_size = 32\ntrain_size = 64\nscaled = false'
    )
    words = ["--config", config, "--batch-size", 16, "--epochs", 1, "--padding", 1]
    words += ["--model", "resnet-8-4", "--display", "none", "--out", tmp_path / "run"]
    assert main(["train", *map(str, words)]) == 0
    settings = RunFolder(tmp_path / "run").settings()
    assert (settings.lr, settings.batch_size, settings.epochs) == (0.03, 16, 1)
    assert (settings.scaled, settings.flip) == (False, True)  # from the file, from the preset
    assert main(["train", "--preset", "demo", *map(str, words[:-1]), str(tmp_path / "two")]) == 0
    assert RunFolder(tmp_path / "two").settings().flip is False  # the demo's, not the paper's


def test_every_setting_is_an_option_with_its_help(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["train", "--help"])
    assert leaving.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for spec in setting_fields():
        assert f"--{spec.name.replace('_', '-')}" in text
        assert spec.metadata["help"][:20] in text, spec.name
    for word in ("--no-scaled", "--resume", "--tensorboard", "paper-densenet"):
        assert word in text


# -- interruption -------------------------------------------------------------------------------


@pytest.mark.multiprocess
def test_ctrl_c_saves_says_how_to_go_on_and_that_works(tmp_path, capsys):
    long = [*SMALL_ARGUMENTS, "--epochs", "80"]
    folder = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-m", "freezeout", "train", *long, "--out", str(folder.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pipesize=4096,  # has no room for all lines: it cannot end before the signal
    )
    deadline = time.monotonic() + 600
    while not any(r["event"] == "epoch" for r in folder.read_log()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert err == ""
    # The sentence is printed in lines; put them together to read the command in it.
    said = " ".join(out.split())
    command = re.search(r"go on with: freezeout (train --resume) (\S+)", said)
    assert command, said
    assert "interrupted: resnet-8-8 on digits" in said
    assert main([*command[1].split(), command[2]]) == 0, capsys.readouterr().err
    assert_same_end(train(tmp_path / "whole", epochs=80), folder)


# -- mistakes: one line, exit code 2 ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: VERB"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["train", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["train", "--epochs"], "argument --epochs: expected one argument"),
        (["train", "--nonsense", "3"], "unrecognized arguments: --nonsense 3"),
        (["train", "--steps", "0"], "steps must be at least 1, got 0."),
        (["train", "--steps", "x"], "argument --steps: invalid int value: 'x'"),
        (["train", "--times", "a,b"], "must be numbers with commas, got 'a,b'"),
        (["train", "--optimizer", "lion"], "invalid choice: 'lion'"),
        (["train", "--preset", "papre"], "unknown preset 'papre'"),
        (["train", "--model", "rsenet-20"], "unknown network 'rsenet-20'"),
        (["train", "--model", "resnet-21"], "depth"),
        (["train", "--data", "imagenet"], "imagenet"),
        (["train", "--t0", "0"], "t0 must lie in (0, 1], got 0.0."),
        (["train", "--t0", "1.01"], "t0 must lie in (0, 1], got 1.01."),
        (["train", "--t0", "nan"], "t0 must lie in (0, 1], got nan."),
        (["train", "--lr", "-1"], "lr must be above 0 and finite, got -1.0."),
        (["train", "--lr", "1e39"], "lr must be at most 1e+30, got 1e+39."),
        (["train", "--seed", "9" * 20], "seed must be at most"),
        (["train", "--threads", "99999999999"], "threads must be at most 1024"),
        (["train", "--epochs", "9" * 20], "epochs must be at most 1e+06"),
        (["train", "--device", "cuda:99999999999999"], "device must be auto, cpu, cuda or cuda:N"),
        (["train", "--batch-size", "1"], "every training batch must hold at least 2 images"),
        (["train", "--holdout", "1436"], "every training batch must hold at least 2 images"),
        (["train", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["train", "--config", "absent.toml"], "there is no settings file absent.toml"),
        (["train", "--resume", "absent"], "there is no run in absent"),
        (["train", "--resume", "x", "--out", "y"], "--out cannot be given with --resume"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else None,
)
def test_a_mistake_gets_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.iterdir()), "a refused run must leave nothing behind"


def test_a_folder_that_is_not_empty(done, capsys):
    folder, _ = done
    before = {p.name: p.read_bytes() for p in folder.path.iterdir()}
    line = refused(capsys, "train", *SMALL_ARGUMENTS, "--out", folder.path)
    assert "is not empty" in line
    assert f"freezeout train --resume {folder.path}" in line
    assert {p.name: p.read_bytes() for p in folder.path.iterdir()} == before


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    line = refused(capsys, "train", *SMALL_ARGUMENTS, "--out", tmp_path / "file" / "run")
    assert "Not a directory" in line


def test_an_unwritable_disk(capsys):
    if not os.path.isdir("/proc/self"):  # noqa: PTH112
        pytest.skip("needs a file system that refuses new files, such as /proc")
    line = refused(capsys, "train", *SMALL_ARGUMENTS, "--out", "/proc/freezeout-run")
    assert "cannot make folder /proc/freezeout-run" in line


def test_a_truncated_checkpoint(done, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(done[0].path, folder.path)
    folder.checkpoint.write_bytes(folder.checkpoint.read_bytes()[:1000])
    assert "is damaged: it does not end as an archive does" in refused(
        capsys, "train", "--resume", folder.path
    )


def test_a_checkpoint_of_other_settings(done, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(done[0].path, folder.path)
    text = folder.settings_file.read_text()
    changed = text.replace("t0 = 0.6", "t0 = 0.7")
    folder.settings_file.write_text(changed)
    assert "is damaged: its digest is another" in refused(capsys, "train", "--resume", folder.path)
    folder.settings_file.write_text(changed.replace("# digest: ", "# was: "))
    line = refused(capsys, "train", "--resume", folder.path)
    assert "was made with t0=0.6, but" in line
    folder.settings_file.write_text(text)
    assert "has t0=0.6, got 0.7" in refused(capsys, "train", "--resume", folder.path, "--t0", "0.7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('preset = ["paper"]', "unknown preset ['paper']"),
        ("times = 0.5", "times must be a list of numbers, got 0.5"),
        ('times = "0.5,1"', "times must be a list of numbers, got '0.5,1'"),
        ("epochs = 1.5", "epochs must be a whole number of at least 1, got 1.5"),
        ("epoch = 3", "'epoch' in my.toml is not a setting. Did you mean 'epochs'?"),
        ("epochs = ", "my.toml is not valid TOML"),
    ],
)
def test_a_mistake_in_a_file(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(text)
    assert message in refused(capsys, "train", "--config", "my.toml")
    assert [p.name for p in tmp_path.iterdir()] == ["my.toml"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", [1]),
        ("settings", 3),
        ("step", "7"),
        ("epoch", -1),
        ("clock", "noon"),
        ("sums", 3),
        ("history", 3),
        ("generator", None),
        ("scheduler", {}),
        ("optimizer", {}),
        ("model", {}),
    ],
)
def test_odd_values_inside_a_checkpoint(done, tmp_path, capsys, name, value):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(done[0].path, folder.path)
    state = load_checkpoint(folder.checkpoint)
    torch.save({**state, name: value}, folder.checkpoint)
    before = folder.checkpoint.read_bytes()
    line = refused(capsys, "train", "--resume", folder.path)
    assert "checkpoint" in line
    assert folder.checkpoint.read_bytes() == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(done, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    shutil.copy(done[0].settings_file, folder.settings_file)
    (folder.path / ".checkpoint.pt.x.freezeout-part").write_bytes(b"half")
    assert main(["train", "--resume", str(folder.path), "--display", "none"]) == 0
    assert_same_end(done[0], folder)
    assert all(map(is_lock, folder.path.glob(".*")))
    # One that had got further and lost its checkpoint is another matter.
    folder.checkpoint.unlink()
    assert "there is no checkpoint" in refused(capsys, "train", "--resume", folder.path)


def test_a_disk_that_is_full_after_training(done, tmp_path, monkeypatch, capsys):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(done[0].path, folder.path)
    move = Path.replace

    def full(path, target):
        if target.name == "run.png":
            raise OSError(28, "No space left on device")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", full)
    line = refused(capsys, "train", "--resume", folder.path, "--display", "none")
    assert "run.png: No space left on device. What was saved before is untouched" in line
    assert json.loads(folder.summary_file.read_text())["steps"] == 12


@pytest.mark.multiprocess
def test_a_reader_that_goes_away_does_not_stop_the_run(done, tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, *TRAIN, *SMALL_ARGUMENTS, "--out", str(folder.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=600) == 0
    assert_same_end(done[0], folder)
    assert folder.summary_file.exists()


def test_files_of_a_run_can_be_read_by_others(done):
    mask = os.umask(0)
    os.umask(mask)
    for name in ("checkpoint.pt", "settings.toml", "log.jsonl"):
        assert (done[0].path / name).stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_loss_that_becomes_nan(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    words = [*SMALL_ARGUMENTS, "--lr", "1e18", "--epochs", "20", "--display", "none"]
    line = refused(capsys, "train", *words, "--out", folder.path)
    assert re.search(r"training diverged: .* at step \d+\.", line)
    assert folder.checkpoint.exists()


def test_damaged_data_is_named_and_not_fetched_again(tmp_path, capsys):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"not the images"))
    words = ["--data", "fashion-mnist", "--data-dir", tmp_path, "--out", tmp_path / "run"]
    line = refused(capsys, "train", *words)
    assert "train-images-idx3-ubyte.gz" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_several_processes_without_a_launcher_are_refused_once(tmp_path, monkeypatch, capsys, rank):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert main(["train"]) == 2
    line = capsys.readouterr().err
    if rank == "0":
        assert line.count("\n") == 1
        assert "nothing set RANK, MASTER_ADDR, MASTER_PORT" in line
        assert "Start them with torchrun, or unset WORLD_SIZE" in line
    else:
        assert line == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WORLD_SIZE", "9" * 5000, "must be whole numbers"),
        ("WORLD_SIZE", "9" * 15, "WORLD_SIZE must be at most 65,536, got 999999999999999"),
        ("LOCAL_RANK", "9" * 5000, "must be whole numbers"),
        ("MASTER_PORT", "9" * 5000, "MASTER_PORT must be a port from 1 to 65535"),
    ],
    ids=lambda value: value[:20],
)
def test_numbers_of_a_launcher_that_cannot_be(monkeypatch, capsys, variable, value, message):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv(variable, value)
    assert message in refused(capsys, "train")


@pytest.mark.parametrize("port", ["0", "65536", "any"])
def test_a_port_at_which_nobody_can_meet_is_refused(monkeypatch, capsys, port):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", port)
    line = refused(capsys, "train")
    assert f"MASTER_PORT must be a port from 1 to 65535, got {port!r}" in line


@pytest.mark.parametrize(("rank", "local"), [("2", "2"), ("-1", "0"), ("0", "-1")])
def test_a_rank_that_cannot_be_is_refused(monkeypatch, capsys, rank, local):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    line = refused(capsys, "train")
    assert "RANK must lie in 0 to 1 (WORLD_SIZE - 1) and LOCAL_RANK be at least 0" in line
    assert f"got {rank} and {local}" in line


def test_one_process_under_a_launcher_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "1")
    words = [*SMALL_ARGUMENTS, "--epochs", "1", "--display", "none"]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("package", "words"),
    [("psutil", []), ("rich", []), ("shtab", []), ("rich_argparse", ["--help"])],
)
def test_a_missing_extra_is_named(tmp_path, package, words):
    (tmp_path / f"{package}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')"
    )
    result = freezeout(
        "train",
        *SMALL_ARGUMENTS,
        *words,
        "--out",
        tmp_path / "run",
        env={"PYTHONPATH": search_path(tmp_path)},
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"needs the package {package.replace('_', '-')}, which" in result.stderr
    assert "pip install 'freezeout[lab]'" in result.stderr


def test_a_defect_is_not_hidden_as_bad_input(monkeypatch):
    def defect(options):
        raise ZeroDivisionError

    monkeypatch.setattr("freezeout.lab.cli.train._run", defect)
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_runs_of_the_library_and_of_the_program_are_the_same(done, tmp_path):
    assert_same_end(done[0], train(tmp_path / "run"))
