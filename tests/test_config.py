"""Strict configs: what is read, and one line for everything that is refused."""

import re
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from lwd.config import Config, FolderName, PathText, Seed, as_folder_name, dump, load, merge, parse
from lwd.errors import UserError
from lwd.groups import Group
from lwd.scalars import as_url
from lwd.yaml12 import Dumper, Loader


class Optimiser(Config):
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    name: Literal["adamw", "sgd"] = "adamw"


class Part(Config):
    channels: int = 1


class Settings(Config):
    steps: int = Field(default=100, ge=1)
    output: Path = Path("runs")
    label: str = "plain"
    compile: bool = False
    optimiser: Optimiser = Optimiser()
    weak: Optimiser | None = None
    parts: list[Part] = Field(default=[])

    @field_validator("label")
    @classmethod
    def _no_spaces(cls, value: str) -> str:
        if " " in value:
            raise ValueError("A label has no spaces")
        return value


class Required(Config):
    data: Path


@pytest.fixture
def read(tmp_path):
    """read(text, *overrides, kind=Settings) -> config."""

    def read(text, *overrides, kind=Settings):
        file = tmp_path / "config.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(kind, file, overrides)

    return read


def refusal(call, *arguments, **keywords):
    """The message of the UserError that the call raises, which is one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message and message
    return message


# reading


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/run", "s3://bucket/run"),
        ("s3:/bucket/run", "s3://bucket/run"),
        (str(Path("gs://b/r")), "gs://b/r"),
        ("file:///tmp/run", "file:///tmp/run"),
        (str(Path("file:///tmp/run")), "file:///tmp/run"),
        ("S3://Bucket/Run", "s3://Bucket/Run"),
        *((path, None) for path in ("runs/s3", "C:/runs", "c:/runs", "/s3://x", "a:b", "s3:", "owner/name", "~/x")),
    ],
)
def test_urls_among_paths(text, url):
    assert as_url(text) == url


@pytest.mark.parametrize("text", ["plain-1.0", ".hidden", "  ", "..", "", "a/b", "x y ", "(1)", "a\nb", "=1"])
def test_a_folder_name_near_any_text_is_valid(text):
    name = as_folder_name(text)
    assert TypeAdapter(FolderName).validate_python(name) == name
    assert (name == text) == (text in ("plain-1.0", "=1"))


def test_no_file_gives_the_defaults(read):
    assert load(Settings, None) == Settings()
    assert read("") == read("# only a comment\n") == Settings()


def test_a_file_changes_only_what_it_names(read):
    config = read("steps: 7\noptimiser: {lr: 0.5}\nparts:\n- channels: 3\n- {}\n")
    assert config == Settings(steps=7, optimiser=Optimiser(lr=0.5), parts=[Part(channels=3), Part()])
    assert config.optimiser.betas == (0.9, 0.999)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("+1e3", 1e3),
        ("-2e-3", -2e-3),
        ("1.5e3", 1500.0),
        ("1.e2", 100.0),
        (".5", 0.5),
        ("-.5e2", -50.0),
        ("3", 3.0),
        ("0.25", 0.25),
        ("1_000.5", 1000.5),
    ],
)
def test_numbers_read_as_people_write_them(read, text, number):
    """Plain PyYAML reads 1e-4 as text. Without conversion here: through an untyped field it would stay text."""

    class Loose(Config):
        value: float | str

    value = read(f"value: {text}", kind=Loose).value
    assert isinstance(value, float | int) and value == number
    assert load(Loose, None, [f"value={text}"]).value == number
    assert read(
        f"value: [{text}]", kind=type("L", (Config,), {"__annotations__": {"value": list[float | str]}})
    ).value == [number]


@pytest.mark.parametrize("text", ["1e", "e4", "1.2.3", "v1e4", "1e4x", "'1e-4'", "1e-4 steps"])
def test_text_that_resembles_a_number_stays_text(read, text):
    assert read(f"label: {text}".replace(" steps", "_steps")).label == text.strip("'").replace(" steps", "_steps")


def test_overrides_win_and_reach_into_sections(read):
    config = read(
        "steps: 7\noptimiser: {lr: 0.5, name: sgd}\n",
        "steps=8",
        "optimiser.lr=1e-5",
        "optimiser.betas=[0.8, 0.9]",
        "weak.lr=2",
        "compile=true",
        "label=a=b",
        "parts=[{channels: 4}]",
    )
    assert config.steps == 8 and config.compile is True and config.label == "a=b"
    assert config.optimiser == Optimiser(lr=1e-5, betas=(0.8, 0.9), name="sgd")
    assert config.weak == Optimiser(lr=2) and config.parts == [Part(channels=4)]


def test_the_last_override_of_a_key_wins(read):
    assert read("", "steps=1", "steps=2").steps == 2
    assert read("weak: {lr: 3}", "weak=null").weak is None


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().steps = 3


def test_defaults_are_checked_too():
    class Wrong(Config):
        steps: int = "many"

    assert "steps" in refusal(load, Wrong, None)


@pytest.mark.parametrize("text", ["no", "No", "yes", "on", "OFF", "y"])
def test_only_true_and_false_are_booleans(read, text):
    """PyYAML makes False of `precision: no`, which is one of that setting's values."""
    assert read(f"label: {text}").label == text == load(Settings, None, [f"label={text}"]).label


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_true_and_false_are_booleans(read, text, value):
    class Loose(Config):
        value: bool | str

    assert read(f"value: {text}", kind=Loose).value is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("010", 10), ("08", 8), ("-007", -7), ("0o17", 15), ("0x1F", 31), ("1_000", 1000), ("9" * 30, int("9" * 30))],
        *[(text, text) for text in ("1:30", "1:30.5", "0b101", "2020-01-01", "2020-13-45", "=", "1__0", "0o8")],
        *[("~", None), ("null", None), ("NULL", None), ("nUll", "nUll")],
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    """The table of the core schema, YAML 1.2.2, section 10.3.2; PyYAML reads 010 as 8 and 1:30 as 90."""
    found = yaml.load(f"[{text}]", Loader=Loader)[0]
    assert found == value and type(found) is type(value)
    assert yaml.load(yaml.dump([value], Dumper=Dumper), Loader=Loader) == [value]


