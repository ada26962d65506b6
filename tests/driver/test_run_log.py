"""The log of one run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from alcore.driver.run_log import RunLog, WarnOnce, run_logger


def test_loggers_of_runs_are_separate_and_reach_the_logger_alcore(caplog: pytest.LogCaptureFixture) -> None:
    one, other = run_logger("r"), run_logger("r")
    assert one is not other
    with caplog.at_level(logging.INFO):
        one.info("of one")
    assert caplog.messages == ["of one"]


def test_level_of_a_logger_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    run_logger("r", logging.ERROR).warning("unseen")
    assert caplog.messages == []


def test_file_is_appended_to_and_marks_replayed_steps(tmp_path: Path) -> None:
    path, replaying = tmp_path / "console.log", [True, False]
    for turn in (0, 1):
        logger = run_logger("r")
        log = RunLog(logger, path, lambda turn=turn: replaying[turn])  # type: ignore[misc]
        logger.info("line %d", turn)
        log.close()
        logger.info("after the end")
    first, second = path.read_text().splitlines()
    assert first.startswith("[replay] ")
    assert first.endswith("INFO    line 0")
    assert second.endswith("INFO    line 1")
    assert not second.startswith("[replay]")


def test_warnings_alone_go_to_stderr_where_no_logging_is_set_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (None, "alcore"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    logger = run_logger("r")
    log = RunLog(logger, tmp_path / "console.log", lambda: False)
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "level %d", level)
    log.close()
    assert capsys.readouterr().err == "alcore: WARNING: level 30\n"


def test_line_that_the_disk_refuses_is_dropped(tmp_path: Path) -> None:
    logger = run_logger("r")
    log = RunLog(logger, tmp_path / "console.log", lambda: False)

    def full(_text: str) -> None:
        raise OSError(28, "No space left on device")

    log._file.stream.write = full  # type: ignore[method-assign]
    logger.info("a line")
    log.close()


def test_warning_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    warn = WarnOnce(run_logger("r"))
    for message in ("a", "b", "a"):
        warn(message)
    assert caplog.messages == ["a", "b"]


def test_warning_is_logged_once_whatever_its_values_are(caplog: pytest.LogCaptureFixture) -> None:
    warn = WarnOnce(run_logger("r"))
    warn("measured on %d samples", 16)
    warn("measured on %d samples", 17)
    assert [record.getMessage() for record in caplog.records] == ["measured on 16 samples"]
