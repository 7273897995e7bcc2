import pickle

import pytest

from trainers.errors import FaultError, InputError, StudioError
from trainers.registry import Registry, Spec, nearest


def spec(name, target="math:sqrt"):
    return Spec(name=name, title=name.title(), summary="A root.", target=target)


@pytest.fixture
def table():
    return Registry("reward", [spec("shapes"), spec("tiny_clip")])


def test_a_miss_names_the_nearest_and_all_valid_names(table):
    with pytest.raises(InputError) as caught:
        table.get("shpaes")
    assert str(caught.value) == "Unknown reward 'shpaes'. Did you mean 'shapes'? Valid: shapes, tiny_clip."


def test_a_miss_far_from_every_name_guesses_nothing(table):
    with pytest.raises(InputError) as caught:
        table.get("zzz")
    assert str(caught.value) == "Unknown reward 'zzz'. Valid: shapes, tiny_clip."


def test_keys_are_exact(table):
    with pytest.raises(InputError):
        table.get("Shapes")


def test_order_is_the_table_s(table):
    assert table.names() == ("shapes", "tiny_clip")
    assert tuple(s.name for s in table) == tuple(s.name for s in table.specs()) == table.names()
    assert len(table) == 2 and "shapes" in table and "other" not in table


def test_register_adds_and_refuses_duplicates(table):
    assert table.register(spec("new")) is table.get("new")
    with pytest.raises(ValueError, match="'new' is already registered"):
        table.register(spec("new"))


def test_load_resolves_the_target_lazily():
    import math

    assert spec("root").load() is math.sqrt
    missing = spec("absent", "no_such_module:thing")  # making the row imports nothing
    with pytest.raises(ModuleNotFoundError):
        missing.load()


@pytest.mark.parametrize("target", ["math", "math:", ":sqrt", ""])
def test_a_malformed_target_is_refused(target):
    with pytest.raises(ValueError, match="module:attribute"):
        spec("bad", target)


def test_nearest_takes_any_names():
    assert nearest("sed", {"seed": 1, "model": 2}) == "Did you mean 'seed'? Valid: seed, model."


def test_input_error_lists_every_problem_one_a_line():
    error = InputError("One.", ["Two.", "Three."])
    assert error.problems == ("One.", "Two.", "Three.")
    assert str(error) == "One.\nTwo.\nThree."
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_exit_codes():
    assert (InputError("x").exit_code, FaultError("x").exit_code, StudioError("x").exit_code) == (2, 1, 1)
    assert issubclass(InputError, StudioError) and issubclass(FaultError, StudioError)
