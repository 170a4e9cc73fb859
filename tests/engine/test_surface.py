"""What the engine shows is what it says."""

import importlib

import pytest

import engine


def test_the_names_are_sorted_and_are_all_that_is_visible():
    assert engine.__all__ == sorted(engine.__all__)
    assert dir(engine) == engine.__all__


@pytest.mark.parametrize("name", engine.__all__)
def test_each_name_comes_from_a_module_that_declares_it(name):
    home = importlib.import_module(engine._HOMES[name])
    assert name in home.__all__
    assert getattr(engine, name) is getattr(home, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        engine.Pipelines  # noqa: B018 - the access is the test
    assert set(engine._HOMES) == set(engine.__all__)
