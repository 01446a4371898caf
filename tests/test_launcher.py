"""A launcher's variables: whole, absent, or one line."""

import pytest

from lwd.errors import UserError
from lwd.launcher import check_launcher

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "environment",
    [{}, WHOLE, {"RANK": "0"}, {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"MASTER_ADDR": "head-node"}],
)
def test_whole_or_absent(environment):
    check_launcher(environment)


@pytest.mark.parametrize("missing", WHOLE)
def test_one_that_is_missing_is_named(missing):
    with pytest.raises(UserError, match=f"in the environment, but no {missing}: .*unset RANK"):
        check_launcher({name: value for name, value in WHOLE.items() if name != missing})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "1"}, "RANK=1 in the environment, but no WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "but no RANK, LOCAL_RANK"),
        ({"LOCAL_RANK": "0"}, "but no RANK, WORLD_SIZE"),
        ({"RANK": ""}, "RANK='' in the environment: must be a number"),
        (WHOLE | {"RANK": "2"}, "RANK=2 and WORLD_SIZE=2"),
        (WHOLE | {"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        (WHOLE | {"WORLD_SIZE": "two"}, "WORLD_SIZE='two'"),
        (WHOLE | {"RANK": "-1"}, "RANK='-1'"),
    ],
)
def test_leftovers_are_one_line(environment, words):
    with pytest.raises(UserError) as caught:
        check_launcher(environment)
    assert words in str(caught.value) and "\n" not in str(caught.value)
