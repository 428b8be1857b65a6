"""A container may have no git, no home and no name for its user."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import Command
from test_session import the_run
from test_sweep import empty_store

from fairsweep.cli.environment import VARIABLES, complete_environment, with_variables
from fairsweep.runs import markers, provenance

__all__ = ["empty_store"]  # fixtures


def bare() -> None:
    """No git, no home, no user of this number, no terminal, no standard input."""
    os.environ.clear()
    os.environ["PATH"] = "/nowhere"
    os.close(0)
    os.getuid = lambda: 54321  # not set, so that the files stay those of the tests


def test_a_bare_container_trains_and_uploads(tmp_path: Path, empty_store: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    shutil.copy(empty_store, outputs)
    words = ("model=mlp", "model.widths=[4]", "data.limit=100", "trainer.epochs=1", "trainer.threads=1")
    answer = Command(outputs, (*words, "tracking.log_model=none", f"record.dir={outputs}"), bare).wait()
    assert (answer.status, answer.stderr) == (0, "")
    status = the_run(outputs).status()
    assert (status.name, status.git) == ("finished", {})
    assert not list(markers.pending(outputs).iterdir())


@pytest.mark.parametrize("name", VARIABLES.values())
def test_an_empty_variable_counts_as_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    complete_environment()
    assert name not in os.environ
    monkeypatch.setenv(name, "somewhere")
    complete_environment()
    assert os.environ[name] == "somewhere"


def test_an_error_names_the_variable_that_set_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSWEEP_DATA", "/nowhere")
    assert with_variables("data.root=/nowhere: no such folder") == (
        "data.root=/nowhere (from FAIRSWEEP_DATA): no such folder"
    )
    assert with_variables("data.root=/else: no such folder") == "data.root=/else: no such folder"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of ours with one commit."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


def test_the_commit_is_recorded(checkout: Path) -> None:
    (checkout / "a.py").touch()
    state = provenance.git_state.__wrapped__()
    assert (len(state["commit"]), state["dirty"]) == (40, "false")
    subprocess.run(["git", "-C", str(checkout), "add", "a.py"], check=True)
    assert provenance.git_state.__wrapped__()["dirty"] == "true"


def test_uncommitted_changes_are_kept_as_a_patch_that_git_applies(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str, patch: str = "") -> None:
        command = ["git", "-C", str(checkout), *words]
        subprocess.run(command, input=patch, text=True, check=True, capture_output=True)

    (checkout / "src").mkdir()
    (checkout / ".gitignore").write_text("secret\n")
    git("add", ".gitignore")
    (checkout / "src" / "new.py").write_text("untracked")
    (checkout / "src" / "secret").write_text("password")
    monkeypatch.setattr(provenance, "git_state", provenance.git_state.__wrapped__)
    patch = provenance.uncommitted.__wrapped__()
    assert patch.startswith("# untracked, not in this patch: src/new.py\ndiff --git ")
    assert "src/secret" not in patch
    assert "password" not in patch
    git("reset", "-q", "--hard")
    git("apply", patch=patch)
    assert (checkout / ".gitignore").read_text() == "secret\n"

    monkeypatch.setattr(provenance, "PATCH_LENGTH", 10)
    git("add", ".gitignore")
    assert provenance.uncommitted.__wrapped__().endswith("\n# cut after 10 characters\n")


@pytest.mark.parametrize("name", ["PATH", "GIT_TEST_ASSUME_DIFFERENT_OWNER"])
def test_where_git_does_not_answer_the_commit_is_unknown(
    checkout: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not installed; or the checkout is another user's ("dubious ownership")."""
    monkeypatch.setenv(name, "1")
    assert provenance.git_state.__wrapped__() == {}