class Numbers(Config):
    count: int = 1
    rate: float = 1.0
    several: tuple[int, ...] = ()
    one_of: Literal["all"] | float = "all"
    group: Group | None = None
    seed: Seed = 0


@pytest.mark.parametrize(
    "override",
    [
        *("count=true", "rate=true", "several=[1, true]", "one_of=false", "group={name: a, channels: true}"),
        *("count='3'", "rate='1e-4'", "several=['3']", "one_of='2'", "group={name: a, channels: '3'}", "count=1:30"),
    ],
)
def test_nothing_else_passes_for_a_number(override):
    message = refusal(load, Numbers, None, [override])
    assert "valid integer" in message or "valid number" in message or "'all'" in message
    assert "[" not in message.partition(": input")[0].removeprefix(f"override {override!r}"), message


def test_numbers_that_are_numbers():
    found = load(Numbers, None, ["count=1e3", "rate=2", "several=[010]", "one_of=2", "group={name: a, channels: 3}"])
    assert found == Numbers(count=1000, rate=2.0, several=(10,), one_of=2.0, group=Group("a", 3))


@pytest.mark.parametrize("override", ["count=1e12", "count=1000000001", "group={name: a, channels: 1e12}", "seed=-1"])
def test_absurd_numbers_are_refused(override):
    assert "than or equal to" in refusal(load, Numbers, None, [override])
    assert load(Numbers, None, ["count=1000000000", f"seed={2**61}"]) == Numbers(count=10**9, seed=2**61)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("{name: a, chanels: 3}", "unknown key 'group.chanels'; did you mean 'channels'?"),
        ("{name: a, channels: 3, wieght: 2}", "unknown key 'group.wieght'; did you mean 'weight'?"),
        ("{nmae: a, channels: 3}", "unknown key 'group.nmae'; did you mean 'name'?"),
        ("{name: a}", "group.channels: field required"),
    ],
)
def test_a_typo_in_a_groups_key_is_named(group, words):
    assert words.lower() in refusal(load, Numbers, None, [f"group={group}"]).lower()


