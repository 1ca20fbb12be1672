"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import xmc_core

MODULES = [module.name for module in pkgutil.walk_packages(xmc_core.__path__, "xmc_core.")]


@pytest.mark.parametrize("name", [name for name in MODULES if ".encoder" not in name])
def test_examples_of(name: str):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
