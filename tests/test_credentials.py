"""No password of a tracking store is written or printed, however difficult it is."""

import runpy
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from test_sweep import empty_store

from fairsweep.config import ROOT, redacted, without_credentials

__all__ = ["empty_store"]  # fixtures

HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:hunter2@host:5000/path", "http://host:5000/path"),
        ("http://hunter2@host", "http://host"),
        ("postgresql+psycopg://u:p@hunter2@host/db", "postgresql+psycopg://host/db"),
        ("postgresql://u:p/hunter2@host/db", "postgresql://host/db"),
        ("postgresql://u:p#hunter2@host/db", "postgresql://host/db"),
        ("postgresql://u:p?hunter2@host/db", "postgresql://host/db"),
        ("postgresql://u:7/hunter2@host/db", "postgresql://host/db"),
        ("postgresql://u:it's hunter2@host/db", "postgresql://host/db"),
        ("mysql://u:%40hunter2@[::1]:3306/db", "mysql://[::1]:3306/db"),
        ("postgresql://host/db?user=u&password=hunter2", "postgresql://host/db?user=u&password=***"),
        ("postgresql://host/db?sslpassword=hun#hunter2&a=1", "postgresql://host/db?sslpassword=***&a=1"),
        ("http://host/?access_token=hunter2", "http://host/?access_token=***"),
        ("tried http://u:p@hunter2@host/ and http://v:hunter2@b.", "tried http://host/ and http://b."),
        ("export MLFLOW_TRACKING_PASSWORD=hunter2", "export MLFLOW_TRACKING_PASSWORD=***"),
    ],
)
def test_credentials_are_removed(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me@work/a:b/mlflow.db",
        "http://127.0.0.1:5000",
        "https://github.com/pypa/pip@main",
        "must be a database such as postgresql://<user>:<password>@<host>/<name>; for example x",
        "mail me@example.org about http://host",
        "mlflow ui --backend-store-uri 'postgresql://host/db?password=***'",
        "uploading to postgresql://host/db?password=***; Ctrl-C leaves that to the next command",
        "optimizer.lr=0.1 +model.tokens=3 data.root=/data/a@b",
    ],
)
def test_what_holds_no_credentials_stays(text: str) -> None:
    assert without_credentials(text) == text


def test_long_words_take_no_long_time() -> None:
    """Jobs and tracebacks hold some of 100,000 characters; at each of them a scheme could begin."""
    words = ["a" * 10**5, "A" * 10**5, "a-" * 10**5, "http://" + "b" * 10**5, "http://h/" + "?x" * 10**5]
    assert [without_credentials(word) for word in words] == words


def test_parts_of_a_password_that_a_library_took_for_something_else_are_removed() -> None:
    uri = "postgresql://admin:p@hunter2/x@host/db?password=y%40z"
    text = 'could not translate host name "hunter2" or "x@host" of admin to address; y@z, hunter21'
    told = 'could not translate host name "***" or "***@host" of admin to address; ***, hunter21'
    assert without_credentials(text, uri) == told


def test_values_and_overrides_are_redacted_one_by_one() -> None:
    values = {"a": ["tracking.uri='http://u:my hunter2@host'", 'x={a: {uri: "http://u:hunter2@h"}}'], "b": 1}
    assert redacted(values) == {"a": ["tracking.uri='http://host'", 'x={a: {uri: "http://h"}}'], "b": 1}


@pytest.mark.parametrize(
    ("how", "uri"),
    [
        ("command line", "http://admin:p@ss@hunter2@127.0.0.1:9"),
        ("environment", "sqlite:///{outputs}/mlflow.db?password=hunter2&timeout=30"),
    ],
)
def test_a_password_is_written_and_printed_nowhere(
    how: str,
    uri: str,
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    shutil.copy(empty_store, outputs)
    uri = uri.format(outputs=outputs)
    words = ["model=mlp", "model.widths=[4]", "data.limit=100", "trainer.epochs=1", f"record.dir={outputs}"]
    words += ["tracking.log_model=none", "record.pictures=none"]
    if how == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    else:
        words.append(f"tracking.uri='{uri}'")

    def run(*more: str, flags: Sequence[str] = ()) -> None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", traceback)
        monkeypatch.setattr(sys, "argv", ["src/train.py", *flags, *words, *more])
        with suppress(SystemExit):
            runpy.run_path(str(ROOT / "src" / "train.py"), run_name="__main__")

    traceback = "0"
    run()
    run("seed=0,1", "+hydra.job.env_set.MLFLOW_TRACKING_PASSWORD=hunter2", flags=["-m"])
    run(f"objective='{uri}'")
    run("tracking.uri='http://admin:pa/ss@hunter2@127.0.0.1:9'")
    traceback = "1"
    run(f"objective='{uri}'")
    printed = capfd.readouterr()
    assert "2 finished" in printed.out
    assert "error: objective=" in printed.err
    assert "in a password, write %2F" in printed.err
    assert "Traceback" in printed.err
    assert HIDDEN not in printed.out + printed.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert [path for path in written if HIDDEN.encode() in path.read_bytes()] == []
