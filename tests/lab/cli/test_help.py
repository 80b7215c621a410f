"""What the program says of itself: help in colour, its version, completion for shells."""

import re
import subprocess
import sys

import pytest

from freezeout.lab.cli import main


@pytest.mark.parametrize("processes", [None, "2"], ids=["alone", "where a cluster sets WORLD_SIZE"])
def test_version(monkeypatch, capsys, processes):
    if processes:
        monkeypatch.setenv("WORLD_SIZE", processes)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"freezeout \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.multiprocess
def test_help_does_not_wait_for_heavy_imports():
    code = (
        "import sys; from freezeout.lab.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('matplotlib', 'sklearn', 'pooch', 'tensorboard') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("terminal", [False, True])
def test_help_is_in_colour_on_a_terminal_alone(monkeypatch, capsys, terminal):
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    text = capsys.readouterr().out
    assert ("\x1b[" in text) == terminal
    assert "  [grid]                      # a list" in re.sub("\x1b.*?m", "", text)  # no markup


def test_completion_knows_verbs_options_choices_and_paths(tmp_path, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--print-completion", "bash"])
    assert not leaving.value.code
    script = tmp_path / "freezeout.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "runs").mkdir()
    (tmp_path / "my.toml").touch()
    words = {
        "tr": "train",
        "train --disp": "--display",
        "train --display li": "live lines",
        "train --config m": "my.toml",
        "report r": "runs",
        "report m": "",  # a file is no folder of runs
    }
    asked = "".join(
        f"COMP_WORDS=(freezeout {line}); COMP_CWORD={len(line.split())}; COMPREPLY=()\n"
        '_shtab_freezeout; echo "${COMPREPLY[@]}"\n'
        for line in words
    )
    done = subprocess.run(
        ["bash", "-c", f"source {script}\n{asked}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stdout.splitlines() == list(words.values())


def test_completion_for_zsh(capsys):
    with pytest.raises(SystemExit):
        main(["--print-completion", "zsh"])
    text = capsys.readouterr().out
    assert text.startswith("#compdef freezeout\n")
    assert "--display[what to show meanwhile" in text