def test_paths_begin_at_home(monkeypatch, tmp_path):
    class Paths(Config):
        output: Path = Path("x")
        weights: PathText = "digits"
        several: tuple[PathText, ...] = ()

    monkeypatch.setenv("HOME", str(tmp_path))
    found = load(Paths, None, ["output=~/x", "weights=~/w", "several=[~/a, b~]"])
    assert found == Paths(output=tmp_path / "x", weights=f"{tmp_path}/w", several=(f"{tmp_path}/a", "b~"))
    (tmp_path / "base.yaml").write_text("weights: fine")
    (tmp_path / "top.yaml").write_text("base: ~/base.yaml")
    assert load(Paths, tmp_path / "top.yaml").weights == "fine"
    for key in ("output", "weights"):
        assert "no such home folder" in refusal(load, Paths, None, [f"{key}=~nobody-of-that-name/x"])


# one file on top of another


@pytest.fixture
def layers(tmp_path):
    """layers({path: text, ...}, *overrides) -> the config of the last one."""

    def layers(files, *overrides):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return load(Settings, tmp_path / list(files)[-1], overrides)

    return layers


def test_a_file_changes_its_base_section_by_section(layers):
    config = layers(
        {
            "shared/base.yaml": "steps: 7\nlabel: base\noptimiser: {lr: 0.5, betas: [0.1, 0.2]}\nparts: [{}, {}]",
            "middle.yaml": "base: shared/base.yaml\nlabel: middle\noptimiser: {name: sgd}\nweak: {lr: 2}\n",
            "deep/top.yaml": "base: ../middle.yaml\nsteps: 9\noptimiser: {betas: [0.3, 0.4]}\n"
            "parts: [{channels: 3}]\nweak: null\n",
        },
        "optimiser.lr=0.25",
    )
    by_hand = Optimiser(lr=0.25, betas=(0.3, 0.4), name="sgd")
    assert config == Settings(steps=9, label="middle", optimiser=by_hand, parts=[Part(channels=3)], weak=None)
    assert "base" not in dump(config)


def test_an_empty_file_on_a_base_is_the_base(layers):
    assert layers({"a.yaml": "steps: 7", "b.yaml": "base: a.yaml"}) == Settings(steps=7)


def test_merge_leaves_its_arguments_alone():
    base, changes = {"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"x": 3}, "b": [], "c": {}}
    assert merge(base, changes) == {"a": {"x": 3, "y": 2}, "b": [], "c": {}}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1]} and changes == {"a": {"x": 3}, "b": [], "c": {}}


@pytest.mark.parametrize(
    ("files", "start", "words"),
    [
        ({"a.yaml": "base: b.yaml"}, "a.yaml: base: ", ["b.yaml", "relative to the file"]),
        ({"a.yaml": "base: ."}, "a.yaml: base: ", ["no config file"]),
        ({"a.yaml": "base: 3"}, "a.yaml: base: ", ["path of another config file", "got 3"]),
        ({"a.yaml": "base:"}, "a.yaml: base: ", ["path of another config file", "got None"]),
        ({"a.yaml": "base: [b.yaml]"}, "a.yaml: base: ", ["path of another config file"]),
        ({"a.yaml": "base: a.yaml"}, "a.yaml: base: ", ["circle", "a.yaml -> "]),
        (
            {"x/b.yaml": "base: ../a.yaml", "a.yaml": "base: x/b.yaml"},
            "a.yaml: base: ",
            ["circle", "a.yaml -> ", "b.yaml -> "],
        ),
        ({"a.yaml": "steps: [", "b.yaml": "base: a.yaml"}, "a.yaml: ", ["not valid YAML"]),
        ({"a.yaml": "- 1", "b.yaml": "base: a.yaml"}, "a.yaml: ", ["a mapping"]),
        ({"a.yaml": "steps: x", "b.yaml": "base: a.yaml\nlabel: fine"}, "a.yaml: steps: ", ["integer", "'x'"]),
        ({"a.yaml": "steps: x", "b.yaml": "base: a.yaml\nsteps: y"}, "b.yaml: steps: ", ["integer", "'y'"]),
        ({"a.yaml": "label: fine", "b.yaml": "base: a.yaml\nstpes: 1"}, "b.yaml: ", ["did you mean 'steps'?"]),
        ({"a.yaml": "optimiser: {lrr: 1}", "b.yaml": "base: a.yaml\noptimiser: {lr: 1}"}, "a.yaml: ", ["'lr'?"]),
        ({"a.yaml": "parts: [{chanels: 1}]", "b.yaml": "base: a.yaml"}, "a.yaml: ", ["did you mean 'channels'?"]),
        ({"a.yaml": "steps: 1", "b.yaml": "base: a.yaml\nbase: a.yaml"}, "b.yaml: ", ["'base' is given twice"]),
    ],
)
def test_what_is_wrong_with_a_layer_is_said_of_that_file(layers, tmp_path, files, start, words):
    message = refusal(layers, files)
    assert message.startswith(f"{tmp_path}/{start}") or message.startswith(f"{tmp_path}/x/../{start}"), message
    assert all(word in message for word in words), message


