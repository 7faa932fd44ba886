"""Options: what is accepted, and which of several wins."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from ember_xcs._core.options import (
    DEFAULTS,
    ExecutionOptions,
    execution_options,
    get_execution_options,
    reset_execution_options,
    resolve_options,
    set_execution_options,
)
from ember_xcs.errors import OptionsError


def test_an_unknown_option_is_an_error_that_names_the_closest_and_all_valid_ones() -> None:
    with pytest.raises(OptionsError, match=r"'max_worker'; did you mean 'max_workers'\?.*on_error"):
        ExecutionOptions(max_worker=3)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_workers": 0},
        {"max_workers": "3"},
        {"timeout_seconds": -1.0},
        {"timeout_seconds": float("nan")},
        {"on_error": "ignore"},
        {"scheduler": 3},
        {"scheduler": ExecutionOptions},
        {"passes": "fusion"},
        {"collect_metrics": 1},
        {"collect_metrics": 1.5},
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(bad: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match=next(iter(bad))):
        ExecutionOptions(**bad)


def test_an_unknown_scheduler_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(OptionsError, match=r"did you mean 'parallel'\?.*auto.*sequential"):
        ExecutionOptions(scheduler="paralel")


def test_options_that_come_with_later_stages_are_not_accepted() -> None:
    for name in ("hooks", "seed"):
        with pytest.raises(OptionsError, match=name):
            ExecutionOptions(**{name: None})


def test_options_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        ExecutionOptions().max_workers = 3


def test_precedence_is_argument_inner_outer_set_default() -> None:
    assert resolve_options().max_workers is None
    set_execution_options(max_workers=1, collect_metrics=True)
    assert resolve_options().max_workers == 1
    with execution_options(max_workers=2, timeout_seconds=5):
        with execution_options(max_workers=3):
            options = resolve_options({"on_error": "continue"})
            assert (options.max_workers, options.timeout_seconds, options.collect_metrics) == (
                3,
                5,
                True,
            )
            assert options.on_error == "continue"
            assert resolve_options(ExecutionOptions(max_workers=4)).max_workers == 4
            assert resolve_options(ExecutionOptions(max_workers=4)).timeout_seconds == 5
        assert resolve_options().max_workers == 2
    assert resolve_options().max_workers == 1
    reset_execution_options()
    assert get_execution_options() == ExecutionOptions()


@pytest.mark.parametrize("name", sorted(ExecutionOptions.model_fields))
def test_a_run_without_options_reads_the_defaults_of_the_record(name: str) -> None:
    assert getattr(resolve_options(), name) == getattr(ExecutionOptions(), name)


def test_the_options_in_force_are_a_record_where_none_were_given() -> None:
    assert get_execution_options().replace(max_workers=3) == ExecutionOptions(max_workers=3)


def test_the_options_of_a_run_without_options_add_nothing_to_a_call() -> None:
    with execution_options(max_workers=2):
        assert resolve_options(DEFAULTS).max_workers == 2
        with execution_options(DEFAULTS):
            assert resolve_options().max_workers == 2


def test_defaults_with_some_options_changed_are_checked() -> None:
    assert DEFAULTS.replace(max_workers=2) == ExecutionOptions(max_workers=2)
    with pytest.raises(OptionsError, match="max_workers"):
        DEFAULTS.replace(max_workers=0)


def test_setting_within_a_block_does_not_override_the_block() -> None:
    with execution_options(max_workers=2):
        set_execution_options(max_workers=9, trace_execution=True)
        assert (get_execution_options().max_workers, get_execution_options().trace_execution) == (
            2,
            True,
        )
    assert get_execution_options().max_workers == 9


def test_a_block_is_left_when_it_raises() -> None:
    with pytest.raises(RuntimeError), execution_options(max_workers=2):
        raise RuntimeError
    assert get_execution_options().max_workers is None


def test_each_asyncio_task_has_its_own_blocks() -> None:
    async def task(workers: int, turn: asyncio.Barrier) -> int | None:
        with execution_options(max_workers=workers):
            await turn.wait()
            return get_execution_options().max_workers

    async def both() -> list[int | None]:
        turn = asyncio.Barrier(2)
        return await asyncio.gather(task(1, turn), task(2, turn))

    assert asyncio.run(both()) == [1, 2]


def test_a_new_context_has_no_blocks_of_another() -> None:
    with execution_options(max_workers=2):
        assert contextvars.Context().run(get_execution_options).max_workers is None
