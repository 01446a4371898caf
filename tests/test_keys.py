"""`lwd keys`: the reference of all keys, and the JSON schema."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lwd.cli.keys import all_keys
from lwd.cli.main import app

ROOT = Path(__file__).parents[1]
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.is_file()]


def printed(*words):
    result = CliRunner().invoke(app, ["keys", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_key_says_what_it_means():
    assert [key.name for key in all_keys() if not key.meaning] == []


def test_the_page_is_what_the_command_prints():
    """Where it is not: `lwd keys --markdown > docs/config.md`."""
    assert (ROOT / "docs" / "config.md").read_text() == printed("--markdown")


def leaves(data, prefix=""):
    for key, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_every_key_of_the_recipes_is_there(file):
    free = ("compare.variants.", "train.local_times.")  # of any names
    names = {key.name for key in all_keys()} | {"groups"}
    found = list(leaves(yaml.safe_load(file.read_text())))
    assert found and [key for key in found if key not in names and not key.startswith(free)] == []


def test_defaults_and_values_are_those_of_the_settings():
    by_name = {key.name: key for key in all_keys()}
    assert by_name["train.steps"].default == "400000" and by_name["train.steps"].values == "integer > 0"
    assert by_name["train.init_from"].values == "path or null"
    assert by_name["leader"].default is None
    assert by_name["train.schedule.kind"].values == "learned | synchronous | offset | power"
    assert by_name["train.times"].values == "string or a section or null"


def test_the_schema_is_one_and_knows_the_short_forms():
    schema = json.loads(printed("--schema"))
    assert {"groups", "leader"} == set(schema["required"]) and not schema["additionalProperties"]
    assert {"type": "string"} in schema["$defs"]["ScheduleChoice"]["anyOf"]
    assert "Eq. 33" in json.dumps(schema["$defs"]["Group"])


def test_a_part_of_it_and_what_is_not_there():
    assert all(line.startswith(("sweep.", "    ")) for line in printed("sweep").splitlines())
    result = CliRunner().invoke(app, ["keys", "trian"])
    assert result.exit_code == 2 and "no such section" in result.stderr