def test_a_value_in_a_list_is_the_fault_of_the_override_that_set_it(layers):
    assert refusal(layers, {"a.yaml": "parts: []"}, "parts=[{chanels: 1}]").startswith(
        "override 'parts=[{chanels: 1}]': "
    )


def test_an_override_of_a_section_takes_the_blame_for_all_of_it(layers):
    message = refusal(layers, {"a.yaml": "optimiser: {lr: 1}"}, "optimiser={lr: x}")
    assert message.startswith("override 'optimiser={lr: x}': optimiser.lr: ")


# refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stpes: 3", ["unknown key 'stpes'", "did you mean 'steps'?"]),
        ("optimiser: {lrr: 1}", ["unknown key 'optimiser.lrr'", "did you mean 'lr'?"]),
        ("weak: {beta: 1}", ["unknown key 'weak.beta'", "did you mean 'betas'?"]),
        ("parts: [{}, {chanels: 1}]", ["unknown key 'parts.1.chanels'", "did you mean 'channels'?"]),
        ("optimiser: {zzzzz: 1}", ["unknown key 'optimiser.zzzzz'", "known keys: lr, betas, name"]),
    ],
)
def test_an_unknown_key_is_named_with_its_nearest(read, tmp_path, text, words):
    message = refusal(read, text)
    assert message.startswith(f"{tmp_path / 'config.yaml'}: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: abc", ["steps: ", "integer", "'abc'"]),
        ("steps: 1.5", ["steps: ", "integer", "1.5"]),
        ("steps: 0", ["steps: ", "greater than or equal to 1", "got 0"]),
        ("steps: [1, 2]", ["steps: ", "integer"]),
        ("steps:", ["steps: ", "integer", "None"]),
        ("optimiser: {lr: fast}", ["optimiser.lr: ", "number", "'fast'"]),
        ("optimiser: {betas: [0.9]}", ["optimiser.betas.1: ", "required"]),
        ("optimiser: {name: adam}", ["optimiser.name: ", "'adamw' or 'sgd'", "'adam'"]),
        ("optimiser: 3", ["optimiser: ", "dictionary", "3"]),
        ("label: a b", ["label: ", "no spaces"]),
        ("label: 3", ["label: ", "string", "3"]),
        ('label: "a\\nb c"', ["label: ", "no spaces"]),
        ('steps: "a\\nb"', ["steps: ", "integer"]),
        ("compile: maybe", ["compile: ", "boolean"]),
        ("1: 2", ["1: ", "string"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key(read, tmp_path, text, words):
    message = refusal(read, text)
    assert message.startswith(f"{tmp_path / 'config.yaml'}: ")
    assert all(word in message for word in words), message


def test_several_errors_are_counted(read):
    message = refusal(read, "steps: a\noptimiser: {lr: b}\nnope: 1\n")
    assert "steps" in message and message.endswith("(and 2 more)")


def test_a_required_key(read):
    assert "data: field required" in refusal(read, "", kind=Required).lower()
    assert "data" in refusal(load, Required, None)


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: {b", "a: 1\n b: 2", "a: 'x", "\tsteps: 1", "steps: !!python/object/apply:os.getcwd []", "{[1]: 2}"],
)
def test_bad_yaml(read, tmp_path, text):
    assert refusal(read, text).startswith(f"{tmp_path / 'config.yaml'}: not valid YAML")


@pytest.mark.parametrize("text", ["- 1\n- 2", "just text", "3"])
def test_a_file_that_is_not_a_mapping(read, text):
    assert "a mapping" in refusal(read, text)


def test_a_missing_file(tmp_path):
    assert refusal(load, Settings, tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: no such config file"
    assert "no such config file" in refusal(load, Settings, tmp_path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps", ["'steps'", "key.sub=value"]),
        ("=3", ["'=3'", "key.sub=value"]),
        ("steps=abc", ["override 'steps=abc': steps: ", "integer"]),
        ("stpes=3", ["override 'stpes=3': ", "did you mean 'steps'?"]),
        ("optimiser.lrr=3", ["override 'optimiser.lrr=3': ", "did you mean 'lr'?"]),
        ("steps.sub=3", ["override 'steps.sub=3'", "'steps' is not a section"]),
        ("steps=[1", ["override 'steps=[1'", "not valid YAML"]),
        ("optimiser.=1", ["override 'optimiser.=1'", "unknown key"]),
    ],
)
def test_a_bad_override_is_the_one_that_is_named(read, override, words):
    message = refusal(read, "steps: 5", "label=fine", override)
    assert all(word in message for word in words), message


def test_parse_says_where():
    assert refusal(parse, Settings, {"steps": "x"}, "checkpoint 7").startswith("checkpoint 7: steps: ")
    assert parse(Settings, {"steps": 3}, "here") == Settings(steps=3)


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan"])
def test_numbers_are_finite(text):
    assert "finite number" in refusal(load, Settings, None, [f"optimiser.lr={text}"])


# dump


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(derandomize=True, database=None, max_examples=100, deadline=None)
@given(st.builds(Optimiser, lr=NUMBERS, betas=st.tuples(NUMBERS, NUMBERS), name=st.sampled_from(["adamw", "sgd"])))
def test_dump_and_load_give_the_config_back(tmp_path_factory, optimiser):
    config = Settings(
        steps=3, output=Path("a/b"), optimiser=optimiser, weak=optimiser, parts=[Part(), Part(channels=2)]
    )
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(dump(config))
    assert load(Settings, file) == config


@pytest.mark.parametrize(
    "label",
    [
        *(
            "plain",
            "",
            "null",
            "true",
            "no",
            "On",
            "3",
            "0x1",
            "1.5",
            "a: b",
            "- a",
            "#",
            "'",
            "ü",
            "2020-01-01",
            "1:30",
        ),
        *("08", "010", "0o17", "1_000", ".5", ".nan", "<<", "=", "~x", "0b1", "NaN", "2020-13-45"),
    ],
)
def test_text_survives_dump_and_load(read, label):
    config = Settings(label=label.replace(" ", "_"))
    assert read(dump(config)) == config


@pytest.mark.parametrize("label", ["12e7", "1e-4", "314159e26535"])
def test_text_that_is_a_number_in_yaml_1_2_survives_dump_and_load(read, label):
    """A schedule's hash, a revision, a run's name may look like this."""
    config = Settings(label=label)
    assert read(dump(config)) == config


def test_dump_writes_every_default_once():
    keys = re.findall(r"^(\w+):", dump(Settings()), flags=re.MULTILINE)
    assert keys == [*Settings.model_fields]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param(b"steps: 1\nsteps: 2\n", id="a key twice"),
    ],
)
def test_more_files_that_strictness_should_refuse(read, text):
    refusal(read, text)


def test_an_override_may_fill_a_section_whose_lines_are_all_commented_out(read):
    assert read("optimiser:\n  # lr: 1\n", "optimiser.lr=0.5").optimiser.lr == 0.5
