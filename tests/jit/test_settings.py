"""The settings of jit: what is accepted."""

from __future__ import annotations

import dataclasses

import pytest

import ember_xcs as xcs
from ember_xcs._jit.settings import jit_settings


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": 3},
        {"recursive": 1},
        {"force_trace": "no"},
        {"prefer": 3},
        {"static_argnames": ("n", 3)},
        {"static_argnums": 1.5},
        {"donate_argnums": ("x",)},
        {"disable_strategies": 3},
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_setting(bad: dict[str, object]) -> None:
    with pytest.raises(xcs.OptionsError, match=f"jit: {next(iter(bad))}=.*must be"):
        jit_settings(**bad)


def test_an_unknown_setting_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(xcs.OptionsError, match=r"no setting 'speed'.*static_argnums"):
        jit_settings(speed=3)


def test_one_name_stands_for_a_tuple_of_names() -> None:
    assert jit_settings(static_argnames="n").static_argnames == ("n",)


def test_options_given_by_name_become_a_record() -> None:
    assert jit_settings(options={"max_workers": 2}).options == xcs.ExecutionOptions(max_workers=2)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        xcs.JITSettings().recursive = False
